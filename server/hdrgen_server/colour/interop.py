"""Color Interop Forum ids: what each means as primaries, transfer and range.

It owns one table. It must not know OCIO, frames' pixels or files. Ids follow the Color Interop Forum's "Color
Space Encodings for Texture Assets and CG Rendering" and "Interop IDs"; those with `ocio:` are the OCIO
project's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol, TypeVar

from hdrgen_server.colour.curves import CURVES, WHITE_NITS_DEFAULT, Curve, gamma, pq
from hdrgen_server.colour.hlg_display import HlgDisplay
from hdrgen_server.colour.primaries import CHROMATICITIES, rgb_to_rgb, same_chromaticities
from hdrgen_server.contracts.frame import Chromaticities, Colourspace, Range
from nuke_hdrgen.wire.errors import UnknownColourspace

Array = TypeVar("Array")


class Transfer(Protocol):
    """A curve, or HLG with its OOTF: linear light (..., 3) with diffuse white at 1.0 to codes and back."""

    def encode(self, linear: Array) -> Array:
        """Linear light to codes."""
        ...

    def decode(self, code: Array) -> Array:
        """Codes to linear light."""
        ...


@dataclass(frozen=True)
class InteropSpace:
    """One id: name in CHROMATICITIES ("" for data), transfer (None when linear or data), and range."""

    interop_id: str
    primaries: str
    transfer: Transfer | None
    range: Range

    @property
    def chromaticities(self) -> Chromaticities | None:
        """The eight xy, None for data."""
        return CHROMATICITIES[self.primaries] if self.primaries else None

    def colourspace(self, name: str = "") -> Colourspace:
        """What a frame in this space carries; `name` is what the user's config calls it, else the id."""
        return Colourspace(name or self.interop_id, self.interop_id, self.chromaticities, self.range)


def _linear(*rows: tuple[str, str]) -> Iterable[InteropSpace]:
    return (InteropSpace(interop_id, primaries, None, "scene_linear") for interop_id, primaries in rows)


def _encoded(*rows: tuple[str, str, Transfer]) -> Iterable[InteropSpace]:
    return (InteropSpace(interop_id, primaries, curve, "encoded") for interop_id, primaries, curve in rows)


_SRGB = CURVES["srgb"]
_SRGB_MIRRORED: Curve = replace(_SRGB, odd=True)
_G24 = CURVES["rec1886"]

INTEROP: Mapping[str, InteropSpace] = MappingProxyType(
    {
        space.interop_id: space
        for space in (
            *_linear(
                ("lin_rec709_scene", "rec709"),
                ("lin_ap1_scene", "ap1"),
                ("lin_ap0_scene", "ap0"),
                ("lin_rec2020_scene", "rec2020"),
                ("lin_p3d65_scene", "p3d65"),
                ("lin_adobergb_scene", "adobergb"),
                ("ocio:lin_awg3_scene", "awg3"),
                ("ocio:lin_awg4_scene", "awg4"),
            ),
            *_encoded(
                ("srgb_rec709_scene", "rec709", _SRGB),
                ("srgb_ap1_scene", "ap1", _SRGB),
                ("srgb_p3d65_scene", "p3d65", _SRGB),
                ("g18_rec709_scene", "rec709", gamma(1.8)),
                ("g22_rec709_scene", "rec709", gamma(2.2)),
                ("g24_rec709_scene", "rec709", _G24),
                ("g22_ap1_scene", "ap1", gamma(2.2)),
                ("g22_adobergb_scene", "adobergb", gamma(563 / 256)),
                ("ocio:arrilogc3_awg3_scene", "awg3", CURVES["logc3"]),
                ("ocio:arrilogc4_awg4_scene", "awg4", CURVES["logc4"]),
                ("ocio:acescct_ap1_scene", "ap1", CURVES["acescct"]),
                ("srgb_rec709_display", "rec709", _SRGB_MIRRORED),
                ("srgb_p3d65_display", "p3d65", _SRGB_MIRRORED),
                ("g22_rec709_display", "rec709", gamma(2.2)),
                ("g24_rec709_display", "rec709", _G24),
                ("g26_p3d65_display", "p3d65", gamma(2.6)),
                ("pq_rec2020_display", "rec2020", CURVES["pq"]),
                ("pq_p3d65_display", "p3d65", CURVES["pq"]),
                ("hlg_rec2020_display", "rec2020", HlgDisplay()),
            ),
            InteropSpace("data", "", None, "data"),
        )
    }
)


def colourspace(interop_id: str, name: str = "") -> Colourspace:
    """The Colourspace of an id. Raises UnknownColourspace for an id that is not in the table."""
    if interop_id not in INTEROP:
        raise UnknownColourspace(f"no interop id is called {interop_id!r}; known ids: {', '.join(sorted(INTEROP))}")
    return INTEROP[interop_id].colourspace(name)


def transfer_of(interop_id: str, white_nits: float = WHITE_NITS_DEFAULT) -> Transfer | None:
    """The transfer of a known id, PQ and HLG with diffuse white at `white_nits`; None when linear or data."""
    transfer = INTEROP[interop_id].transfer
    if white_nits == WHITE_NITS_DEFAULT or transfer is None:
        return transfer
    if isinstance(transfer, HlgDisplay):
        return HlgDisplay(white_nits)
    if isinstance(transfer, Curve) and transfer.name == "pq":
        return pq(white_nits)
    return transfer


def linear_id_of(chromaticities: Chromaticities) -> str:
    """The id of the scene-linear space with these primaries, "" when there is none.

    Spaces count as the same when the eight xy agree to 1e-4, or when they differ only by a white that was
    adapted (the matrices to AP0 agree to 1e-5).
    """
    matrix = rgb_to_rgb(chromaticities, "ap0")
    for space in INTEROP.values():
        if space.range == "scene_linear" and space.chromaticities is not None:
            same_matrix = bool((abs(rgb_to_rgb(space.primaries, "ap0") - matrix) < 1e-5).all())
            if same_matrix or same_chromaticities(chromaticities, space.chromaticities):
                return space.interop_id
    return ""
