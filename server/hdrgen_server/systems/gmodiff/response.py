"""Finds which camera curve made a bracket, from the bracket alone.

It owns a two-parameter family around sRGB and its estimate. It must not know networks or files. Exposures that are
aligned and known in EV must agree once linearised with the right curve (Debevec and Malik 1997); two parameters are
few enough to hold with motion in the picture and with two exposures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

LEVELS = 1024
LOW, HIGH = 0.05, 0.96
TRUNCATE_STOPS = 0.5
MINIMUM_GAIN = 0.08
S_STEPS = np.linspace(-0.3, 0.7, 11)
GAMMA_STEPS = np.exp(np.linspace(-0.2, 0.2, 5))


@dataclass(frozen=True)
class Response:
    """The camera's curve: sRGB codes to the power `gamma`, blended by `s` towards smoothstep."""

    s: float = 0.0
    gamma: float = 1.0

    def linearise(self, codes: Array) -> Array:
        """Codes in [0, 1] to linear light in [0, 1]; values between table entries are interpolated."""
        codes_axis, linear_axis = self.table()
        return np.interp(codes, codes_axis, linear_axis).astype(np.float32)

    def table(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The curve as points: codes, never falling, and the linear light of each."""
        srgb = np.linspace(0, 1, 1025)
        linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
        powered = srgb**self.gamma
        codes = powered + self.s * (powered * powered * (3 - 2 * powered) - powered)
        return np.maximum.accumulate(codes), linear


def estimate_response(samples: Sequence[Array], evs: Sequence[float]) -> Response:
    """The curve under which aligned exposures agree best; plain sRGB unless another is clearly better.

    Takes codes in [0, 1] of the same points in every exposure, (K, 3) each, with the exposures' EVs.
    """
    pairs = _pairs(samples, evs)
    if not pairs:
        return Response()
    plain = _disagreement(Response(), pairs)
    best, lowest = Response(), plain
    for gamma in GAMMA_STEPS:
        for s in S_STEPS:
            cost = _disagreement(Response(float(s), float(gamma)), pairs)
            if cost < lowest:
                best, lowest = Response(float(s), float(gamma)), cost
    for step in (0.5, 0.25):
        for ds in (-step, 0, step):
            for dg in (-step, 0, step):
                trial = Response(best.s + 0.1 * ds, best.gamma * float(np.exp(0.1 * dg)))
                cost = _disagreement(trial, pairs)
                if cost < lowest:
                    best, lowest = trial, cost
    return best if lowest < (1 - MINIMUM_GAIN) * plain else Response()


@dataclass(frozen=True, eq=False)
class _Pair:
    """Table indices of the same pixels in two exposures that are `stops` apart."""

    indices_a: npt.NDArray[np.intp]
    indices_b: npt.NDArray[np.intp]
    stops: float


def _pairs(samples: Sequence[Array], evs: Sequence[float]) -> list[_Pair]:
    order = np.argsort(evs)
    pairs: list[_Pair] = []
    for i, j in zip(order[:-1], order[1:], strict=True):
        a, b = samples[i], samples[j]
        usable = ((a > LOW) & (a < HIGH) & (b > LOW) & (b < HIGH)).all(axis=1)
        if usable.sum() >= 64:
            pairs.append(_Pair(_indices(a[usable]), _indices(b[usable]), float(evs[j] - evs[i])))
    return pairs


def _indices(codes: Array) -> npt.NDArray[np.intp]:
    return np.round(codes * (LEVELS - 1)).astype(np.intp)


def _disagreement(response: Response, pairs: Sequence[_Pair]) -> float:
    codes_axis, linear_axis = response.table()
    log2_of_level = np.log2(np.maximum(np.interp(np.linspace(0, 1, LEVELS), codes_axis, linear_axis), 1e-5))
    total, count = 0.0, 0
    for pair in pairs:
        difference = log2_of_level[pair.indices_b] - log2_of_level[pair.indices_a]
        total += float(np.minimum(np.abs(difference - pair.stops), TRUNCATE_STOPS).sum())
        count += difference.size
    return total / count
