"""Planes of Y'CbCr to R'G'B' codes and back, in float32, with nothing cut on the way.

It owns matrices, ranges and where chroma samples lie. It must not know files, codecs, transfers or tags' defaults.
Sources: Rec. ITU-T H.273, 8.3 (matrices and ranges) and figure 1 (4:2:0 and 4:2:2 chroma lies on the left luma column;
that of 4:2:0 between two rows).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hdrgen_server.image.movie_tags import LUMA_WEIGHTS

Float32 = npt.NDArray[np.float32]
Codes = npt.NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Layout:
    """How planes lie: chroma has 1 sample for `across` x `down` of luma; codes have `bits`."""

    across: int
    down: int
    bits: int


def rgb_of(planes: tuple[Codes, Codes, Codes], layout: Layout, matrix: int, *, full: bool) -> Float32:
    """R'G'B' codes (H, W, 3), nominally 0..1, from Y', Cb and Cr; what lies beyond the range stays beyond it."""
    height, width = planes[0].shape
    low, luma_span, middle, chroma_span = _levels(layout.bits, full=full)
    luma = (planes[0].astype(np.float32) - low) * np.float32(1 / luma_span)
    blue, red = (_enlarge((p.astype(np.float32) - middle) * np.float32(1 / chroma_span), layout) for p in planes[1:])
    kr, kb = LUMA_WEIGHTS[matrix]
    rgb = np.empty((height, width, 3), np.float32)
    rgb[..., 0] = luma + np.float32(2 * (1 - kr)) * red[:height, :width]
    rgb[..., 2] = luma + np.float32(2 * (1 - kb)) * blue[:height, :width]
    rgb[..., 1] = (luma - np.float32(kr) * rgb[..., 0] - np.float32(kb) * rgb[..., 2]) * np.float32(1 / (1 - kr - kb))
    return rgb


def planes_of(rgb_codes_hwc: Float32, layout: Layout, matrix: int) -> tuple[npt.NDArray[np.uint16], ...]:
    """Y', Cb and Cr in limited range, rounded, from R'G'B' codes in 0..1; chroma averaged where it is coarser."""
    kr, kb = LUMA_WEIGHTS[matrix]
    luma: Float32 = (rgb_codes_hwc @ np.array([kr, 1 - kr - kb, kb], np.float32)).astype(np.float32)
    low, luma_span, middle, chroma_span = _levels(layout.bits, full=False)
    blue: Float32 = (rgb_codes_hwc[..., 2] - luma) * np.float32(0.5 / (1 - kb))
    red: Float32 = (rgb_codes_hwc[..., 0] - luma) * np.float32(0.5 / (1 - kr))
    chroma = (_reduce(plane, layout) * np.float32(chroma_span) + np.float32(middle) for plane in (blue, red))
    return tuple(np.rint(p).astype(np.uint16) for p in (luma * np.float32(luma_span) + np.float32(low), *chroma))


def scaled(plane: Codes, bits: int, *, full: bool) -> Float32:
    """One plane of codes, nominally 0..1: grey, alpha (always full) or a plane of RGB."""
    low, span = (0.0, 2.0**bits - 1) if full else _levels(bits, full=False)[:2]
    return (plane.astype(np.float32) - np.float32(low)) * np.float32(1 / span)


def _levels(bits: int, *, full: bool) -> tuple[float, float, float, float]:
    """Black, and white less black, of luma; the middle of chroma and its span (H.273, equations 20 to 25)."""
    if full:
        return 0.0, 2.0**bits - 1, 2.0 ** (bits - 1), 2.0**bits - 1
    unit = 2.0 ** (bits - 8)
    return 16 * unit, 219 * unit, 128 * unit, 224 * unit


def _enlarge(plane: Float32, layout: Layout) -> Float32:
    """Chroma at every luma sample: linear between the places where its samples lie."""
    quarter, half = np.float32(0.25), np.float32(0.5)
    if layout.across == 2:
        wide = np.repeat(plane, 2, axis=1)
        wide[:, 1:-1:2] += half * (plane[:, 1:] - plane[:, :-1])
        plane = wide
    if layout.down == 2:
        tall = np.repeat(plane, 2, axis=0)
        step = quarter * (plane[1:] - plane[:-1])
        tall[1:-1:2] += step
        tall[2::2] -= step
        plane = tall
    return plane


def _reduce(plane: Float32, layout: Layout) -> Float32:
    """Chroma where its samples lie: (1, 2, 1) / 4 across, the mean of two rows down."""
    quarter, half = np.float32(0.25), np.float32(0.5)
    if layout.across == 2:
        wide = np.pad(plane, ((0, 0), (1, 1 + plane.shape[1] % 2)), mode="edge")
        plane = np.asarray(quarter * (wide[:, :-2:2] + wide[:, 2::2]) + half * wide[:, 1:-1:2], np.float32)
    if layout.down == 2:
        even = np.pad(plane, ((0, plane.shape[0] % 2), (0, 0)), mode="edge")
        plane = np.asarray(half * (even[::2] + even[1::2]), np.float32)
    return plane


SUBSAMPLING: Mapping[str, tuple[int, int]] = {"420": (2, 2), "422": (2, 1), "444": (1, 1)}
