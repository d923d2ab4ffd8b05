"""Finds by how many whole pixels each exposure of a hand-held bracket is shifted against the reference.

It owns the estimate and the shift. It must not know networks or files. Whole pixels only: a still bracket comes back
untouched, bit for bit, and what moves by less or by itself is the network's to judge. A coarse-to-fine search over
exposure-normalised log luminance, after Ward, Fast, Robust Image Registration for Compositing HDR Photographs (2003),
with a truncated L1 distance in the place of his bitmaps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

COARSEST = 24
MAX_SIDE = 1024
TRUNCATE_STOPS = 0.5
LOW, HIGH = 6 / 255, 246 / 255
MINIMUM_OVERLAP = 0.04
MINIMUM_GAIN = 0.03


@dataclass(frozen=True)
class Shift:
    """Content of the exposure lies `rows` down and `columns` right of the reference's."""

    rows: int = 0
    columns: int = 0


def estimate_shift(
    reference_codes_hwc: Array, reference_ev: float, codes_hwc: Array, ev: float, *, reach: float = 0.15
) -> Shift:
    """The whole-pixel shift of an exposure against the reference, at most `reach` of the shorter side.

    Takes codes in [0, 1], (H, W, 3). Returns no shift unless one explains the overlap clearly better than none.
    """
    reduce = 1 << max(0, int(np.ceil(np.log2(max(codes_hwc.shape[:2]) / MAX_SIDE))))
    levels = [(_signal(reference_codes_hwc, reference_ev, reduce), _signal(codes_hwc, ev, reduce))]
    while min(levels[-1][0].shape) >= 2 * COARSEST:
        levels.append((_half(levels[-1][0]), _half(levels[-1][1])))
    radius = max(2, int(np.ceil(reach * min(levels[-1][0].shape))))
    rows = columns = 0
    for index, (a, b) in enumerate(reversed(levels)):
        rows, columns = 2 * rows * (index > 0), 2 * columns * (index > 0)
        span = radius if index == 0 else 1
        costs = {
            (rows + i, columns + j): _cost(a, b, rows + i, columns + j)
            for i in range(-span, span + 1)
            for j in range(-span, span + 1)
        }
        rows, columns = min(costs, key=lambda d, c=costs: (c[d], abs(d[0]) + abs(d[1])))
    finest = levels[0]
    if _cost(*finest, rows, columns) > (1 - MINIMUM_GAIN) * _cost(*finest, 0, 0):
        return Shift()
    return _refined(
        reference_codes_hwc, reference_ev, codes_hwc, ev, Shift(rows * reduce, columns * reduce), reduce
    )


def apply_shift(pixels_hwc: Array, shift: Shift) -> tuple[Array, Array]:
    """Move content back over the reference; returns (H, W, C) with edges repeated, and (H, W, 1) of 1 where it is real."""
    height, width = pixels_hwc.shape[:2]
    y = np.arange(height) + shift.rows
    x = np.arange(width) + shift.columns
    moved = pixels_hwc[np.clip(y, 0, height - 1)][:, np.clip(x, 0, width - 1)]
    real = ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))[None]
    return moved, real[..., None].astype(np.float32)


def _signal(codes_hwc: Array, ev: float, reduce: int) -> Array:
    """Log2 luminance at the reference's exposure, NaN where the codes say nothing."""
    usable = (codes_hwc.max(axis=2) < HIGH) & (codes_hwc.max(axis=2) > LOW)
    luminance = (np.maximum(codes_hwc, 1 / 512) ** 2.2) @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    signal = np.where(usable, np.log2(luminance) - ev, np.nan).astype(np.float32)
    for _ in range(reduce.bit_length() - 1):
        signal = _half(signal)
    return signal


def _half(signal: Array) -> Array:
    """Average 2x2 pixels; NaN where any of the four is."""
    height, width = signal.shape[0] // 2 * 2, signal.shape[1] // 2 * 2
    s = signal[:height, :width]
    return (s[::2, ::2] + s[1::2, ::2] + s[::2, 1::2] + s[1::2, 1::2]) / 4


def _cost(a: Array, b: Array, rows: int, columns: int) -> float:
    """Mean truncated difference in stops, free of a common offset; infinite where too little overlaps."""
    height, width = a.shape
    if abs(rows) >= height or abs(columns) >= width:
        return np.inf
    top, left = max(0, -rows), max(0, -columns)
    bottom, right = min(height, height - rows), min(width, width - columns)
    difference = b[top + rows : bottom + rows, left + columns : right + columns] - a[top:bottom, left:right]
    difference = difference[np.isfinite(difference)]
    if difference.size < MINIMUM_OVERLAP * height * width:
        return np.inf
    difference -= np.median(difference)
    return float(np.minimum(np.abs(difference), TRUNCATE_STOPS).mean())


def _refined(
    reference_codes_hwc: Array, reference_ev: float, codes_hwc: Array, ev: float, shift: Shift, reduce: int
) -> Shift:
    """Search around an estimate from a reduced image at full size, on the central part where it is large."""
    if reduce == 1:
        return shift
    height, width = codes_hwc.shape[:2]
    side = MAX_SIDE
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    cut = (slice(top, top + side), slice(left, left + side))
    a, b = _signal(reference_codes_hwc[cut], reference_ev, 1), _signal(codes_hwc[cut], ev, 1)
    costs = {
        (shift.rows + i, shift.columns + j): _cost(a, b, shift.rows + i, shift.columns + j)
        for i in range(-reduce, reduce + 1)
        for j in range(-reduce, reduce + 1)
    }
    best = min(costs, key=lambda d: (costs[d], abs(d[0]) + abs(d[1])))
    return Shift(*best) if np.isfinite(costs[best]) else shift
