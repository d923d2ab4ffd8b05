"""Looks at a movie before it is converted: when its frames are shown, and what some of them look like.

It owns what is refused by name: variable frame rate, interlacing, HDR and log footage, range flags that the codes
contradict. It must not know how codes become colour, nor what is done with frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.error import FFmpegError
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from hdrgen_server.image.movie_planes import luma_8bit, saturation
from hdrgen_server.image.movie_tags import Coding, log_word
from nuke_hdrgen.wire.errors import BadInput

PLACES = 6
FIELD_ORDERS = {2: "top field first", 3: "bottom field first", 4: "top field first", 5: "bottom field first"}
HDR_SIDE_DATA = (
    Type.MASTERING_DISPLAY_METADATA, Type.CONTENT_LIGHT_LEVEL, Type.DYNAMIC_HDR_PLUS, Type.DOVI_METADATA,
    Type.DOVI_RPU_BUFFER,
)  # fmt: skip
# Shares of luma samples, in codes of 8 bits.
BELOW_BLACK, BLACK, WHITE = 12, 16, 235
FULL_SHARE, PILE_SHARE = 0.005, 0.002
# A log curve lifts black, holds white back and takes colour out: shares of the range, and mean chroma.
LOG_DARKEST, LOG_BRIGHTEST, LOG_CHROMA = 0.08, 0.85, 0.03


@dataclass(frozen=True)
class Timing:
    """How many frames there are, how many the file announces, and how many a second."""

    frames: int
    announced: int
    rate: Fraction


def timing(path: Path, container: InputContainer, stream: VideoStream) -> Timing:
    """Read all packets once, without decoding. Raises BadInput for a variable frame rate, or no frame at all."""
    stamps: list[int] = []
    count = trimmed = 0
    try:
        for packet in container.demux(stream):
            if packet.size == 0:
                continue
            if packet.is_discard:  # an edit list leaves it out
                trimmed += 1
                continue
            count += 1
            if packet.pts is not None:
                stamps.append(packet.pts)
    except FFmpegError:
        pass  # what is there is converted; `announced` says that there should be more
    rate = stream.average_rate or stream.guessed_rate
    if count == 0 or not rate:
        raise BadInput(f"{path} holds no frames that can be read; export it again")
    if len(stamps) == count and count > 2 and stream.time_base:
        rate = _constant(path, sorted(stamps), stream.time_base, rate)
    return Timing(count, max(count, _announced(stream, rate) - trimmed), rate)


def _constant(path: Path, stamps: Sequence[int], unit: Fraction, stated: Fraction) -> Fraction:
    """The rate of evenly spaced time stamps: the stated one where it fits them to a tick of the file's clock."""
    ticks = np.asarray(stamps, np.float64) - stamps[0]
    mean = ticks[-1] / (len(ticks) - 1)
    usual = float(np.median(np.diff(ticks)))
    step = float(1 / (stated * unit))
    for each in (step, mean):
        if np.abs(ticks - each * np.arange(len(ticks))).max() <= 1.0 + 1e-3 * each:
            return (
                stated
                if each == step
                else (1 / (Fraction(mean).limit_denominator(10**6) * unit)).limit_denominator(1001)
            )
    odd = int(np.argmax(np.abs(np.diff(ticks) - usual) > 1.0 + 1e-3 * usual))
    raise BadInput(
        f"{path} has a variable frame rate: frame {odd + 1} lasts {float((ticks[odd + 1] - ticks[odd]) * unit):.4g} s, "
        f"most last {float(usual * unit):.4g} s; convert it to a constant rate"
    )


def _announced(stream: VideoStream, rate: Fraction) -> int:
    """How many frames the file's header says there are, 0 when it does not; Matroska states a duration instead."""
    if stream.frames:
        return int(stream.frames)
    hours, _, rest = stream.metadata.get("DURATION", "").partition(":")
    minutes, _, seconds = rest.partition(":")
    try:
        length = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return 0
    return int(length * float(rate) + 0.2)


def sample_frames(container: InputContainer, stream: VideoStream) -> list[VideoFrame]:
    """A few frames from all over the movie; fewer when some places cannot be decoded."""
    found: list[VideoFrame] = []
    span, first = stream.duration or 0, stream.start_time or 0
    for place in range(PLACES if span else 1):
        try:
            container.seek(first + span * place // PLACES, stream=stream)
            frame = next(container.decode(stream), None)
        except FFmpegError:
            continue
        if frame is not None:
            found.append(frame)
    return found


def refuse_unfit(path: Path, stream: VideoStream, metadata: dict[str, str], frames: Sequence[VideoFrame]) -> None:
    """Raises BadInput for interlaced, HDR and log footage, by what stream, metadata and frames say of themselves."""
    order = int(stream.codec_context.field_order)
    if order in FIELD_ORDERS or any(frame.interlaced_frame for frame in frames):
        how = f" ({FIELD_ORDERS[order]})" if order in FIELD_ORDERS else ""
        raise BadInput(f"{path} is interlaced{how}; deinterlace it first")
    kinds = {data.type for frame in frames for data in cast(Iterable[Any], frame.side_data)}
    if any(kind in kinds for kind in HDR_SIDE_DATA):
        raise BadInput(f"{path} carries HDR metadata and so is no SDR; sdr2hdr takes BT.709 footage")
    word = log_word({**metadata, **stream.metadata})
    if word:
        raise BadInput(f"{path} says {word}: log or HDR footage is no SDR; convert it to BT.709 first")


def refuse_wrong_levels(path: Path, coding: Coding, said: str, frames: Sequence[VideoFrame]) -> None:
    """Raises BadInput when luma lies where the range that the stream states has no picture."""
    lumas = [luma for frame in frames if (luma := luma_8bit(frame)) is not None]
    if not lumas:
        return
    codes = np.concatenate([luma.ravel() for luma in lumas])
    below = float(np.mean(codes < BELOW_BLACK))
    if not coding.full and below > FULL_SHARE:
        raise BadInput(
            f"{path} {said}, but {100 * below:.1f} % of its luma lies below black; it is full range, it seems: "
            "say which with --levels"
        )
    inside = int(codes.min()) >= BLACK - 1 and int(codes.max()) <= WHITE + 1
    piled = max(float(np.mean(np.abs(codes.astype(np.int16) - end) <= 1)) for end in (BLACK, WHITE))
    if coding.full and inside and piled > PILE_SHARE:
        raise BadInput(
            f"{path} {said}, but its luma ends at the codes 16 and 235; it is limited range, it seems: "
            "say which with --levels"
        )


def looks_like_log(path: Path, coding: Coding, frames: Sequence[VideoFrame]) -> tuple[str, ...]:
    """A warning when frames look as a log curve makes them, without any tag that says so."""
    lumas = [luma for frame in frames if (luma := luma_8bit(frame)) is not None]
    if not lumas:
        return ()
    codes: npt.NDArray[np.float64] = np.concatenate([luma.ravel() for luma in lumas]).astype(np.float64)
    codes = codes / 255 if coding.full else (codes - BLACK) / (WHITE - BLACK)
    dark, bright = np.percentile(codes, [0.5, 99.5])
    chroma = float(np.mean([saturation(frame) for frame in frames]))
    if dark > LOG_DARKEST and bright < LOG_BRIGHTEST and chroma < LOG_CHROMA:
        return (f"{path} looks like log footage: black at {dark:.0%}, white at {bright:.0%}; if so, convert it first",)
    return ()
