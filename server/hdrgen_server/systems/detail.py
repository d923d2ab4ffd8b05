"""Keeps a plate's own detail: what the model found becomes a gain over the plate, and pixels only where it clips.

It owns the exposure anchor, the gain and its smoothing, for every system of SDR2HDR with a VAE. It must not know any
one of them, nor networks, codes or files. Light is (H, W, 3) linear BT.2020 in float32, 1.0 at diffuse white; gains are
in stops.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d, uniform_filter

from hdrgen_server.colour.primaries import luminance_weights
from hdrgen_server.systems.sdr2hdr import MID_GREY

Float32 = npt.NDArray[np.float32]

FLOOR = np.float32(2e-3)
"""Added to light before its logarithm: a VAE knows nothing of what lies deeper."""
ANCHOR_STOPS = 1.0
ANCHOR_ROUNDS = 3
"""The floor bends the logarithm: one round is exact for light far above it."""
LEAST_WEIGHT = 1e-3
TONE_BINS, TONE_BLUR = 6, 2.5
"""Bins a stop of luminance, and by how many of them a tone curve is smoothed."""
SAME_STOPS = 0.2
"""Steps of the plate within a smoothing window that are smaller than this do not show in the gain."""


@dataclass(frozen=True)
class Belief:
    """How much is taken, 0 to 1, of what a gain over the plate has beside one tone curve of the whole picture: of its
    change from place to place (`local`) and of its colour.
    """

    local: float = 1.0
    colour: float = 1.0


WHOLE = Belief()


@dataclass(frozen=True, eq=False)
class Kept:
    """The result's light and the gain over the plate that made it, in stops, both (H, W, 3)."""

    scene_linear_hwc: Float32
    gain_hwc: Float32

    def raised(self, by: float) -> Kept:
        """The same at another exposure, `by` stops higher."""
        return Kept(self.scene_linear_hwc * np.float32(2.0**by), self.gain_hwc + np.float32(by))


def anchor_stops(plate_hwc: Float32, light_hwc: Float32, wanted_hwc: Float32, known_hw: Float32) -> float:
    """By how many stops light must be raised to be, on average, what is wanted, where the plate has mid-grey.

    The mean is of log luminance where the plate is known (weight `known_hw`, 0 to 1) and within about a stop of 0.18;
    where it has no mid-grey, over all that is known; 0 where nothing is.
    """
    plate, wanted = log_luminance(plate_hwc), log_luminance(wanted_hwc)
    near = known_hw * np.exp(-0.5 * ((plate - np.log2(np.float32(MID_GREY))) / ANCHOR_STOPS) ** 2)
    for weight in (near, known_hw):
        total = float(weight.sum(dtype=np.float64))
        if total >= LEAST_WEIGHT * weight.size:
            found = 0.0
            for _ in range(ANCHOR_ROUNDS):
                missing = wanted - log_luminance(light_hwc * np.float32(2.0**found))
                found += float((missing * weight).sum(dtype=np.float64) / total)
            return found
    return 0.0


def keep_detail(
    plate_hwc: Float32,
    found_hwc: Float32,
    round_trip_hwc: Float32,
    generated_hwc: Float32,
    radius: int,
    belief: Belief = WHOLE,
) -> Kept:
    """The plate times a gain where it is known, the found light where it clips.

    `round_trip_hwc` is the plate's light after the same VAE: the gain is the found light over it, so that what the VAE
    loses of both cancels. The gain is smoothed along the plate's own edges (He et al. 2010, guided filter) over
    `radius` pixels, from known pixels only. `generated_hwc`, 0 to 1, is how much of each channel is generated; that
    light is never below the plate's, which is the least that a clipped code can stand for. With less than the whole
    `belief`, a pixel is generated where any of its channels is, and the least is what the gain makes of the plate.
    """
    guide = log_luminance(plate_hwc)
    if belief == WHOLE:
        gain_hwc = stops(found_hwc) - stops(round_trip_hwc)
        for channel in range(3):
            known = 1 - generated_hwc[..., channel]
            gain_hwc[..., channel] = guided(gain_hwc[..., channel], guide, known, radius)
        light_hwc: Any = plate_hwc * np.exp2(gain_hwc)
        return Kept(light_hwc + generated_hwc * (np.maximum(found_hwc, plate_hwc) - light_hwc), gain_hwc)
    generated = generated_hwc.max(axis=2)
    gain_hwc = _believed_gain(found_hwc, round_trip_hwc, guide, 1 - generated, radius, belief)
    light_hwc = plate_hwc * np.exp2(gain_hwc)
    made_hwc = _believed_light(found_hwc, guide, generated, radius)
    return Kept(light_hwc + generated[..., None] * (np.maximum(made_hwc, light_hwc) - light_hwc), gain_hwc)


def _believed_gain(
    found_hwc: Float32, round_trip_hwc: Float32, guide: Float32, known: Float32, radius: int, belief: Belief
) -> Float32:
    """One tone curve of the picture, and as much of the rest of the gain as is believed, in stops (H, W, 3)."""
    gain = log_luminance(found_hwc) - log_luminance(round_trip_hwc)
    shared, tone = guided(gain, guide, known, radius), tone_gain(gain, guide, known)
    colour_hwc: Any = stops(found_hwc) - stops(round_trip_hwc) - gain[..., None]
    for channel in range(3):
        colour_hwc[..., channel] = guided(colour_hwc[..., channel], guide, known, radius)
    believed: Any = (tone + np.float32(belief.local) * (shared - tone))[..., None]
    return believed + np.float32(belief.colour) * colour_hwc


def _believed_light(found_hwc: Float32, guide: Float32, generated: Float32, radius: int) -> Float32:
    """Generated light, (H, W, 3): the found light, each channel smoothed within what is generated."""
    level_hwc = stops(found_hwc)
    for channel in range(3):
        level_hwc[..., channel] = guided(level_hwc[..., channel], guide, generated, radius)
    made_hwc: Any = np.maximum(np.exp2(level_hwc) - FLOOR, 0)
    return made_hwc


def tone_gain(gain: Float32, guide: Float32, known: Float32) -> Float32:
    """The gain (H, W) as a smooth function of the plate's log luminance alone: what one tone curve would be."""
    lowest, highest = float(guide.min()), float(guide.max())
    count = max(2, math.ceil((highest - lowest) * TONE_BINS))
    edges = np.linspace(lowest, max(highest, lowest + 1e-3), count + 1)
    weight, total = (
        gaussian_filter1d(np.histogram(guide, edges, weights=w)[0].astype(np.float64), TONE_BLUR, mode="nearest")
        for w in (known, known * gain)
    )
    middles = (edges[1:] + edges[:-1]) / 2
    reached = weight > LEAST_WEIGHT
    if not reached.any():
        return np.zeros_like(gain)
    return np.interp(guide, middles[reached], total[reached] / weight[reached]).astype(np.float32)


def guided(values: Float32, guide: Float32, known: Float32, radius: int) -> Float32:
    """Values (H, W) as locally linear functions of the guide, fitted over known pixels in windows of 2 radius + 1."""
    size = 2 * radius + 1
    weight = box(known, size) + np.float32(LEAST_WEIGHT)

    def mean(x: npt.NDArray[Any]) -> Float32:
        found: Any = (box(known * x, size) + np.float32(LEAST_WEIGHT) * box(x, size)) / weight
        return found

    of_guide, of_values = mean(guide), mean(values)
    variance = mean(guide * guide) - of_guide * of_guide
    covariance = mean(guide * values) - of_guide * of_values
    slope = covariance / (np.maximum(variance, np.float32(0)) + np.float32(SAME_STOPS**2))
    offset = of_values - slope * of_guide
    smooth: Any = mean(slope) * guide + mean(offset)
    return smooth


def box(values: npt.NDArray[Any], size: int) -> Float32:
    """The mean over square windows; beyond the picture its edge goes on."""
    found: Any = uniform_filter(values, size, mode="nearest")
    return found


def stops(light: npt.NDArray[np.floating]) -> Float32:
    """Light as stops above 1, the floor added; negative light counts as none."""
    return np.log2(np.maximum(light, 0) + FLOOR, dtype=np.float32)


def log_luminance(light_hwc: Float32) -> Float32:
    """The luminance of BT.2020 light in stops, (H, W)."""
    return stops(light_hwc @ luminance_weights("rec2020").astype(np.float32))
