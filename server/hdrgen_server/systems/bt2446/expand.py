"""The SDR to HDR conversions of Report ITU-R BT.2446-1 (03/2021), methods A and C, on linear display light.

It owns their formulas and constants. It must not know frames, codes, parameters' names or where mid-grey belongs.
Everywhere: linear Rec.2020 of shape (..., 3), 1.0 at SDR white (100 cd/m2), computed and returned as float64; negative
light (colours outside Rec.2020) stays negative and finite.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from hdrgen_server.colour.primaries import luminance_weights

Float64 = npt.NDArray[np.float64]

SDR_NITS = 100.0
TABLE_NITS = 1000.0

# Rec. ITU-R BT.2020-2, table 4: luma of non-constant luminance.
LUMA = (0.2627, 0.6780, 0.0593)
DISPLAY_GAMMA = 2.4  # Rec. ITU-R BT.1886, black at 0
# Section 4.2, table 4: E = a s^2 + b s + c of the luma s in 0..255, for s up to 70 and above.
EXPONENT_LOW = (1.8712e-5, -2.7334e-3, 1.3141)
EXPONENT_HIGH = (2.8305e-6, -7.4622e-4, 1.2528)
CHROMA_GAIN = 1.075
# The two parabolas differ by 1.7e-5 at 70, which would make a step down; they meet here.
EXPONENT_JOIN = float(np.roots(np.subtract(EXPONENT_LOW, EXPONENT_HIGH)).max())

# Section 6.1.4, equations 5 and 6: the tone curve that section 6.2 inverts.
K1, K2, K3, K4 = 0.83802, 15.09968, 0.74204, 78.99439
# 80 % of the SDR signal, which the Report rounds to 58.5; unrounded, both branches meet.
KNEE_SDR = 100.0 * 0.8**DISPLAY_GAMMA
KNEE_HDR = KNEE_SDR / K1
CROSSTALK = 0.1  # section 6.1.2: between 0 and 0.33


def method_a(light: npt.ArrayLike, peak_nits: float = TABLE_NITS) -> Float64:
    """Method A, section 4.2: the luma raised to a power of its own, the chroma scaled with it.

    Table 4 holds for a display of 1000 cd/m2. For another `peak_nits` its luma goes through the perceptual scale of
    section 4.1 (step 1) from 1000 cd/m2 to that peak.
    """
    coded = _signed_power(np.asarray(light, np.float64), 1.0 / DISPLAY_GAMMA)
    luma = coded @ np.asarray(LUMA)[:, None]
    bright = luma > 0.0
    codes = 255.0 * np.where(bright, luma, 1.0)
    low, high = (np.polyval(np.asarray(terms), codes) for terms in (EXPONENT_LOW, EXPONENT_HIGH))
    raised = codes ** np.where(codes <= EXPONENT_JOIN, low, high) / TABLE_NITS
    expanded = np.where(bright, _repeak(raised, peak_nits), 0.0)
    gain = np.where(bright, CHROMA_GAIN * expanded / np.where(bright, luma, 1.0), 1.0)
    return _signed_power(expanded + (coded - luma) * gain, DISPLAY_GAMMA) * (peak_nits / SDR_NITS)


def method_c(light: npt.ArrayLike) -> Float64:
    """Method C, section 6.2: the inverse of section 6.1, linear up to 80 % of the SDR signal and exponential above.

    Chromaticity stays, so that the crosstalk matrix of section 6.1.2 and its inverse only decide which luminance the
    curve sees. The optional chroma correction of section 6.1.8 is left out.
    """
    display = np.asarray(light, np.float64)
    mixed = display * (1.0 - 3.0 * CROSSTALK) + CROSSTALK * display.sum(axis=-1, keepdims=True)
    percent = 100.0 * (mixed @ luminance_weights("rec2020")[:, None])
    above = percent > KNEE_SDR
    curved = KNEE_HDR * (np.exp((np.where(above, percent, KNEE_SDR) - K4) / K2) + K3)
    return display * np.where(above, curved / np.where(above, percent, 1.0), 1.0 / K1)


def _repeak(luma: Float64, peak_nits: float) -> Float64:
    """Luma relative to 1000 cd/m2 to luma relative to `peak_nits`, at the same place of section 4.1's scale."""
    table, wanted = _rho(TABLE_NITS), _rho(peak_nits)
    place = np.log1p((table - 1.0) * luma) / math.log(table)
    return np.expm1(place * math.log(wanted)) / (wanted - 1.0)


def _rho(nits: float) -> float:
    """Section 4.1, step 1: rho = 1 + 32 (L / 10000)^(1 / 2.4)."""
    return 1.0 + 32.0 * (nits / 10000.0) ** (1.0 / DISPLAY_GAMMA)


def _signed_power(values: Float64, exponent: float) -> Float64:
    return np.copysign(np.abs(values) ** exponent, values)
