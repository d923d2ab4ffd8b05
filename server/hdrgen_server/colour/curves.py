"""Transfer curves between linear light and codes: one table of all of them, each with its source.

It owns the formulas and how they go on outside the range that their sources define. It must not know
primaries, frames, OCIO or files, and never imports torch: the namespace comes from the argument.

Linear values are 1.0 at diffuse white for every curve but `pu21`, which takes nits (cd/m2). Codes are
nominally 0..1 (`pu21`: 0..595). Every curve is continuous up to its source's own rounding, increasing, and
has finite values and gradients for every argument up to 1e20 at least: below the source's range it goes on as
its own linear toe, or odd about 0 where it has none; where a power would have an infinite slope at 0, or a
decode a pole, a straight line takes over. Those lines begin below 1e-12 of white or above 1e6 times white,
where no picture is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, TypeVar

import numpy as np

from hdrgen_server.colour.arrays import Formula, as_dtype, between, slope_at, to_working
from nuke_hdrgen.wire.errors import BadParameter

Array = TypeVar("Array")
Toe = Literal["keep", "clamp"]

WHITE_NITS_DEFAULT = 100.0
WHITE_NITS_BT2408 = 203.0

_TOP = 1e12


@dataclass(frozen=True)
class Curve:
    """One transfer curve: `forward` and `inverse` hold between `cut` and `top` (linear), lines outside.

    `toe` is (slope, code at linear 0) of the line below `cut`; `code_cut` where the source gives the code of
    the cut. `odd` mirrors negative values about 0. `negatives="clamp"` takes negative light as 0 on both ways
    (the explicit choice for the toe of LogC: kept, code 0 of LogC3 decodes to -0.0173). `double` computes in
    float64 under numpy.
    """

    name: str
    citation: str
    forward: Formula
    inverse: Formula
    cut: float
    toe: tuple[float, float]
    code_cut: float
    top: float = _TOP
    odd: bool = False
    double: bool = False
    unit: Literal["white", "nits"] = "white"
    negatives: Toe = "keep"

    def encode(self, linear: Array) -> Array:
        """Linear light (any shape, float, numpy or torch) to codes of the same shape, dtype and device."""
        xp, x, dtype = to_working(linear, double=self.double)
        if self.negatives == "clamp":
            x = xp.where(x < 0, 0.0, x)
        magnitude = xp.where(x < 0, -x, x) if self.odd else x
        code_top, slope_top = self._top
        code = between(
            xp, magnitude,
            ends=(self.cut, self.top), inside=self.forward, below=self.toe, above=(slope_top, code_top),
        )  # fmt: skip
        return as_dtype(xp.where(x < 0, -code, code) if self.odd else code, dtype)

    def decode(self, code: Array) -> Array:
        """Codes (any shape, float, numpy or torch) to linear light of the same shape, dtype and device."""
        xp, x, dtype = to_working(code, double=self.double)
        magnitude = xp.where(x < 0, -x, x) if self.odd else x
        code_top, slope_top = self._top
        toe = (1.0 / self.toe[0], -self.toe[1] / self.toe[0])
        linear = between(
            xp, magnitude,
            ends=(self.code_cut, code_top), inside=self.inverse, below=toe, above=(1.0 / slope_top, self.top),
        )  # fmt: skip
        if self.odd:
            linear = xp.where(x < 0, -linear, linear)
        if self.negatives == "clamp":
            linear = xp.where(linear < 0, 0.0, linear)
        return as_dtype(linear, dtype)

    def clamped(self) -> Curve:
        """The same curve with negative light taken as 0 in both directions."""
        return replace(self, negatives="clamp")

    @cached_property
    def _top(self) -> tuple[float, float]:
        return float(self.forward(np, np.float64(self.top))), slope_at(self.forward, self.top)


def _from_zero(name: str, citation: str, forward: Formula, inverse: Formula, cut: float, **rest: Any) -> Curve:
    """An odd curve whose toe is the chord from 0 to `cut`, for powers with an infinite slope at 0."""
    code_cut = float(forward(np, np.float64(cut)))
    return Curve(name, citation, forward, inverse, cut, (code_cut / cut, 0.0), code_cut, odd=True, **rest)


def gamma(exponent: float, name: str = "", citation: str = "pure power law", cut: float = 1e-14) -> Curve:
    """A pure power, code = linear ** (1 / exponent), odd about 0.

    The chord from 0 to `cut` misses the power by 5e-7 at most (exponent 2.4).
    """
    return _from_zero(
        name or f"gamma{exponent:g}", citation,
        lambda _xp, x: x ** (1.0 / exponent), lambda _xp, y: y**exponent, cut,
    )  # fmt: skip


def _srgb() -> Curve:
    return Curve(
        "srgb", "IEC 61966-2-1:1999, 5.2 (negative light continues the linear toe)",
        lambda _xp, x: 1.055 * x ** (1 / 2.4) - 0.055, lambda _xp, y: ((y + 0.055) / 1.055) ** 2.4,
        cut=0.0031308, toe=(12.92, 0.0), code_cut=0.04045,
    )  # fmt: skip


def pq(white_nits: float = WHITE_NITS_DEFAULT, name: str = "pq") -> Curve:
    """SMPTE ST 2084 with linear 1.0 at `white_nits`; code 1.0 is 10000 nits. Code 0 is linear 0 exactly.

    The source's own code for 0 nits is 7.3e-7; a chord from the origin joins it at 1e-10 nits (code 3.6e-6).
    """
    _positive("white_nits", white_nits)
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    scale = white_nits / 10000.0

    def forward(_xp: Any, x: Any) -> Any:
        power = (x * scale) ** m1
        return ((c1 + c2 * power) / (1.0 + c3 * power)) ** m2

    def inverse(_xp: Any, y: Any) -> Any:
        root = y ** (1.0 / m2)
        return ((root - c1) / (c2 - c3 * root)) ** (1.0 / m1) / scale

    return _from_zero(
        name, "SMPTE ST 2084:2014, 5.1-5.3; Rec. ITU-R BT.2100-2, table 4", forward, inverse,
        cut=1e-14 / scale, top=1e4 / scale, double=True,
    )  # fmt: skip


HLG_PEAK_NITS = 1000.0
HLG_GAMMA = 1.2
_HLG_A, _HLG_B, _HLG_C = 0.17883277, 0.28466892, 0.55991073


def _hlg_oetf(xp: Any, signal: Any) -> Any:
    dark = signal <= 1.0 / 12.0
    logarithm = xp.log(12.0 * xp.where(dark, 1.0, signal) - _HLG_B)
    return xp.where(dark, (3.0 * signal) ** 0.5, _HLG_A * logarithm + _HLG_C)


def _hlg_oetf_inverse(xp: Any, code: Any) -> Any:
    dark = code <= 0.5
    bright = (xp.exp((xp.where(dark, 1.0, code) - _HLG_C) / _HLG_A) + _HLG_B) / 12.0
    return xp.where(dark, code * code / 3.0, bright)


def hlg_white_signal(white_nits: float) -> float:
    """Scene signal E of a neutral that the 1000 nit display (system gamma 1.2) shows at `white_nits`."""
    _positive("white_nits", white_nits)
    return (white_nits / HLG_PEAK_NITS) ** (1.0 / HLG_GAMMA)


def hlg(white_nits: float = WHITE_NITS_DEFAULT, name: str = "hlg") -> Curve:
    """The HLG OETF, scene-referred, with linear 1.0 where a 1000 nit display shows it at `white_nits`.

    At 203 nits diffuse white is code 0.75 (BT.2408). The display's OOTF mixes channels and is no curve: see
    `hlg_display`.
    """
    scale = hlg_white_signal(white_nits)
    return _from_zero(
        name, "Rec. ITU-R BT.2100-2, table 5 (OETF); ARIB STD-B67",
        lambda xp, x: _hlg_oetf(xp, x * scale), lambda xp, y: _hlg_oetf_inverse(xp, y) / scale,
        cut=1e-13, top=1e6,
    )  # fmt: skip


def _logc3() -> Curve:
    cut, a, b, c, d, e, f = 0.010591, 5.555556, 0.052272, 0.247190, 0.385537, 5.367655, 0.092809
    return Curve(
        "logc3", "ARRI, ALEXA Log C Curve - Usage in VFX (2017), LogC V3 EI 800, normalised sensor signal",
        lambda xp, x: c * xp.log10(a * x + b) + d, lambda _xp, y: (10.0 ** ((y - d) / c) - b) / a,
        cut=cut, toe=(e, f), code_cut=e * cut + f,
    )  # fmt: skip


def _logc4() -> Curve:
    a, b, c = (2.0**18 - 16.0) / 117.45, (1023.0 - 95.0) / 1023.0, 95.0 / 1023.0
    s = (7.0 * math.log(2.0) * 2.0 ** (7.0 - 14.0 * c / b)) / (a * b)
    t = (2.0 ** (14.0 * (-c / b) + 6.0) - 64.0) / a
    return Curve(
        "logc4", "ARRI, LogC4 Logarithmic Color Space Specification (2022), 3",
        lambda xp, x: (xp.log2(a * x + 64.0) - 6.0) / 14.0 * b + c,
        lambda _xp, y: (2.0 ** (14.0 * (y - c) / b + 6.0) - 64.0) / a,
        cut=t, toe=(1.0 / s, -t / s), code_cut=0.0,
    )  # fmt: skip


def _acescct() -> Curve:
    return Curve(
        "acescct", "AMPAS S-2016-001, ACEScct, 4.4 (no clamp at 65504)",
        lambda xp, x: (xp.log2(x) + 9.72) / 17.52, lambda _xp, y: 2.0 ** (17.52 * y - 9.72),
        cut=0.0078125, toe=(10.5402377416545, 0.0729055341958355), code_cut=0.155251141552511,
    )  # fmt: skip


def mulaw(mu: float = 5000.0, name: str = "mulaw") -> Curve:
    """Code = log(1 + mu x) / log(1 + mu), odd about 0. mu = 5000 is the tonemapped domain of HDR metrics."""
    _positive("mu", mu)
    scale = math.log1p(mu)
    return Curve(
        name, "Kalantari and Ramamoorthi, Deep HDR Imaging of Dynamic Scenes (2017), eq. 5",
        lambda xp, x: xp.log1p(mu * x) / scale, lambda xp, y: xp.expm1(y * scale) / mu,
        cut=0.0, toe=(mu / scale, 0.0), code_cut=0.0, odd=True,
    )  # fmt: skip


PU21_BANDING_GLARE = (
    0.353487901,
    0.3734658629,
    8.277049286e-05,
    0.9062562627,
    0.09150303166,
    0.9099517204,
    596.3148142,
)


def _pu21() -> Curve:
    p1, p2, p3, p4, p5, p6, p7 = PU21_BANDING_GLARE

    def forward(_xp: Any, nits: Any) -> Any:
        power = nits**p4
        return p7 * (((p1 + p2 * power) / (1.0 + p3 * power)) ** p5 - p6)

    def inverse(_xp: Any, code: Any) -> Any:
        root = (code / p7 + p6) ** (1.0 / p5)
        return ((root - p1) / (p2 - p3 * root)) ** (1.0 / p4)

    cut = 0.005
    code_cut, slope = float(forward(np, np.float64(cut))), slope_at(forward, cut)
    return Curve(
        "pu21", "Mantiuk and Azimi, PU21 (PCS 2021), banding_glare, fitted to 0.005..10000 nits",
        forward, inverse, cut=cut, toe=(slope, code_cut - slope * cut), code_cut=code_cut,
        top=1e8, double=True, unit="nits",
    )  # fmt: skip


def _positive(name: str, value: float) -> None:
    if not 0.0 < value < math.inf:
        raise BadParameter(f"{name} must be a finite number above 0, got {value!r}")


CURVES: Mapping[str, Curve] = MappingProxyType(
    {
        curve.name: curve
        for curve in (
            _srgb(),
            gamma(2.4, "rec1886", "Rec. ITU-R BT.1886 (2011), annex 1, black level 0, white level 1"),
            pq(),
            pq(WHITE_NITS_BT2408, "pq203"),
            hlg(),
            hlg(WHITE_NITS_BT2408, "hlg203"),
            _logc3(),
            _logc4(),
            _acescct(),
            mulaw(),
            _pu21(),
        )
    }
)
