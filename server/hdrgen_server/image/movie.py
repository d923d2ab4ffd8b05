"""Reads SDR movies, frame by frame, as R'G'B' codes.

It owns opening, decoding and the wrapping of FFmpeg's failures; what may be read is `movie_probe`, what tags mean
`movie_tags`. It must not know sidecars, sequences or transfers' formulas. Nothing is cut: codes outside the range stay.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from hdrgen_server.contracts.frame import Colourspace, Frame
from hdrgen_server.image.movie_planes import kind_of, planes
from hdrgen_server.image.movie_probe import looks_like_log, refuse_unfit, refuse_wrong_levels, sample_frames, timing
from hdrgen_server.image.movie_tags import LEVELS, Coding, Tags, coding
from hdrgen_server.image.movie_yuv import rgb_of, scaled
from hdrgen_server.image.tags import of_interop_id
from nuke_hdrgen.wire.errors import BadInput

MOST_PIXELS = 1 << 28


@dataclass(frozen=True)
class Overrides:
    """What a user says of a movie, over its tags; None for nothing."""

    space: Colourspace | None = None
    matrix: str | None = None
    levels: str | None = None


@dataclass(frozen=True)
class Movie:
    """An SDR movie that can be read: `frames` by its header, `size` (width, height) upright, and how codes are made."""

    path: Path
    frames: int
    rate: Fraction
    size: tuple[int, int]
    coding: Coding
    space: Colourspace
    pixel_aspect: float = 1.0
    warnings: tuple[str, ...] = ()


def open_movie(path: Path, overrides: Overrides | None = None) -> Movie:
    """Look at a movie. Raises BadInput, naming the file, for what is no SDR movie of one rate and whole frames:
    HDR or log footage, interlaced, a variable frame rate, range flags that the codes contradict, or no movie at all;
    BadParameter for overrides that are none.
    """
    given = overrides or Overrides()
    with _opened(path) as (container, stream):
        context = stream.codec_context
        size, kind = (context.width, context.height), kind_of(str(context.pix_fmt))
        if not 0 < size[0] * size[1] <= MOST_PIXELS:
            raise BadInput(f"{path} has frames of {size[0]}x{size[1]} pixels; export it smaller")
        if kind is None:
            raise BadInput(f"{path} has the pixel format {context.pix_fmt}, which is not read; convert it to yuv420p")
        tags = _tags(stream, jpeg=kind.jpeg)
        space_id = given.space.interop_id or given.space.name if given.space else ""
        how = coding(
            str(path), tags, size, rgb=kind.rgb, space=space_id, matrix=given.matrix, levels=given.levels
        )  # fmt: skip
        when = timing(path, container, stream)
        frames = sample_frames(container, stream)
        if given.space is None:
            refuse_unfit(path, stream, dict(container.metadata), frames)
        else:
            refuse_unfit(path, stream, {}, [])
        if given.levels is None:
            flagged = {LEVELS["limited"]: "is flagged limited range", LEVELS["full"]: "is flagged full range"}
            refuse_wrong_levels(path, how, flagged.get(tags.levels, "does not state its range"), frames)
        suspicions = looks_like_log(path, how, frames) if given.space is None else ()
        sound = ("its sound is left out",) if container.streams.audio else ()
        turned = bool(frames) and frames[0].rotation % 180 == 90
        aspect = float(stream.sample_aspect_ratio or 1)
        warnings = (*how.warnings, *suspicions, *(f"{path}: {text}" for text in sound))
        return Movie(
            path, when.announced, when.rate, (size[1], size[0]) if turned else size, how,
            given.space or of_interop_id(how.space), 1 / aspect if turned else aspect, warnings,
        )  # fmt: skip


def read_frames(movie: Movie) -> Iterator[Frame]:
    """Decode the frames in order, numbered from 1: float32 R'G'B'(A) codes, nominally 0..1, upright.

    Raises BadInput, after the frames before it, where a frame is damaged, interlaced, or of another size or colour than
    the first, and where the movie ends before the last frame that it announces.
    """
    count = 0
    first: tuple[int, ...] = ()
    with _opened(movie.path) as (container, stream):
        stream.thread_type = "AUTO"
        try:
            for decoded in container.decode(stream):
                if decoded.is_corrupt:
                    raise BadInput(f"{movie.path} is damaged at frame {count + 1}; what is before it is done")
                first = first or _colour(decoded)
                if decoded.interlaced_frame:
                    raise BadInput(f"{movie.path} is interlaced from frame {count + 1} on; deinterlace it first")
                if _colour(decoded) != first:
                    raise BadInput(f"{movie.path} changes its colour tags at frame {count + 1}; split it there")
                frame = _frame(decoded, movie, count + 1)
                count += 1
                yield frame
                if count == movie.frames:
                    return
        except FFmpegError as error:
            raise BadInput(f"{movie.path} is damaged after frame {count}: {_one_line(error)}") from error
    raise BadInput(f"{movie.path} ends after {count} of {movie.frames} frames; what is there is done")


def codes_of(decoded: VideoFrame, how: Coding) -> npt.NDArray[np.float32]:
    """The (H, W, 3 or 4) codes of a decoded frame; alpha is the fourth. Raises BadInput for other pixel formats."""
    kind, found = planes(decoded)
    if kind.grey:
        rgb = np.repeat(scaled(found[0], kind.layout.bits, full=how.full)[..., None], 3, axis=2)
    elif kind.rgb:
        green, blue, red = (scaled(plane, kind.layout.bits, full=how.full) for plane in found[:3])
        rgb = np.stack([red, green, blue], axis=2)
    else:
        rgb = rgb_of((found[0], found[1], found[2]), kind.layout, how.matrix, full=how.full)
    if not kind.alpha:
        return rgb
    return np.concatenate([rgb, scaled(found[3], kind.layout.bits, full=True)[..., None]], axis=2)


def _colour(decoded: VideoFrame) -> tuple[int, ...]:
    """What a frame says of its primaries, transfer, matrix and range."""
    said: Any = decoded
    return int(said.color_primaries), int(said.color_trc), int(said.colorspace), int(said.color_range)


def _frame(decoded: VideoFrame, movie: Movie, number: int) -> Frame:
    codes = codes_of(decoded, movie.coding)
    if decoded.rotation:
        codes = np.rot90(codes, decoded.rotation // 90)
    if (codes.shape[1], codes.shape[0]) != movie.size:
        size = f"{codes.shape[1]}x{codes.shape[0]}"
        raise BadInput(f"{movie.path} changes to {size} at frame {number}; split it there")
    channels = ("R", "G", "B", "A")[: codes.shape[2]]
    return Frame(
        np.ascontiguousarray(codes), channels, movie.space, number=number, pixel_aspect=movie.pixel_aspect,
        metadata={"colourspace_from": "movie"},
    )  # fmt: skip


def _tags(stream: VideoStream, *, jpeg: bool) -> Tags:
    context: Any = stream.codec_context
    levels = int(context.color_range) or (LEVELS["full"] if jpeg else 0)
    return Tags(int(context.color_primaries), int(context.color_trc), int(context.colorspace), levels)


@contextmanager
def _opened(path: Path) -> Generator[tuple[InputContainer, VideoStream]]:
    try:
        container = av.open(str(path))
    except (FFmpegError, OSError) as error:
        raise BadInput(f"cannot read {path}: {_one_line(error)}; export it again") from error
    with container:
        if not container.streams.video:
            raise BadInput(f"{path} has no pictures; name a movie")
        yield container, container.streams.video[0]


def _one_line(error: BaseException) -> str:
    return (" ".join(str(getattr(error, "strerror", None) or error).split()) or "no reason given")[:160]
