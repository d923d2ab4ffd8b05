"""Finds scene cuts between neighbouring frames.

It owns the measure and its threshold. It must not know windows, networks or files. Whether two frames are cut apart
depends on them alone, so every window that sees both says the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

SIDE = 48
BINS = 32
SHIFT = 6
"""Cells of the small picture within which things may have moved from one frame to the next."""
CUT = 0.25
"""Between 0 (alike) and 1 (nothing in common)."""


def difference(before_hwc: Float32, after_hwc: Float32) -> float:
    """How little two frames' SDR codes (H, W, 3) have in common, 0 to 1.

    The lower of two figures, so that neither motion nor a flash alone is a cut: the distance of the histograms of
    levels, and one minus the correlation of small pictures, shifted to where they fit best.
    """
    small = [cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for frame in (before_hwc, after_hwc)]
    return min(1.0, max(0.0, min(_levels(*small), _structure(*small))) * 2)


def cuts(codes: Sequence[Float32]) -> list[int]:
    """The indices of the frames that begin a new scene, among a run of frames' SDR codes (H, W, 3)."""
    return [index for index, (one, two) in enumerate(pairwise(codes), 1) if difference(one, two) > CUT]


def segments(codes: Sequence[Float32]) -> list[range]:
    """A run of frames as scenes, in order."""
    ends = [0, *cuts(codes), len(codes)]
    return [range(first, last) for first, last in pairwise(ends)]


def _levels(before_hwc: npt.NDArray[np.generic], after_hwc: npt.NDArray[np.generic]) -> float:
    """Half the summed distance of the channels' cumulative histograms: how far levels moved, in shares of the range."""
    distances: list[float] = []
    for channel in range(3):
        one, two = (
            np.cumsum(np.histogram(x[..., channel], BINS, (0, 1))[0]) / SIDE**2 for x in (before_hwc, after_hwc)
        )
        distances.append(float(np.abs(one - two).mean()))
    return 4 * max(distances)


def _structure(before_hwc: npt.NDArray[np.generic], after_hwc: npt.NDArray[np.generic]) -> float:
    """One minus the best correlation of luma within the shift."""
    one, two = (np.asarray(x, np.float32).mean(axis=2) for x in (before_hwc, after_hwc))
    middle = one[SHIFT:-SHIFT, SHIFT:-SHIFT]
    if min(float(middle.std()), float(two.std())) < 1e-3:
        return 0.0
    found = cv2.matchTemplate(np.ascontiguousarray(two), np.ascontiguousarray(middle), cv2.TM_CCOEFF_NORMED)
    return 1 - max(0.0, float(found.max()))
