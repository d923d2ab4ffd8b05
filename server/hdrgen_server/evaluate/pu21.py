"""Display light and its PU21 codes: what every figure of the protocol is computed on.

It owns the display mapping. The curve is Mantiuk and Azimi, "PU21: A novel perceptually uniform encoding for adapting
existing quality metrics for HDR" (PCS 2021), banding_glare. It must not know brackets, files or torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hdrgen_server.colour.curves import CURVES

Float64 = npt.NDArray[np.float64]

WHITE_NITS = 100.0
DARKEST_NITS, BRIGHTEST_NITS = 0.005, 1000.0
PEAK_CODE = 256.0


def display_nits(scene_linear: npt.NDArray[Any]) -> Float64:
    """Light of a display with diffuse white at 100 nits that reaches from 0.005 to 1000: float64, same shape."""
    return np.clip(np.asarray(scene_linear, np.float64) * WHITE_NITS, DARKEST_NITS, BRIGHTEST_NITS)


def pu21_codes(nits: npt.NDArray[Any]) -> Float64:
    """PU21 codes of light in nits, about 0 at 0.005, 256.4 at 100, 595.4 at 10000."""
    return CURVES["pu21"].encode(np.asarray(nits, np.float64))
