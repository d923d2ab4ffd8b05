"""One formula for numpy and torch: the namespace of an argument, and piecewise evaluation with safe
gradients.

It owns dispatch and safe piecewise evaluation. It must not know colour and must not import torch: a torch
tensor can only be an argument when torch is imported already.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

Formula = Callable[[Any, Any], Any]


def namespace_of(array: Any) -> Any:
    """The module whose functions take this array: torch, an array-API namespace, else numpy."""
    if type(array).__module__.partition(".")[0] == "torch":
        return sys.modules["torch"]
    if hasattr(array, "__array_namespace__"):
        return array.__array_namespace__()
    return np


def to_working(array: Any, *, double: bool) -> tuple[Any, Any, Any]:
    """(namespace, array in the dtype to compute in, dtype to return).

    Floating arrays come back in their own dtype; integers and Python numbers become float64 numpy. Half
    precision is computed in float32; numpy is computed in float64 when `double`.
    """
    xp = namespace_of(array)
    if xp is np:
        given = np.asarray(array)
        result = given.dtype if np.issubdtype(given.dtype, np.floating) else np.dtype(np.float64)
        working = np.float64 if double else np.result_type(result, np.float32)
        return np, given.astype(working, copy=False), result
    result = array.dtype if "float" in str(array.dtype) else xp.float32
    working = xp.float32 if "16" in str(result) else result
    return xp, as_dtype(array, working), result


def as_dtype(array: Any, dtype: Any) -> Any:
    """The array in `dtype`; no copy when it has it already. A 0-d numpy result becomes a numpy scalar."""
    if hasattr(array, "astype"):
        return array.astype(dtype, copy=False)
    return array if array.dtype == dtype else array.to(dtype)


def between(
    xp: Any,
    x: Any,
    *,
    ends: tuple[float, float],
    inside: Formula,
    below: tuple[float, float],
    above: tuple[float, float],
) -> Any:
    """`inside(x)` strictly between the ends, straight lines outside.

    `below` is the lower line's (slope, value at 0), `above` the upper line's (slope, value at the upper end).
    No branch sees an argument that is not its own, so neither value nor gradient can be NaN or Inf from a
    part of the domain that is not selected. NaN stays NaN; Inf follows the lines.
    """
    low, high = ends
    beyond = x >= high
    selected = (x > low) & (x < high)
    curved = inside(xp, xp.where(selected, x, low + min(1.0, 0.5 * (high - low))))
    lower = below[0] * xp.where(beyond, low, x) + below[1]
    upper = above[0] * (xp.where(beyond, x, high) - high) + above[1]
    return xp.where(selected, curved, xp.where(beyond, upper, lower))


def slope_at(formula: Formula, x: float) -> float:
    """The derivative of a smooth numpy formula at x > 0 by central difference, relative error about 1e-8."""
    step = 1e-4 * x
    return float((formula(np, np.float64(x + step)) - formula(np, np.float64(x - step))) / (2 * step))
