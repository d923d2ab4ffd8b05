"""The weighted merge itself: exposures of one still scene become scene-linear light at the reference's exposure.

It owns weights, fall-backs and the masks of what nobody saw. It must not know frames, files, parameters or torch.
Weights are inverse variances of a sensor with shot and read noise and 8-bit codes (Robertson et al. 2003, "Estimation-
theoretic approach to dynamic range enhancement using multiple exposures"; Hasinoff et al. 2010, "Noise-optimal capture
for high dynamic range photography"); `hat` is the older triangle over codes (Debevec and Malik 1997), kept to compare.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hdrgen_server.colour.curves import CURVES
from hdrgen_server.systems.hdrfuse import check_exposures

Float32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Decode = Callable[[Float32], Float32]
Weigh = Callable[[Float32, Float32, float], Float32]

CLIPPED_CODE = 250 / 255
CRUSHED_CODE = 2 / 255
FADE_START, FADE_END = 0.88, 0.96
SHOT, READ = 2e-4, 1e-6
QUANTISED = (1 / 255) ** 2 / 12
BAND_ROWS = 256


@dataclass(frozen=True, eq=False)
class Merged:
    """A merge and what no exposure saw, all (H, W, 3).

    `scene_linear_hwc` is float32 at the reference's exposure (1.0 is where an sRGB reference clips). `clipped_hwc` is
    true where every exposure is at code 250/255 or above, `crushed_hwc` where every one is at 2/255 or below.
    """

    scene_linear_hwc: Float32
    clipped_hwc: Mask
    crushed_hwc: Mask


def srgb_decode(codes_hwc: Float32) -> Float32:
    """Codes of the sRGB curve in 0..1 to linear light in 0..1 (IEC 61966-2-1)."""
    return CURVES["srgb"].decode(codes_hwc)


def noise(codes_hwc: Float32, linear_hwc: Float32, time: float) -> Float32:
    """Inverse variance of light / time: `linear_hwc` is the share of full scale, `time` 2**ev.

    It fades out six deviations of the shot noise below full scale, so that clipped light never counts.

    Rounding to 8 bits counts through the slope of the sRGB curve, about 1.2 (x + 0.002)**0.58.
    """
    light = np.maximum(linear_hwc, 0)
    slope = 2.2 * (light + 0.003) ** np.float32(0.58)
    variance = SHOT * light + READ + QUANTISED * slope * slope
    kept = np.clip((FADE_END - codes_hwc) / (FADE_END - FADE_START), 0, 1)
    return (kept * np.float32(time * time) / variance).astype(np.float32)


def hat(codes_hwc: Float32, linear_hwc: Float32, time: float) -> Float32:
    """A triangle over the codes: 1 at mid code, 0 at both ends."""
    del linear_hwc, time
    return np.maximum(1 - np.abs(2 * codes_hwc - 1), 0).astype(np.float32)


def merge_bracket(
    codes_list: Sequence[Float32],
    evs: Sequence[float],
    reference: int,
    *,
    decode: Decode = srgb_decode,
    weigh: Weigh = noise,
) -> Merged:
    """Merge (H, W, 3) codes in 0..1, at exposures `evs` in stops, to light at the exposure of `codes_list[reference]`.

    `decode` turns codes into linear light. Where no exposure has weight, the shortest decides if it is not crushed
    itself, else the longest. Works in bands of rows, so that it holds little beside its input and its result. Raises
    BadInput when counts, sizes or exposures do not fit.
    """
    check_exposures([codes.shape[1::-1] for codes in codes_list], evs, reference)
    offsets = [float(ev) - float(evs[reference]) for ev in evs]
    shape = codes_list[0].shape
    merged = Merged(np.empty(shape, np.float32), np.empty(shape, np.bool_), np.empty(shape, np.bool_))
    for top in range(0, shape[0], BAND_ROWS):
        rows = slice(top, top + BAND_ROWS)
        into = Merged(merged.scene_linear_hwc[rows], merged.clipped_hwc[rows], merged.crushed_hwc[rows])
        _merge_band([codes[rows] for codes in codes_list], offsets, into, decode=decode, weigh=weigh)
    return merged


def _merge_band(
    codes_list: Sequence[Float32], evs: Sequence[float], into: Merged, *, decode: Decode, weigh: Weigh
) -> None:
    shortest, longest = int(np.argmin(evs)), int(np.argmax(evs))
    total = np.zeros(codes_list[0].shape, np.float32)
    weighted = np.zeros_like(total)
    ends: dict[int, Float32] = {}
    for index, (codes, ev) in enumerate(zip(codes_list, evs, strict=True)):
        linear = decode(codes)
        weight = weigh(codes, linear, 2.0**ev)
        scene_linear = linear * np.float32(2.0**-ev)
        total += weight
        weighted += weight * scene_linear
        if index in {shortest, longest}:
            ends[index] = scene_linear
    lost = total <= 0
    fallback = np.where(codes_list[shortest] > CRUSHED_CODE, ends[shortest], ends[longest])
    into.scene_linear_hwc[...] = np.where(lost, fallback, weighted / np.where(lost, 1, total))
    into.clipped_hwc[...] = np.minimum.reduce(list(codes_list)) >= CLIPPED_CODE
    into.crushed_hwc[...] = np.maximum.reduce(list(codes_list)) <= CRUSHED_CODE
