"""How bright a movie is, for its metadata: MaxCLL, MaxFALL, and the display that it says it was mastered on.

It owns the two measures and the mastering display's numbers. It must not know containers or codecs. Sources:
CTA-861.3-A, annex P (MaxCLL is the brightest channel of any pixel, MaxFALL the highest mean of the brightest channels
of a frame); SMPTE ST 2086.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hdrgen_server.colour.primaries import CHROMATICITIES

DARKEST_NITS = 0.005
MOST = 65535


@dataclass(frozen=True)
class Light:
    """Content light level in whole cd/m2, rounded up."""

    max_cll: int
    max_fall: int


class LightMeter:
    """Takes the light of each frame in turn."""

    def __init__(self) -> None:
        self._peak = self._mean = 0.0

    def add(self, nits_hwc: npt.NDArray[np.floating]) -> None:
        """One frame's display light in cd/m2, (H, W, 3), as it will be shown."""
        brightest = nits_hwc.max(axis=2)
        self._peak = max(self._peak, float(brightest.max()))
        self._mean = max(self._mean, float(brightest.mean(dtype=np.float64)))

    @property
    def light(self) -> Light:
        """What was found so far; a rounding error of 1e-3 does not count as more."""
        return Light(*(min(MOST, math.ceil(nits - 1e-3)) for nits in (self._peak, self._mean)))


@dataclass(frozen=True)
class Mastering:
    """A mastering display with BT.2020 primaries and D65, which bound what was mastered; luminance in cd/m2."""

    peak_nits: float
    darkest_nits: float = DARKEST_NITS

    @property
    def points(self) -> tuple[tuple[int, int], ...]:
        """x and y of green, blue, red and white in units of 0.00002, in the order of ST 2086's messages."""
        xy = CHROMATICITIES["rec2020"]
        pairs = [(xy[i], xy[i + 1]) for i in (2, 4, 0, 6)]
        return tuple((round(x * 50000), round(y * 50000)) for x, y in pairs)

    @property
    def luminances(self) -> tuple[int, int]:
        """The highest and the lowest in units of 0.0001 cd/m2."""
        return round(self.peak_nits * 10000), round(self.darkest_nits * 10000)
