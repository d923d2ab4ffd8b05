"""Reads the colour tag of an EXR header into a Colourspace and writes a Colourspace as header attributes.

It owns the order of trust: `colorInteropID`, else `chromaticities`, else what the caller says. It must not
know OCIO configs or pixels. The attribute and its ids: Color Interop Forum, "Color space identifiers for
textures and renders"; OpenEXR standard attribute since 3.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import OpenEXR

from hdrgen_server.colour.interop import INTEROP
from hdrgen_server.contracts.frame import Chromaticities, Colourspace
from nuke_hdrgen.wire.errors import BadInput

LIN_REC709_SCENE = Colourspace(
    "lin_rec709_scene", "lin_rec709_scene", (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290)
)
SRGB_REC709_SCENE = Colourspace("srgb_rec709_scene", "srgb_rec709_scene", LIN_REC709_SCENE.chromaticities, "encoded")
UNTAGGED_IDS = ("", "unknown")


def of_interop_id(interop_id: str) -> Colourspace:
    """The colourspace of an interop id; of an unknown one only the range is told: `lin_…` is scene-linear."""
    if interop_id in INTEROP:
        return INTEROP[interop_id].colourspace()
    linear = interop_id.rsplit(":", 1)[-1].startswith("lin_")
    return Colourspace(interop_id, interop_id, None, "scene_linear" if linear else "encoded")


def read_tag(header: Mapping[str, Any], default: Colourspace) -> tuple[Colourspace, str]:
    """The colourspace of a part and where it was found: `colorInteropID`, `chromaticities` or `assumed`."""
    interop_id = header.get("colorInteropID")
    stated = _stated_chromaticities(header)
    if isinstance(interop_id, str) and interop_id not in UNTAGGED_IDS:
        tagged = of_interop_id(interop_id)
        return replace(tagged, chromaticities=tagged.chromaticities or stated), "colorInteropID"
    if stated is not None:
        found = str(OpenEXR.chromaticitiesToColorInteropID(stated) or "")
        return Colourspace(found or "chromaticities", found, stated, "scene_linear"), "chromaticities"
    return default, "assumed"


def write_tag(colourspace: Colourspace) -> dict[str, Any]:
    """Header attributes for a colourspace: `colorInteropID` and `chromaticities`, each where known.

    Raises BadInput when the two contradict each other (OpenEXR's own check): such a file would lie to one
    reader.
    """
    attributes: dict[str, Any] = {}
    if colourspace.interop_id:
        attributes["colorInteropID"] = colourspace.interop_id
    chromaticities = colourspace.chromaticities or of_interop_id(colourspace.interop_id).chromaticities
    if chromaticities is not None and colourspace.range != "data":
        attributes["chromaticities"] = tuple(float(value) for value in chromaticities)
    warnings = OpenEXR.checkColorMetadata(attributes)
    if int(warnings) & int(OpenEXR.CHROMATICITIES_DIFFER):
        raise BadInput(
            f"colourspace {colourspace.name!r} says {colourspace.interop_id} but has other chromaticities; "
            "give one of the two"
        )
    return attributes


def _stated_chromaticities(header: Mapping[str, Any]) -> Chromaticities | None:
    stated = header.get("chromaticities")
    if not isinstance(stated, tuple) or len(stated) != 8:
        return None
    rounded = _rounded(cast("tuple[float, ...]", stated))
    return rounded if all(abs(value) < 1e3 for value in rounded) else None


def _rounded(values: tuple[float, ...]) -> Chromaticities:
    return cast("Chromaticities", tuple(round(float(value), 5) for value in values))
