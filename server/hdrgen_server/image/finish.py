"""The two operators that are applied to a result after the model: preserve plate, and the highlight ceiling.

It owns their curves and what counts as clipped. It must not know files, sockets or who calls it. Both are plain enough
to be rebuilt from a compositor's own nodes: a 3x3 neighbourhood and one rational curve.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hdrgen_server.colour.sdr import CLIPPED_CODE, threshold_masks
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.image.clip import TOP_SHARE, bracket_clip_level
from nuke_hdrgen.wire.errors import BadInput, BadParameter

Float32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# smoothstep(d / 2) for a clipped pixel at distance d = 1 and sqrt(2) from the nearest one that is not; 1 from d = 2 on.
EDGE_WEIGHT = np.float32(0.5)
CORNER_WEIGHT = np.float32(1.5 - math.sqrt(0.5))
# Where the roll-off starts, as a share of the ceiling: one stop below it.
KNEE_SHARE = 0.5


def plate_clip_level(frames: Sequence[Frame]) -> float | None:
    """The value at which the plates of a bracket clip, in their own values; None where linear ones do not clip.

    Encoded plates clip at code 250/255. Linear ones clip where all of their files say (`clip_level`, in the metadata),
    else where `bracket_clip_level` finds that they do.
    """
    if frames[0].colourspace.range == "encoded":
        return CLIPPED_CODE
    said = [float(frame.metadata["clip_level"]) for frame in frames if "clip_level" in frame.metadata]
    if len(said) == len(frames) and min(said) > 0:
        return min(said)
    return bracket_clip_level(frames)


def clipped_pixels(plate: Frame, level: float | None) -> Mask:
    """Which pixels of the plate are clipped: (H, W) bool, true where any colour channel is at `level` or above, in the
    plate's own values, or is NaN or Inf.

    "At" is to 1e-5 for codes and to 2^-9 of the level for linear values, the width in which sensors pile up.
    """
    rgb = plate.rgb
    bad: Mask = np.logical_not(np.isfinite(rgb))
    if level is None:
        return np.any(bad, axis=2)
    encoded = plate.colourspace.range == "encoded"
    high: Mask = threshold_masks(rgb, level)[0] if encoded else rgb >= level * (1.0 - TOP_SHARE)
    return np.any(bad | high, axis=2)


def result_weight(clipped_hw: Mask) -> Float32:
    """How much of the model's result each pixel takes: (H, W) float32 in 0..1.

    0 where the plate is not clipped; where it is, smoothstep(d / 2) of the distance d to the nearest pixel that is
    not: 0.5 beside one, 0.79 diagonally from one, 1 beyond. Outside the picture counts as clipped.
    """
    height, width = clipped_hw.shape
    kept = np.pad(~clipped_hw, 1, constant_values=False)

    def near(offsets: Sequence[tuple[int, int]]) -> Mask:
        found = np.zeros((height, width), np.bool_)
        for y, x in offsets:
            found |= kept[1 + y : 1 + y + height, 1 + x : 1 + x + width]
        return found

    weight = np.where(clipped_hw, np.float32(1.0), np.float32(0.0))
    weight[clipped_hw & near(((-1, -1), (-1, 1), (1, -1), (1, 1)))] = CORNER_WEIGHT
    weight[clipped_hw & near(((-1, 0), (1, 0), (0, -1), (0, 1)))] = EDGE_WEIGHT
    return weight


def preserve_plate(result_hwc: Float32, plate_hwc: Float32, clipped_hw: Mask) -> Float32:
    """The plate where it is not clipped, bit for bit, and the result where it is: (H, W, 3) float32, scene-linear.

    Both pictures are in one space and at one exposure, the plate finite wherever it is not clipped. Clipped pixels take
    the share of the result that `result_weight` gives; a plate that is not finite gives nothing. Raises BadParameter
    for sizes that differ, BadInput for NaN or Inf in the result.
    """
    if result_hwc.shape != plate_hwc.shape or result_hwc.shape[:2] != clipped_hw.shape:
        raise BadParameter(
            f"the result is {result_hwc.shape}, the plate {plate_hwc.shape} with a mask of {clipped_hw.shape}; "
            "preserve plate needs one size"
        )
    _refuse_not_finite(result_hwc)
    weight = result_weight(clipped_hw)
    weight[~np.isfinite(plate_hwc).all(axis=2)] = 1.0
    kept = plate_hwc.copy()
    full = weight == 1.0
    kept[full] = result_hwc[full]
    mixed = (weight > 0.0) & ~full
    share = weight[mixed][:, None]
    kept[mixed] = (1 - share) * plate_hwc[mixed] + share * result_hwc[mixed]
    return kept


def roll_off(result_hwc: Float32, ceiling: float) -> Float32:
    """Highlights rolled off towards `ceiling`: (H, W, 3) float32, scene-linear; the ceiling in the same units.

    With m the largest channel of a pixel and V the ceiling, a pixel with m > V/2 is multiplied by f(m)/m, where
    f(m) = V - V^2 / (4 m): its channels keep their ratios. f meets the identity at the knee V/2 in value and slope,
    rises for ever, and nears V without reaching it but for rounding. Other pixels stay bit for bit. Raises BadParameter
    for a ceiling that is not above 0, BadInput for NaN or Inf.
    """
    if not (math.isfinite(ceiling) and ceiling > 0):
        raise BadParameter(f"the ceiling must be a number above 0, in scene-linear, got {ceiling:g}")
    _refuse_not_finite(result_hwc)
    highest = result_hwc.max(axis=2)
    above = highest > ceiling * KNEE_SHARE
    rolled = result_hwc.copy()
    ratio = ceiling / highest[above].astype(np.float64)  # V / m, below 2
    rolled[above] = (result_hwc[above] * (ratio - 0.25 * ratio**2)[:, None]).astype(np.float32)
    return rolled


def _refuse_not_finite(result_hwc: Float32) -> None:
    bad = int(np.count_nonzero(~np.isfinite(result_hwc)))
    if bad:
        raise BadInput(f"the result holds {bad} samples of NaN or Inf; finish it without them")
