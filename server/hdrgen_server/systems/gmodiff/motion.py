"""Finds where each pixel of the reference lies in an exposure in which things moved by themselves, and brings it back.

It owns the dense displacement after the frames' shift, and the resampling. It must not know networks or files. The
displacement is that of Kroeger et al., Fast Optical Flow using Dense Inverse Search (2016), in OpenCV, between both
frames as they would look at one exposure: what either of them clips is clipped in both, so that a clipped area is one
shape that can be followed. What moves by less than half a pixel stays where it is, so a still bracket comes back
untouched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from hdrgen_server.systems.gmodiff.align import Shift, Window

Array = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]
Light = Callable[[Indices, Indices], Array]
"""Scene-linear (rows, columns, 3) at the reference's exposure, of rows and columns of a frame."""

LARGEST_SIDE, SMALLEST_SIDE = 2048, 16
STILL_PIXELS = 0.5
FRACTIONS = 32
"""OpenCV resamples at 32nds of a pixel; offsets are whole numbers of them, so that a tile agrees with its frame."""
LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)


@dataclass(frozen=True, eq=False)
class Flow:
    """Pixels right and down, (h, w, 2), from a reference pixel to its content in a shifted exposure.

    There is one for every `step` pixels of the frame, along both axes.
    """

    offsets_hw2: Array
    step: int

    def offsets(self, window: Window) -> Array:
        """The offsets of a window of the frame, (rows, columns, 2), in whole 32nds of a pixel."""
        y, x = (np.arange(side.start, side.stop) for side in window)
        if self.step == 1:
            return self.offsets_hw2[window]
        top, left = y[0] // self.step, x[0] // self.step
        near = self.offsets_hw2[top : y[-1] // self.step + 2, left : x[-1] // self.step + 2]
        columns, rows = np.meshgrid(x / self.step - left, y / self.step - top)
        found = cv2.remap(
            near, columns.astype(np.float32), rows.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return _in_fractions(np.asarray(found, np.float32))


def estimate_flow(reference: Light, other: Light, ev: float, size: tuple[int, int], shift: Shift) -> Flow | None:
    """How content moved in an exposure, `ev` stops from the reference, besides `shift`; frames are of `size` (H, W).

    Frames beyond 2048 pixels are looked at in every second, fourth, ... pixel. None where nothing moved, and for
    frames of fewer than 16 pixels.
    """
    if min(size) < SMALLEST_SIDE:
        return None
    step = 1 << max(0, int(np.ceil(np.log2(max(size) / LARGEST_SIDE))))
    y, x = (np.arange(0, length, step) for length in size)
    there = np.clip(y + shift.rows, 0, size[0] - 1), np.clip(x + shift.columns, 0, size[1] - 1)
    clip_point = np.float32(min(1.0, 2.0**-ev))
    seen = _as_seen(reference(y, x), clip_point), _as_seen(other(*there), clip_point)
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*seen, np.zeros((*seen[0].shape, 2), "f4"))
    offsets = np.asarray(flow, np.float32) * np.float32(step)
    offsets[np.hypot(offsets[..., 0], offsets[..., 1]) < STILL_PIXELS] = 0
    return Flow(_in_fractions(offsets), step) if offsets.any() else None


def moved_window(pixels_hwc: Array, shift: Shift, offsets_hw2: Array, window: Window) -> tuple[Array, Array]:
    """Content moved back over the reference in one window of it, by the shift and the offsets of the window.

    Bilinear. Returns (h, w, C) with the frame's edges repeated, and (h, w, 1) that is 1 where the pixels are real.
    """
    height, width = pixels_hwc.shape[:2]
    y = np.arange(window[0].start, window[0].stop)[:, None] + shift.rows + offsets_hw2[..., 1].astype(np.float64)
    x = np.arange(window[1].start, window[1].stop)[None] + shift.columns + offsets_hw2[..., 0].astype(np.float64)
    real = (y >= 0) & (y <= height - 1) & (x >= 0) & (x <= width - 1)
    y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    top, left = int(y.min()), int(x.min())
    near = np.ascontiguousarray(pixels_hwc[top : int(y.max()) + 2, left : int(x.max()) + 2], np.float32)
    columns, rows = (x - left).astype(np.float32), (y - top).astype(np.float32)
    moved = cv2.remap(near, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.float32).reshape(*real.shape, -1), real[..., None].astype(np.float32)


def _as_seen(scene_linear_hwc: Array, clip_point: np.float32) -> npt.NDArray[np.uint8]:
    """Luminance of what a camera holds that clips at `clip_point`, gamma encoded, 0 to 255."""
    held = np.clip(scene_linear_hwc / clip_point, 0, 1)
    return np.rint(255 * (held @ LUMINANCE) ** np.float32(1 / 2.2)).astype(np.uint8)


def _in_fractions(offsets: Array) -> Array:
    return (np.rint(offsets * FRACTIONS) / FRACTIONS).astype(np.float32)
