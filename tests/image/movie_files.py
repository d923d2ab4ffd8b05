"""Movies for tests, written with the tags and the faults that are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.context import Flags
from av.video.frame import VideoFrame


@dataclass(frozen=True)
class Tagging:
    primaries: int = 1
    transfer: int = 1
    matrix: int = 1
    levels: int = 1


@dataclass(frozen=True)
class Make:
    codec: str = "libx264"
    pixels: str = "yuv420p"
    rate: Fraction = Fraction(25)
    tags: Tagging = Tagging()
    options: dict[str, str] = field(default_factory=lambda: {"qp": "0", "preset": "ultrafast", "g": "5"})
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    interlaced: bool = False
    container: dict[str, str] = field(default_factory=dict[str, str])


def write_movie(
    path: Path, frames: Sequence[Sequence[np.ndarray]], make: Make = Make(), stamps: Sequence[int] | None = None
) -> Path:
    """A movie of planes; `stamps` are in thousandths of a second."""
    height, width = frames[0][0].shape
    with av.open(str(path), "w", options=make.container) as container:
        container.metadata.update(make.metadata)
        stream: Any = container.add_stream(make.codec, rate=make.rate, options=make.options)
        stream.width, stream.height, stream.pix_fmt = width, height, make.pixels
        context = stream.codec_context
        context.color_primaries, context.color_trc = make.tags.primaries, make.tags.transfer
        context.colorspace, context.color_range = make.tags.matrix, make.tags.levels
        if make.interlaced:
            context.flags |= Flags.interlaced_dct
        if stamps is not None:
            context.time_base = Fraction(1, 1000)
        for index, planes in enumerate(frames):
            picture = VideoFrame(width, height, make.pixels)
            for plane, codes in zip(picture.planes, planes, strict=True):
                rows = np.frombuffer(plane, codes.dtype).reshape(-1, plane.line_size // codes.itemsize)
                rows[: codes.shape[0], : codes.shape[1]] = codes
            picture.pts = index if stamps is None else stamps[index]
            picture.time_base = 1 / make.rate if stamps is None else Fraction(1, 1000)
            for packet in stream.encode(picture):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


def ramp(number: int = 0, size: tuple[int, int] = (64, 48), low: int = 16, high: int = 235) -> list[np.ndarray]:
    """Y', Cb and Cr of 8 bits, 4:2:0: a ramp with a coloured patch that moves with the number; (width, height)."""
    width, height = size
    luma = np.linspace(low, high, width)[None, :].repeat(height, 0)
    chroma = [np.full((-(-height // 2), -(-width // 2)), 128.0) for _ in range(2)]
    at = 2 + number % 8
    chroma[0][4:12, at : at + 8], chroma[1][4:12, at : at + 8] = 100, 160
    return [np.rint(plane).astype(np.uint8) for plane in (luma, *chroma)]
