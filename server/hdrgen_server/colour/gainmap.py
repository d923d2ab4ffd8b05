"""Gain maps: an HDR image as a base image and a map of what it must be multiplied by.

It owns the two forms of GMODiff (Hu et al., arXiv 2512.16357) with an explicit scale. It must not know
networks, frames or files; numpy and torch alike, gradients finite.

Both write H = s (L + alpha) R(G), with H scene-linear, L the base in [0, 1] (linear or encoded: the caller's
choice, the same both ways), G nominally in [0, 1], and alpha = 1/64. Nothing is clipped here but in
`encode_bounded`, which says how much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

from hdrgen_server.colour.arrays import namespace_of
from hdrgen_server.colour.curves import Curve, mulaw
from nuke_hdrgen.wire.errors import BadParameter

Array = TypeVar("Array")

ALPHA = 1.0 / 64.0
LOG2_OFFSET = -6.0
LOG2_Q_MAX = 12.0
MU = 100.0


@dataclass(frozen=True)
class GainCounts:
    """Samples of a gain map outside [0, 1], out of `samples`: `below` cannot be as dark, `above` not as
    bright.
    """

    below: int
    above: int
    samples: int


@dataclass(frozen=True)
class GainMap:
    """One form: `curve` takes the ratio H / (s (L + alpha)) to the gain G and back."""

    curve: Curve
    scale: float = 1.0
    alpha: float = ALPHA

    def __post_init__(self) -> None:
        """Refuse a scale or alpha that no pixel could come back from."""
        for name, value in (("scale", self.scale), ("alpha", self.alpha)):
            if not 0.0 < value < math.inf:
                raise BadParameter(f"the gain map's {name} must be a finite number above 0, got {value!r}")

    def encode(self, hdr: Array, base: Array) -> Array:
        """The gain G of scene-linear `hdr` over `base` (broadcastable shapes, base >= 0), not clipped."""
        light: Any = hdr
        return self.curve.encode(light / (self.scale * (_any(base) + self.alpha)))

    def reconstruct(self, gain: Array, base: Array) -> Array:
        """Scene-linear H of a gain and its base; the inverse of `encode` for every finite value."""
        decoded: Any = self.curve.decode(gain)
        return decoded * (self.scale * (_any(base) + self.alpha))

    def encode_bounded(self, hdr: Array, base: Array) -> tuple[Array, GainCounts]:
        """`encode` cut to [0, 1], as an 8-bit or sigmoid map must hold it, and how many samples were cut."""
        gain: Any = self.encode(hdr, base)
        counts = count_outside(gain)
        return namespace_of(gain).clip(gain, 0.0, 1.0), counts

    @property
    def highest_ratio(self) -> float:
        """H / (L + alpha) at G = 1: the brightest that the map reaches over a base of 1 - alpha."""
        return self.scale * float(self.curve.decode(1.0))


def log2_form(
    q_max: float = LOG2_Q_MAX, offset: float = LOG2_OFFSET, scale: float = 1.0, alpha: float = ALPHA
) -> GainMap:
    """Eq. 1 of the paper: R(G) = 2 ** (offset + G * q_max).

    The paper prints offset 1: then H >= 2 (L + alpha), and a pixel that is not clipped (H about L) has no
    gain in [0, 1]; with offset 0 it still has none, since L < L + alpha. The default -6 holds every unclipped
    pixel whose code is above the crushed threshold (2/255), be L linear or sRGB-encoded, and with q_max 12
    reaches 64 (L + alpha). Ratios below 2 ** (offset - 4), zero and negative included, follow the tangent:
    they have a finite gain below 0 and come back exactly. Raises BadParameter for parameters that are not
    finite, or q_max, scale or alpha <= 0.
    """
    if not (math.isfinite(offset) and 0.0 < q_max < math.inf and -60.0 < offset < offset + q_max < 60.0):
        raise BadParameter(f"the gain map's offset and q_max must stay within 60 stops, got {offset!r}, {q_max!r}")
    cut, slope = 2.0 ** (offset - 4.0), 2.0 ** (4.0 - offset) / (math.log(2.0) * q_max)
    code_cut = -4.0 / q_max
    curve = Curve(
        "log2_gain", "Hu et al., GMODiff (arXiv 2512.16357), eq. 1",
        lambda xp, x: (xp.log2(x) - offset) / q_max, lambda _xp, y: 2.0 ** (offset + y * q_max),
        cut=cut, toe=(slope, code_cut - slope * cut), code_cut=code_cut, top=1e20,
    )  # fmt: skip
    return GainMap(curve, scale, alpha)


def mu_law_form(mu: float = MU, scale: float = 1.0, alpha: float = ALPHA) -> GainMap:
    """The paper's mu-law: R(G) = ((1 + mu) ** G - 1) / mu, exact at H = 0 and odd about it.

    Scale 1 is the published form, which ends at H = L + alpha: it needs H normalised beforehand. Raises
    BadParameter for parameters that are not finite and above 0.
    """
    return GainMap(mulaw(mu, "mu_law_gain"), scale, alpha)


def count_outside(gain: Any) -> GainCounts:
    """Count the samples of a gain map below 0 and above 1 (any shape, numpy or torch)."""
    return GainCounts(int((gain < 0.0).sum()), int((gain > 1.0).sum()), math.prod(gain.shape))


def _any(array: object) -> Any:
    return array
