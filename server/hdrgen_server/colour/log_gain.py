"""The gain map of Ultra HDR and ISO 21496-1: stops between a display-referred base and an HDR picture, in 8 bits.

It owns the relation, its numbers and how a range is fitted. It must not know files, JPEG or frames; numpy only.

H = (S + base_offset) * 2 ** (low + (high - low) * (code / 255) ** (1 / gamma) * weight) - hdr_offset, each channel by
itself, with S the base in linear light (1.0 is its white) and H scene-linear in the base's primaries at the base's
exposure (Android, "Ultra HDR Image Format v1.1"; ISO 21496-1:2025).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hdrgen_server.colour.gainmap import GainCounts
from nuke_hdrgen.wire.errors import BadParameter

Float32 = npt.NDArray[np.float32]
Byte = npt.NDArray[np.uint8]
Triple = tuple[float, float, float]

OFFSET = 1.0 / 64.0
CODES = 255
# Rational numbers of ISO 21496-1 are written over this denominator, so that XMP and binary metadata agree exactly.
UNIT = 1.0 / (1 << 20)
SMALLEST_STEP = 1.0 / (1 << 12)
# A sample that is not negative is never darker than this over a base in [0, 1]: log2((1/64) / (1 + 1/64)).
DARKEST_STOPS = math.log2(OFFSET / (1.0 + OFFSET))
BRIGHTEST_STOPS = 32.0
NEUTRAL: Triple = (0.0, 0.0, 0.0)
LARGEST_STOPS = 126.0


@dataclass(frozen=True)
class LogGain:
    """The numbers of a map, one for each of R, G and B; `low`, `high` and the two headrooms in stops.

    `headroom_low` and `headroom_high` are the display headrooms from which the map begins to be applied and at which
    it is applied in full. Raises BadParameter for numbers that no picture could come back from.
    """

    low: Triple
    high: Triple
    gamma: Triple = (1.0, 1.0, 1.0)
    base_offset: Triple = (OFFSET, OFFSET, OFFSET)
    hdr_offset: Triple = (OFFSET, OFFSET, OFFSET)
    headroom_low: float = 0.0
    headroom_high: float = 1.0

    def __post_init__(self) -> None:
        """Check every number."""
        for low, high in zip(self.low, self.high, strict=True):
            if not (abs(low) <= LARGEST_STOPS and abs(high) <= LARGEST_STOPS and low <= high):
                raise BadParameter(f"a gain map's range must rise within {LARGEST_STOPS:g} stops, got {low} to {high}")
        if not all(1e-3 <= gamma <= 1e3 for gamma in self.gamma):
            raise BadParameter(f"a gain map's gamma must be within 0.001 to 1000, got {self.gamma}")
        if not all(0.0 <= offset <= 1e3 for offset in (*self.base_offset, *self.hdr_offset)):
            raise BadParameter(f"a gain map's offsets must be within 0 to 1000, got {self.base_offset}")
        if not 0.0 <= self.headroom_low < self.headroom_high <= LARGEST_STOPS:
            raise BadParameter(
                f"a gain map's headrooms must rise from 0, got {self.headroom_low} to {self.headroom_high}"
            )

    def stops(self, hdr_hwc: Float32, base_hwc: Float32) -> Float32:
        """The gain in stops that takes the linear base to H, (H, W, 3); negative H counts as 0."""
        light = np.maximum(hdr_hwc, np.float32(0)) + np.array(self.hdr_offset, np.float32)
        return np.log2(light / (base_hwc + np.array(self.base_offset, np.float32)))

    def encode(self, stops_hwc: Float32) -> tuple[Byte, GainCounts]:
        """Gains in stops as codes, (H, W, 3) uint8, and how many samples were held at either end of the range."""
        low, high = np.array(self.low, np.float32), np.array(self.high, np.float32)
        share = (stops_hwc - low) / np.maximum(high - low, np.float32(UNIT))
        slack = np.float32(1e-4)
        counts = GainCounts(int((share < -slack).sum()), int((share > 1 + slack).sum()), share.size)
        held = np.clip(share, 0.0, 1.0)
        if self.gamma != (1.0, 1.0, 1.0):
            held **= np.array(self.gamma, np.float32)
        return np.round(held * CODES).astype(np.uint8), counts

    def reconstruct(self, codes_hwc: Float32, base_hwc: Float32, weight: float = 1.0) -> Float32:
        """H of codes in 0..255 (whole or not) and the linear base, (H, W, 3) float32; rounding may leave it a little
        below 0 where the picture is black.
        """
        share = codes_hwc / np.float32(CODES)
        if self.gamma != (1.0, 1.0, 1.0):
            share **= 1.0 / np.array(self.gamma, np.float32)
        low, high = np.array(self.low, np.float32), np.array(self.high, np.float32)
        ratio = np.exp2((low + share * (high - low)) * np.float32(weight))
        lifted = base_hwc + np.array(self.base_offset, np.float32)
        return (lifted * ratio - np.array(self.hdr_offset, np.float32)).astype(np.float32)


def fitted(lowest: float, highest: float) -> LogGain:
    """The finest map that holds gains from `lowest` to `highest` stops and has a whole code for a gain of 0.

    With it a pixel that equals its base keeps its value exactly. The range is the same in all channels, cut to
    DARKEST_STOPS and BRIGHTEST_STOPS. Raises BadParameter when the ends are not finite.
    """
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise BadParameter(f"a gain map needs finite gains, got {lowest} to {highest} stops")
    low = min(max(lowest, DARKEST_STOPS), 0.0)
    high = max(min(highest, BRIGHTEST_STOPS), 0.0)
    exact = CODES * -low / (high - low) if high > low else 0.0
    choices = [min(CODES - 1, max(rounded, 1 if low < 0 else 0)) for rounded in (math.floor(exact), math.ceil(exact))]
    steps = {below: max(high / (CODES - below), -low / max(below, 1), SMALLEST_STEP) for below in choices}
    below = min(steps, key=lambda choice: steps[choice])
    step = math.ceil(steps[below] / UNIT) * UNIT
    low, high = -below * step, (CODES - below) * step
    return LogGain((low, low, low), (high, high, high), headroom_high=high)
