"""Writes scene-linear frames as a 10-bit BT.2020 movie: HEVC or ProRes, PQ or HLG, with its light metadata.

It owns encoding, what the container cannot hold (counted, never cut in silence), and putting the file in its place.
MaxCLL and MaxFALL are known after the last frame only: they are measured on the way, and put into the finished file, so
that no frame is encoded twice. It must not know sidecars or what made the frames.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import numpy.typing as npt
from av.codec.context import Flags
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from hdrgen_server.colour.curves import HLG_PEAK_NITS, pq
from hdrgen_server.colour.hlg_display import HlgDisplay
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.image.movie_boxes import OPEN, finish, storable
from hdrgen_server.image.movie_light import LightMeter, Mastering
from hdrgen_server.image.movie_tags import MATRICES
from hdrgen_server.image.movie_yuv import Layout, planes_of
from nuke_hdrgen.wire.errors import BadInput, StorageError

BITS = 10
PQ_PEAK_NITS = 10000.0
REC2020_PRIMARIES, TRANSFERS, LIMITED = 9, {"pq": 16, "hlg": 18}, 1
PIXEL_FORMATS: Mapping[Layout, str] = {
    Layout(2, 2, BITS): "yuv420p10le", Layout(2, 1, BITS): "yuv422p10le", Layout(1, 1, BITS): "yuv444p10le",
}  # fmt: skip
HEVC = {"preset": "medium", "crf": "14"}
# The encoder holds no frames back, so that its memory does not grow with the first thirty: 300 MiB less at 1080p.
STEADY = "rc-lookahead=0:bframes=0:frame-threads=1"
PRORES = {"profile": "3", "vendor": "apl0"}
ROWS = 128


@dataclass(frozen=True)
class Form:
    """What kind of movie: `codec` hevc or prores, `transfer` pq or hlg, where diffuse white is shown, in cd/m2, and the
    peak of the display that the movie says it was mastered on.
    """

    codec: str
    transfer: str
    white_nits: float = 100.0
    mastering_nits: float = 1000.0

    @property
    def peak_nits(self) -> float:
        """The brightest light that the codes can hold."""
        return PQ_PEAK_NITS if self.transfer == "pq" else HLG_PEAK_NITS

    @property
    def words(self) -> str:
        """What a person reads."""
        return f"{self.transfer.upper()} BT.2020, {'HEVC' if self.codec == 'hevc' else 'ProRes 422 HQ'}, 10 bit"


class MovieWriter:
    """Encodes frame after frame beside `path`; `close` puts the movie in its place."""

    def __init__(self, path: Path, form: Form, size: tuple[int, int], rate: Fraction) -> None:
        """Raises StorageError when the movie cannot be opened."""
        self._path, self._form, self._size, self._rate = path, form, size, rate
        self._meter = LightMeter()
        self._counts = {"samples": 0, "above": 0, "below": 0, "beyond_mastering": 0, "alpha_left_out": 0}
        self._frames = 0
        odd = bool(size[0] % 2 or size[1] % 2)
        self._layout = Layout(2, 1, BITS) if form.codec == "prores" else Layout(*((1, 1) if odd else (2, 2)), BITS)
        handle, name = -1, ""
        try:
            handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent)
            os.fchmod(handle, 0o666 & ~_umask())
            os.close(handle)
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error.strerror}; choose another folder") from error
        self._temporary = Path(name)
        self._container = av.open(name, "w", format="mov" if path.suffix.lower() == ".mov" else "mp4")
        self._stream = self._open_stream()

    def add(self, frame: Frame) -> None:
        """Encode one frame, linear Rec.2020, 1.0 at diffuse white; alpha is left out and counted.

        Light beyond what the codes can hold, and negative light (colours outside Rec.2020), is cut and counted. Raises
        BadInput for another size, NaN or Inf, StorageError when the disk is full.
        """
        if (frame.width, frame.height) != self._size:
            width, height = self._size
            raise BadInput(f"frame {frame.number} is {frame.width}x{frame.height}, the movie {width}x{height}")
        if not np.isfinite(frame.rgb).all():
            raise BadInput(f"frame {frame.number} has NaN or Inf, which no movie holds; replace them first")
        if self._frames == 0 and frame.pixel_aspect != 1.0:
            self._stream.sample_aspect_ratio = Fraction(frame.pixel_aspect).limit_denominator(1000)
        picture = VideoFrame(*self._size, PIXEL_FORMATS[self._layout])
        codes = self._codes(frame)
        for plane, values in zip(picture.planes, planes_of(codes, self._layout, MATRICES["bt2020"]), strict=True):
            rows = np.frombuffer(cast(Any, plane), np.uint16).reshape(-1, plane.line_size // 2)
            rows[: values.shape[0], : values.shape[1]] = values
        picture.pts = self._frames
        picture.time_base = 1 / self._rate
        picture.color_range = cast(Any, LIMITED)
        picture.colorspace = cast(Any, MATRICES["bt2020"])
        self._frames += 1
        self._counts["alpha_left_out"] += int("A" in frame.channels)
        self._encode(picture)

    def close(self) -> dict[str, Any]:
        """Finish the movie and rename it to its path; returns its record.

        Raises StorageError; no partial file stays then.
        """
        try:
            self._encode(None)
            self._container.close()
            mastering = Mastering(self._form.mastering_nits)
            light = storable(self._meter.light) if self._form.codec == "hevc" else self._meter.light
            finish(self._temporary, mastering, light, _key_samples(self._temporary, self._form))
            self._temporary.replace(self._path)
        except (FFmpegError, OSError) as error:
            raise self._failed(error) from error
        return {
            "is": self._form.words, "frames": self._frames, "rate": str(self._rate),
            "max_cll": light.max_cll, "max_fall": light.max_fall, "mastering_nits": self._form.mastering_nits,
            "white_nits": self._form.white_nits, "counts": dict(self._counts), "warnings": self._warnings(),
        }  # fmt: skip

    def abandon(self) -> None:
        """Drop what was encoded."""
        with contextlib.suppress(FFmpegError, OSError):
            self._container.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink()

    def _open_stream(self) -> VideoStream:
        hevc = self._form.codec == "hevc"
        options = {**HEVC, "x265-params": self._x265()} if hevc else dict(PRORES)
        stream = self._container.add_stream("libx265" if hevc else "prores_ks", rate=self._rate, options=options)
        stream.width, stream.height = self._size
        stream.pix_fmt = PIXEL_FORMATS[self._layout]
        context: Any = stream.codec_context
        context.color_primaries, context.color_trc = REC2020_PRIMARIES, TRANSFERS[self._form.transfer]
        context.colorspace, context.color_range = MATRICES["bt2020"], LIMITED
        if hevc:
            context.codec_tag = "hvc1"
            context.flags |= Flags.global_header
        return stream

    def _x265(self) -> str:
        mastering = Mastering(self._form.mastering_nits)
        points = "".join(
            f"{name}({x},{y})" for name, (x, y) in zip(("G", "B", "R", "WP"), mastering.points, strict=True)
        )
        high, low = mastering.luminances
        return (
            f"log-level=none:info=0:{STEADY}:hdr10=1:master-display={points}L({high},{low}):"
            f"max-cll={OPEN.max_cll},{OPEN.max_fall}"
        )

    def _codes(self, frame: Frame) -> npt.NDArray[np.float32]:
        """R'G'B' codes in 0..1; counts what had to be cut to get there, and measures what is left."""
        form, counts = self._form, self._counts
        transfer = pq(form.white_nits) if form.transfer == "pq" else HlgDisplay(form.white_nits)
        highest = np.float32(form.peak_nits / form.white_nits)
        light = frame.rgb
        above, below = light > highest * (1 + 1e-6), light < 0
        counts["samples"] += light.size
        counts["below"] += int(below.sum())
        shown = np.clip(light, 0, highest)
        counts["beyond_mastering"] += int((shown * form.white_nits > form.mastering_nits).sum())
        codes = np.empty(light.shape, np.float32)
        for top in range(0, len(shown), ROWS):
            codes[top : top + ROWS] = transfer.encode(shown[top : top + ROWS])
        over = codes > 1 + 1e-6  # in HLG a saturated colour may pass the top below the peak
        counts["above"] += int((above | over).sum())
        np.clip(codes, 0, 1, out=codes)
        self._meter.add(shown * np.float32(form.white_nits))
        return codes

    def _warnings(self) -> list[str]:
        counts, form = self._counts, self._form
        texts = {
            "above": f"samples are brighter than the {form.peak_nits:g} cd/m2 that {form.transfer.upper()} holds",
            "below": "samples lie outside BT.2020 or are negative",
            "beyond_mastering": f"samples are brighter than the mastering display, {form.mastering_nits:g} cd/m2",
            "alpha_left_out": "frames have an alpha, which the movie has not",
        }
        ends = {"above": "and are cut to it", "below": "and are cut to it", "beyond_mastering": "and are kept"}
        found = [f"{counts[n]} {text}{f' {ends[n]}' if n in ends else ''}" for n, text in texts.items() if counts[n]]
        chroma = ["a side is odd: HEVC is written as 4:4:4"] if self._layout == Layout(1, 1, BITS) else []
        return [f"{self._path}: {text}" for text in (*found, *chroma)]

    def _encode(self, picture: VideoFrame | None) -> None:
        try:
            for packet in self._stream.encode(picture):
                self._container.mux(packet)
        except (FFmpegError, OSError) as error:
            raise self._failed(error) from error

    def _failed(self, error: BaseException) -> StorageError:
        self.abandon()
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        return StorageError(f"cannot write {self._path}: {reason}; free space or choose another folder")


def _key_samples(path: Path, form: Form) -> list[tuple[int, int]]:
    """(offset, size) of HEVC's key frames, which repeat the light message; none of ProRes."""
    if form.codec != "hevc":
        return []
    with av.open(str(path)) as container:
        entries = cast(Any, container.streams.video[0]).index_entries
        return [(entry.pos, entry.size) for entry in entries if entry.is_keyframe]


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
