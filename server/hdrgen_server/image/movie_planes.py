"""A decoded movie frame as arrays: its planes, without padding, and what they are.

It owns the pixel formats that are read. It must not know tags, matrices or files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from hdrgen_server.image.movie_yuv import SUBSAMPLING, Codes, Layout
from nuke_hdrgen.wire.errors import BadInput

_PLANAR = re.compile(
    r"yuvj?(?P<a>a?)(?P<s>420|422|444)p(?P<bits>9|10|12|14|16)?(le)?|yuva(?P<t>420|422|444)p(?P<n>\d+)?(le)?"
)
_RGB = re.compile(r"gbr(?P<a>a?)p(?P<bits>9|10|12|14|16)?(le)?")
_GREY = re.compile(r"gray(?P<bits>8|9|10|12|14|16)?(le)?")
# The same samples in another order.
REORDERED: Mapping[str, str] = MappingProxyType(
    {"nv12": "yuv420p", "nv21": "yuv420p", "nv16": "yuv422p", "yuyv422": "yuv422p", "uyvy422": "yuv422p",
     "p010le": "yuv420p10le", "p210le": "yuv422p10le", "rgb24": "gbrp", "bgr24": "gbrp", "bgr0": "gbrp",
     "rgb0": "gbrp", "rgba": "gbrap", "bgra": "gbrap", "argb": "gbrap", "abgr": "gbrap", "rgb48le": "gbrp16le",
     "yuv420p10be": "yuv420p10le", "yuv422p10be": "yuv422p10le"}
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """What planes of a frame hold: `rgb` in the order G, B, R, `grey`, else Y', Cb, Cr; and alpha last."""

    layout: Layout
    rgb: bool = False
    grey: bool = False
    alpha: bool = False
    jpeg: bool = False


def kind_of(pixel_format: str) -> Kind | None:
    """What a pixel format holds, None for one that is not read."""
    name = REORDERED.get(pixel_format, pixel_format)
    if found := _RGB.fullmatch(name):
        return Kind(Layout(1, 1, int(found["bits"] or 8)), rgb=True, alpha=bool(found["a"]))
    if found := _GREY.fullmatch(name):
        return Kind(Layout(1, 1, int(found["bits"] or 8)), grey=True)
    if found := _PLANAR.fullmatch(name):
        across, down = SUBSAMPLING[found["s"] or found["t"]]
        bits = int(found["bits"] or found["n"] or 8)
        return Kind(Layout(across, down, bits), alpha=name.startswith("yuva"), jpeg=name.startswith("yuvj"))
    return None


def planes(frame: VideoFrame) -> tuple[Kind, tuple[Codes, ...]]:
    """The planes of a frame, (H, W) each, as the decoder's own codes. Raises BadInput for other pixel formats."""
    kind = kind_of(frame.format.name)
    if kind is None:
        raise BadInput(f"its pixel format {frame.format.name} is not read; convert it to yuv420p or yuv422p10")
    if frame.format.name in REORDERED:
        frame = frame.reformat(format=REORDERED[frame.format.name])
    return kind, tuple(_plane(plane, kind.layout.bits) for plane in frame.planes)


def luma_8bit(frame: VideoFrame) -> npt.NDArray[np.uint8] | None:
    """Y' in codes of 8 bits, every fourth sample; None for RGB."""
    kind, found = planes(frame)
    return None if kind.rgb else (found[0][::2, ::2] >> (kind.layout.bits - 8)).astype(np.uint8)


def saturation(frame: VideoFrame) -> float:
    """The mean distance of chroma from its middle, as a share of the range; 1 where there is none to tell."""
    kind, found = planes(frame)
    if kind.rgb or kind.grey:
        return 1.0
    middle = 2.0 ** (kind.layout.bits - 1)
    return float(np.mean([np.abs(plane.astype(np.float32) - middle).mean() for plane in found[1:3]])) / (2 * middle)


def _plane(plane: Any, bits: int) -> Codes:
    dtype = np.dtype(np.uint8 if bits == 8 else np.uint16)
    rows = np.frombuffer(plane, dtype).reshape(-1, plane.line_size // dtype.itemsize)
    return rows[: plane.height, : plane.width]
