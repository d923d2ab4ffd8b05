"""Turns colour that was multiplied by alpha (as EXR files hold it) into straight colour (as frames hold it)
and back.

It owns the rule for pixels without alpha; where alpha is 1 or 0 throughout, the array itself comes back. It
must not know files or colourspaces.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# The smallest alpha above zero that a half float can hold. Below it nothing is divided or multiplied, both
# ways, so that light added without coverage (alpha 0) passes unchanged and no division overflows.
ALPHA_FLOOR = 2.0**-24

Float32 = npt.NDArray[np.float32]


def straighten(premultiplied_hwc: Float32, alpha_index: int) -> Float32:
    """Divide every channel but alpha by alpha, where |alpha| >= ALPHA_FLOOR; alpha itself is returned bit
    for bit.
    """
    return _scaled(premultiplied_hwc, alpha_index, divide=True)


def premultiply(straight_hwc: Float32, alpha_index: int) -> Float32:
    """Multiply every channel but alpha by alpha, where |alpha| >= ALPHA_FLOOR; the inverse of
    `straighten`.
    """
    return _scaled(straight_hwc, alpha_index, divide=False)


def _scaled(pixels_hwc: Float32, alpha_index: int, *, divide: bool) -> Float32:
    alpha = pixels_hwc[..., alpha_index]
    covered = np.abs(alpha) >= ALPHA_FLOOR  # False for NaN
    partial = covered & (alpha != 1.0)
    if not partial.any():
        return pixels_hwc
    result = pixels_hwc.copy()
    factor = np.where(partial, alpha, np.float32(1.0))
    for index in range(result.shape[2]):
        if index != alpha_index:
            plane = result[..., index]
            with np.errstate(over="ignore", invalid="ignore"):
                plane[...] = plane / factor if divide else plane * factor
    return result
