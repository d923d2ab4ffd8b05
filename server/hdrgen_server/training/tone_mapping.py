"""The eight tone-mapping operators that LumaFlux's corpora pair HDR frames with: display light to an SDR signal.

It owns their curves and constants. It must not know codecs, drawing at random or where frames come from.
Everywhere: linear Rec.2020 display light in cd/m2, (H, W, 3), mastered at PEAK_NITS, to R'G'B' codes of Rec.709 for a
BT.1886 display, 0..1. Every operator ends alike: a matrix to Rec.709, a hard clip (Report ITU-R BT.2407-0, section 2)
and the power 1 / 2.4. That clip is the only step without an inverse, beside hard clips of the light itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from hdrgen_server.colour.curves import CURVES, pq
from hdrgen_server.colour.primaries import luminance_weights, rgb_to_rgb

Array = npt.NDArray[np.float32]
Float = npt.NDArray[np.floating[Any]]
Operator = Callable[[Array], Float]
"""Light in cd/m2 to light relative to SDR white (100 cd/m2), both linear Rec.2020."""

PEAK_NITS, SDR_NITS = 1000.0, 100.0
DISPLAY_GAMMA = 2.4

# Report ITU-R BT.2446-1, 4.1.2: the pieces of method A's knee.
A_LOW, A_HIGH = 0.7399, 0.9909
A_SLOPE, A_PARABOLA, A_END = 1.0770, (-1.1510, 2.7811, -0.6302), (0.5, 0.5)
# Section 6.1.4, equation 5, and 6.1.2.
C_K1, C_K2, C_K3, C_K4, C_CROSSTALK = 0.83802, 15.09968, 0.74204, 78.99439, 0.10
C_KNEE_NITS = 58.5 / C_K1
# Narkowicz (2016), ACES filmic tone mapping curve; the light that it takes as 1.
FILMIC, FILMIC_WHITE_NITS = (2.51, 0.03, 2.43, 0.59, 0.14), 0.18 * PEAK_NITS / 4
GAMMA_CLIP = 1.4


def ocio_filmic(nits: Array) -> Float:
    """A rational fit of a filmic curve, channel by channel."""
    a, b, c, d, e = FILMIC
    x = nits / np.float32(FILMIC_WHITE_NITS)
    return (x * (a * x + b)) / (x * (c * x + d) + e)


def bt2446a(nits: Array) -> Float:
    """BT.2446-1 method A on luminance, 1000 to 100 cd/m2; chromaticity stays."""
    light = _luminance(nits)
    place = np.log1p((_rho(PEAK_NITS) - 1) * (light / PEAK_NITS) ** (1 / DISPLAY_GAMMA)) / math.log(_rho(PEAK_NITS))
    parabola = np.polyval(np.array(A_PARABOLA), place)
    knee = np.where(place <= A_LOW, A_SLOPE * place, np.where(place < A_HIGH, parabola, np.polyval(A_END, place)))
    sdr = (np.expm1(knee * math.log(_rho(SDR_NITS))) / (_rho(SDR_NITS) - 1)) ** DISPLAY_GAMMA
    return _with_luminance(nits, light, sdr)


def bt2446c_gm(nits: Array) -> Float:
    """BT.2446-1 method C with crosstalk 0.10; its peak scaled to SDR white. Chromaticity stays."""
    mixed = nits * (1 - 3 * C_CROSSTALK) + C_CROSSTALK * nits.sum(axis=2, keepdims=True)
    light = _luminance(mixed)
    return _with_luminance(nits, light, _method_c(light) / _method_c(np.array(PEAK_NITS)))


def bt2390_eetf_gm(nits: Array) -> Float:
    """The EETF of Report ITU-R BT.2390, 5.4.1, channel by channel in PQ, 1000 to 100 cd/m2, black at 0."""
    curve = pq(SDR_NITS)
    top = float(curve.encode(PEAK_NITS / SDR_NITS))
    signal = curve.encode(nits / np.float32(SDR_NITS)) / top
    highest = float(curve.encode(1.0)) / top
    start = 1.5 * highest - 0.5
    t = np.clip((signal - start) / (1 - start), 0, 1)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * start
        + (t**3 - 2 * t**2 + t) * (1 - start)
        + (3 * t**2 - 2 * t**3) * highest
    )  # fmt: skip
    return curve.decode(np.where(signal < start, signal, spline) * top)


def hard_clip_gm(nits: Array) -> Float:
    """Nothing but the clip at SDR white."""
    return nits / np.float32(SDR_NITS)


def reinhard(nits: Array) -> Float:
    """Reinhard et al. (2002), equation 4, on luminance, with the peak as its white. Chromaticity stays."""
    light = _luminance(nits)
    x, white = light / SDR_NITS, PEAK_NITS / SDR_NITS
    return _with_luminance(nits, light, x * (1 + x / white**2) / (1 + x))


def youtube_logc(nits: Array) -> Float:
    """The LogC curve (EI 800) of light relative to SDR white, taken as light, channel by channel: a flat picture."""
    return CURVES["logc3"].encode(nits / np.float32(SDR_NITS))


def gamma_clip(nits: Array) -> Float:
    """Light relative to the peak, to the power 1 / 1.4, channel by channel."""
    return (nits / np.float32(PEAK_NITS)) ** np.float32(1 / GAMMA_CLIP)


OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {
        operator.__name__: operator
        for operator in (
            ocio_filmic, bt2446a, bt2446c_gm, bt2390_eetf_gm, hard_clip_gm, reinhard, youtube_logc, gamma_clip,
        )
    }
)  # fmt: skip


def tone_map(scene_linear_hwc: Array, operator: str, white_nits: float = SDR_NITS) -> Array:
    """SDR codes (H, W, 3) in 0..1, Rec.709 for a BT.1886 display, of scene-linear Rec.709 light with white at 1.0.

    Light is shown with diffuse white at `white_nits`, and cut at PEAK_NITS and at 0, as a master is.
    """
    rec2020 = scene_linear_hwc @ rgb_to_rgb("rec709", "rec2020").T.astype(np.float32)
    nits = np.clip(rec2020 * np.float32(white_nits), 0, np.float32(PEAK_NITS))
    shown = np.asarray(OPERATORS[operator](nits), np.float32) @ rgb_to_rgb("rec2020", "rec709").T.astype(np.float32)
    return (np.clip(shown, 0, 1) ** np.float32(1 / DISPLAY_GAMMA)).astype(np.float32)


def _luminance(nits: Array) -> Float:
    return (nits @ luminance_weights("rec2020").astype(np.float32))[..., None]


def _with_luminance(nits: Array, light: Float, wanted: Float) -> Float:
    return nits * (wanted / np.maximum(light, 1e-6))


def _method_c(light: Float) -> Float:
    above = light > C_KNEE_NITS
    curved = C_K2 * np.log(np.where(above, light, C_KNEE_NITS) / C_KNEE_NITS - C_K3) + C_K4
    return np.where(above, curved, C_K1 * light)


def _rho(nits: float) -> float:
    """BT.2446-1, 4.1.2."""
    return 1 + 32 * (nits / 10000) ** (1 / DISPLAY_GAMMA)
