"""Finds by how many whole pixels each exposure of a hand-held bracket is shifted against the reference.

It owns the estimate and the shift. It must not know networks or files. Whole pixels only: a still bracket comes back
untouched, bit for bit, and what moves by less or by itself is the network's to judge. A coarse-to-fine search over
exposure-normalised log luminance, after Ward, Fast, Robust Image Registration for Compositing HDR Photographs (2003),
with a truncated L1 distance in the place of his bitmaps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Window = tuple[slice, slice]
Codes = Callable[[Window], Array]

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


def estimate_shift(reference: Codes, other: Codes, ev: float, size: tuple[int, int], *, reach: float = 0.08) -> Shift:
    """The whole-pixel shift of an exposure, `ev` stops from the reference, at most `reach` of the shorter side.

    Both are functions from a window (two slices) to codes in [0, 1], (h, w, 3), of frames of `size` (H, W), so that a
    large frame is never copied whole. Returns no shift unless one explains the overlap clearly better than none.
    """
    height, width = size
    step = 1 << max(0, int(np.ceil(np.log2(max(size) / MAX_SIDE))))
    everywhere = (slice(0, height, step), slice(0, width, step))
    levels = [(_signal(reference(everywhere), 0.0), _signal(other(everywhere), ev))]
    while min(levels[-1][0].shape) >= 2 * COARSEST:
        levels.append((_half(levels[-1][0]), _half(levels[-1][1])))
    shift = Shift()
    for index, (a, b) in enumerate(reversed(levels)):
        radius = 1 if index else max(2, int(np.ceil(reach * min(a.shape))))
        shift = _best(a, b, Shift(2 * shift.rows, 2 * shift.columns), radius)
    finest = levels[0]
    if _cost(*finest, shift) > (1 - MINIMUM_GAIN) * _cost(*finest, Shift()):
        return Shift()
    if step == 1:
        return shift
    centre = tuple(slice(max(0, (n - MAX_SIDE) // 2), max(0, (n - MAX_SIDE) // 2) + MAX_SIDE) for n in size)
    window = (centre[0], centre[1])
    full = _signal(reference(window), 0.0), _signal(other(window), ev)
    return _best(*full, Shift(shift.rows * step, shift.columns * step), step)


def shifted_window(pixels_hwc: Array, shift: Shift, window: Window) -> tuple[Array, Array]:
    """Content moved back over the reference, in one window of it.

    Returns (h, w, C) with the frame's edges repeated, and (h, w, 1) that is 1 where the pixels are real.
    """
    height, width = pixels_hwc.shape[:2]
    y = np.arange(window[0].start, window[0].stop) + shift.rows
    x = np.arange(window[1].start, window[1].stop) + shift.columns
    moved = pixels_hwc[np.clip(y, 0, height - 1)[:, None], np.clip(x, 0, width - 1)[None]]
    real = ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))[None]
    return moved, real[..., None].astype(np.float32)


def _best(a: Array, b: Array, start: Shift, radius: int) -> Shift:
    """The cheapest shift within a radius of a start, the smaller one of equals; the start where nothing overlaps."""
    costs = {
        (start.rows + i, start.columns + j): _cost(a, b, Shift(start.rows + i, start.columns + j))
        for i in range(-radius, radius + 1)
        for j in range(-radius, radius + 1)
    }
    best = min(costs, key=lambda d: (costs[d], abs(d[0]) + abs(d[1])))
    return Shift(*best) if np.isfinite(costs[best]) else start


def _signal(codes_hwc: Array, ev: float) -> Array:
    """Log2 luminance at the reference's exposure, NaN where the codes say nothing."""
    usable = (codes_hwc.max(axis=2) < HIGH) & (codes_hwc.max(axis=2) > LOW)
    luminance = (np.maximum(codes_hwc, 1 / 512) ** 2.2) @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    signal = np.where(usable, np.log2(luminance) - ev, np.nan)
    return signal.astype(np.float32)


def _half(signal: Array) -> Array:
    """Average 2x2 pixels; NaN where any of the four is."""
    height, width = signal.shape[0] // 2 * 2, signal.shape[1] // 2 * 2
    s = signal[:height, :width]
    return (s[::2, ::2] + s[1::2, ::2] + s[::2, 1::2] + s[1::2, 1::2]) / np.float32(4)


def _cost(a: Array, b: Array, shift: Shift) -> float:
    """Mean truncated difference in stops, free of a common offset; infinite where too little overlaps."""
    rows, columns = shift.rows, shift.columns
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
