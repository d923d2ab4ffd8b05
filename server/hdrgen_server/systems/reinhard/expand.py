"""The photographic tone curve of Reinhard et al. (SIGGRAPH 2002, section 3, equation 4) and its inverse, on luminance.

It owns the formulas. It must not know frames, codes, parameters' names or where mid-grey belongs. Everywhere: linear
RGB of shape (..., 3), 1.0 at SDR white going in; computed and returned as float64. Negative light stays negative.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hdrgen_server.colour.primaries import luminance_weights

Float64 = npt.NDArray[np.float64]


def tone_curve(luminance: npt.ArrayLike, white: float) -> Float64:
    """Equation 4: L (1 + L / white^2) / (1 + L); `white` and what is above it reach 1 and more."""
    scene = np.asarray(luminance, np.float64)
    return scene * (1.0 + scene / white**2) / (1.0 + scene)


def inverse_curve(luminance: npt.ArrayLike, white: float) -> Float64:
    """The L of equation 4 for displayed luminance in [0, 1] (`white` at 1); it goes on smoothly above 1, and below 0
    with the curve's slope there, which is 1.

    The root is written with the square root in its denominator where that keeps its digits: small light stays exact.
    """
    shown = np.asarray(luminance, np.float64)
    lit = np.maximum(shown, 0.0)
    root = np.sqrt((1.0 - lit) ** 2 + 4.0 * lit / white**2)
    dark = lit < 1.0
    below = 2.0 * lit / np.where(dark, 1.0 - lit + root, 1.0)
    above = 0.5 * white**2 * (lit - 1.0 + root)
    return np.where(shown < 0.0, shown, np.where(dark, below, above))


def expand(light: npt.ArrayLike, white: float) -> Float64:
    """Linear Rec.709 as displayed to the light before the tone curve: every channel scaled as its pixel's luminance."""
    display = np.asarray(light, np.float64)
    luminance = display @ luminance_weights("rec709")[:, None]
    bright = np.logical_not(luminance <= 0.0)  # NaN goes on as NaN
    gain = np.where(bright, inverse_curve(luminance, white) / np.where(bright, luminance, 1.0), 1.0)
    return display * gain
