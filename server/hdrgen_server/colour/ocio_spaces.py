"""What a name means in an OCIO config: interop id, chromaticities and range.

It owns that resolution. It must not know frames, files of pixels or sockets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from hdrgen_server.colour.interop import INTEROP, linear_id_of
from hdrgen_server.colour.ocio_config import (
    AP0_ROLE,
    OCIO_ERRORS,
    ConfigView,
    apply,
    find_space,
    load_config,
    nearest,
)
from hdrgen_server.colour.primaries import rgb_to_xyz
from hdrgen_server.contracts.frame import Chromaticities, Colourspace
from nuke_hdrgen.wire.errors import BadInput, UnknownColourspace

DEFAULT_ROLE = "scene_linear"

_WHITE_TOLERANCE = 1e-3

# What configs before interop ids call these encoded spaces: names and aliases of the ACES configs v1 to v2.
_LEGACY_IDS: Mapping[str, str] = MappingProxyType(
    {
        "srgb_tx": "srgb_rec709_scene",
        "g22_rec709_tx": "g22_rec709_scene",
        "g18_rec709_tx": "g18_rec709_scene",
        "g24_rec709_tx": "g24_rec709_scene",
        "arri_logc3_ei800": "ocio:arrilogc3_awg3_scene",
        "arri_logc4": "ocio:arrilogc4_awg4_scene",
        "acescct_ap1": "ocio:acescct_ap1_scene",
        "srgb_display": "srgb_rec709_display",
        "rec1886_rec709_display": "g24_rec709_display",
        "rec2100_pq_display": "pq_rec2020_display",
        "rec2100_hlg_display": "hlg_rec2020_display",
    }
)


def resolve(config: ConfigView | None, name: str = DEFAULT_ROLE) -> Colourspace:
    """What `name` means: a space, alias or role of the config, or an interop id (the config loaded if None).

    `name` of the result is the config's own name for the space, or the id where the config has no such space.
    An id and chromaticities are found for encoded spaces that the table knows and for every linear RGB space
    of a config with an interchange role. Raises UnknownColourspace naming the nearest names.
    """
    view = config or load_config()
    space = find_space(view, name or DEFAULT_ROLE)
    if space is not None:
        return _describe(view, space)
    if name in INTEROP:
        return INTEROP[name].colourspace()
    candidates = (*view.spaces(), *view.roles(), *INTEROP, *_aliases(view))
    raise UnknownColourspace(
        f"{view.source} has no colourspace, role or interop id {name!r}; {nearest(name, candidates)}"
    )


def _describe(view: ConfigView, space: Any) -> Colourspace:
    name = space.getName()
    if space.isData():
        return Colourspace(name, "data", None, "data")
    interop_id = space.getInteropID()
    if not interop_id:
        known = [_LEGACY_IDS[alias] for alias in space.getAliases() if alias in _LEGACY_IDS]
        interop_id = known[0] if known else ""
    if interop_id in INTEROP:
        return INTEROP[interop_id].colourspace(name)
    if not _is_linear(view, space):
        return Colourspace(name, interop_id, None, "encoded")
    chromaticities = _measured_chromaticities(view, name)
    found = linear_id_of(chromaticities) if chromaticities and not interop_id else ""
    if found:
        return INTEROP[found].colourspace(name)
    return Colourspace(name, interop_id, chromaticities, "scene_linear")


def _is_linear(view: ConfigView, space: Any) -> bool:
    try:
        return bool(view.config.isColorSpaceLinear(space.getName(), space.getReferenceSpaceType()))
    except OCIO_ERRORS:
        return False


def _measured_chromaticities(view: ConfigView, name: str) -> Chromaticities | None:
    """The xy of a linear space's primaries and white, through the config's ACES interchange role; None
    without one.
    """
    if not view.config.hasRole(AP0_ROLE):
        return None
    primaries = np.concatenate([np.eye(3), np.ones((1, 3))]).astype(np.float32)
    try:
        apply(view, primaries, name, AP0_ROLE)
    except BadInput:
        return None
    xyz = primaries.astype(np.float64) @ rgb_to_xyz("ap0").T
    total = xyz.sum(axis=1)
    if not np.isfinite(xyz).all() or (np.abs(total) < 1e-9).any() or abs(float(xyz[3, 1]) - 1.0) > _WHITE_TOLERANCE:
        return None
    red, green, blue, white = ((float(row[0] / t), float(row[1] / t)) for row, t in zip(xyz, total, strict=True))
    return (*red, *green, *blue, *white)


def _aliases(view: ConfigView) -> Iterable[str]:
    for name in view.spaces():
        yield from view.config.getColorSpace(name).getAliases()
