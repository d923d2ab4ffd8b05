"""Display light to HLG codes and back: the OETF together with the OOTF of the reference display.

It owns the one transfer that mixes channels and is therefore no curve. It must not know frames, OCIO or
files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from hdrgen_server.colour.arrays import as_dtype, to_working
from hdrgen_server.colour.curves import HLG_GAMMA, HLG_PEAK_NITS, WHITE_NITS_DEFAULT, hlg
from hdrgen_server.colour.primaries import luminance_weights

Array = TypeVar("Array")

_DARKEST = 1e-10


@dataclass(frozen=True)
class HlgDisplay:
    """BT.2100 HLG for a 1000 nit display, system gamma 1.2, on linear Rec.2020 (..., 3) with 1.0 at
    `white_nits`.

    Source: Rec. ITU-R BT.2100-2, table 5 (OETF, OOTF). A display luminance below 1e-10 of peak, zero or
    negative is taken as 1e-10 in the OOTF's factor, so that black and negative light stay finite.
    """

    white_nits: float = WHITE_NITS_DEFAULT

    def encode(self, linear: Array) -> Array:
        """Linear display light (..., 3), 1.0 at white, to codes of the same shape and dtype."""
        xp, light, dtype = to_working(linear, double=True)
        shown = light * (self.white_nits / HLG_PEAK_NITS)
        luminance = _luminance(xp, shown, _DARKEST)
        return as_dtype(_OETF.encode(shown * luminance ** (1.0 / HLG_GAMMA - 1.0)), dtype)

    def decode(self, code: Array) -> Array:
        """Codes (..., 3) to linear display light of the same shape and dtype, 1.0 at white."""
        xp, codes, dtype = to_working(code, double=True)
        scene = _OETF.decode(codes)
        luminance = _luminance(xp, scene, _DARKEST ** (1.0 / HLG_GAMMA))
        return as_dtype(scene * luminance ** (HLG_GAMMA - 1.0) * (HLG_PEAK_NITS / self.white_nits), dtype)


def _luminance(xp: Any, rgb: Any, least: float) -> Any:
    red, green, blue = (float(weight) for weight in luminance_weights("rec2020"))
    luminance = red * rgb[..., 0:1] + green * rgb[..., 1:2] + blue * rgb[..., 2:3]
    return xp.where(luminance < least, least, luminance)


_OETF = hlg(HLG_PEAK_NITS)
