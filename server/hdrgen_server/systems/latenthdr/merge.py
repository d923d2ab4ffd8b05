"""The stack of exposures back to light, in the log domain.

It owns weights, validity and what no exposure shows. It must not know networks or files. Codes are (H, W, 3) float32,
nominally in [0, 1]; light is linear Rec.709, mid-grey at 0.18. Second-hand (the document's Eq. 9): R_e = y^2.2 / 2^e,
w = 4 min(m, 1 - m) with m the mean of the channels, where all channels are within 0.02 and 0.98;
log R = sum w log R_e / sum w.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hdrgen_server.systems.latenthdr.exposure import light_of

Float32 = npt.NDArray[np.float32]
DARKEST, BRIGHTEST = 0.02, 0.98
LEAST_WEIGHT = 1e-4
LEAST_LIGHT = np.float32(2.0**-40)
"""What a logarithm can be taken of; no valid code comes near it."""


@dataclass(frozen=True, eq=False)
class Merged:
    """Light (H, W, 3); where every exposure clips (H, W), and where none shows a pixel validly."""

    scene_linear_hwc: Float32
    clipped_hw: npt.NDArray[np.bool_]
    fallen_back_hw: npt.NDArray[np.bool_]


class Merger:
    """Takes a stack exposure by exposure, the darkest first, and holds no more than sums.

    An exposure counts in a pixel only where no darker one clips: what clipped once cannot be seen again, whatever a
    decoder's noise says. A pixel that no exposure shows validly takes the brightest that does not clip there, and where
    all clip the darkest.
    """

    def __init__(self, height: int, width: int) -> None:
        self._log_hwc = np.zeros((height, width, 3), np.float32)
        self._weight_hw = np.zeros((height, width), np.float32)
        self._nearest_hwc = np.zeros((height, width, 3), np.float32)
        self._open_hw = np.ones((height, width), np.bool_)
        self._darkest_hw: npt.NDArray[np.bool_] | None = None
        self._last = -np.inf

    def add(self, ev: float, codes_hwc: Float32) -> None:
        """Take an exposure. Raises ValueError unless it is brighter than the one before."""
        if ev <= self._last:
            raise ValueError(f"exposures are merged from the darkest, got EV {ev} after {self._last}")
        self._last = ev
        within_hwc = np.clip(codes_hwc, 0, 1)
        light_hwc: Any = light_of(within_hwc, ev)
        self._open_hw &= within_hwc.max(axis=2) < BRIGHTEST
        if self._darkest_hw is None:
            self._darkest_hw = ~self._open_hw
            self._nearest_hwc[...] = light_hwc
        np.copyto(self._nearest_hwc, light_hwc, where=self._open_hw[..., None])
        mean_hw = within_hwc.mean(axis=2)
        valid_hw = self._open_hw & (within_hwc.min(axis=2) > DARKEST)
        weight_hw: Any = valid_hw * (4 * np.minimum(mean_hw, 1 - mean_hw))
        self._log_hwc += weight_hw[..., None] * np.log(np.maximum(light_hwc, LEAST_LIGHT))
        self._weight_hw += weight_hw

    def result(self) -> Merged:
        """The merged light. Raises ValueError before there is an exposure."""
        if self._darkest_hw is None:
            raise ValueError("there is no exposure to merge")
        shown_hw = self._weight_hw > LEAST_WEIGHT
        mean_hwc = np.exp(self._log_hwc / np.maximum(self._weight_hw, np.float32(LEAST_WEIGHT))[..., None])
        light_hwc = np.where(shown_hw[..., None], mean_hwc, self._nearest_hwc).astype(np.float32)
        return Merged(light_hwc, self._darkest_hw, ~shown_hw)
