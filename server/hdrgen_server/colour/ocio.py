"""The door to OCIO and to conversion: `load_config`, `resolve`, and `convert` for a frame.

It owns the choice of the way: the tables of this package where both sides are known to them, an OCIO config
where not. It must not know files of pixels, sockets or models.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hdrgen_server.colour.curves import WHITE_NITS_DEFAULT
from hdrgen_server.colour.interop import INTEROP, Transfer, transfer_of
from hdrgen_server.colour.ocio_config import AP0_ROLE, ConfigView, apply, find_space, load_config, nearest
from hdrgen_server.colour.ocio_spaces import resolve
from hdrgen_server.colour.primaries import CHROMATICITIES, rgb_to_rgb, same_chromaticities
from hdrgen_server.colour.sanitise import colour_channels
from hdrgen_server.contracts.frame import Chromaticities, Colourspace, Frame
from nuke_hdrgen.wire.errors import BadInput, UnknownColourspace

__all__ = ["ConfigView", "convert", "load_config", "resolve"]

_ROWS = 256


@dataclass(frozen=True)
class _Meaning:
    """A space without any config: primaries and transfer (None: linear)."""

    chromaticities: Chromaticities
    transfer: Transfer | None


@dataclass(frozen=True)
class _Side:
    """One end of a conversion: the space as the frame names it, and its meaning where the tables know it."""

    space: Colourspace
    meaning: _Meaning | None


_AP0 = _Meaning(CHROMATICITIES["ap0"], None)


def convert(
    frame: Frame,
    target: Colourspace,
    config: ConfigView | None = None,
    white_nits: float = WHITE_NITS_DEFAULT,
) -> Frame:
    """The frame in `target`: colour converted, alpha, layers, windows and metadata as they are.

    Interop ids and chromaticities are used where both sides have them, so that no config is needed; else
    `config` (loaded by the usual order if None). Colour is straight, 1.0 is diffuse white, and display spaces
    show it at `white_nits` (PQ and HLG). Grey frames are taken as neutral. A frame of range `data`, or one
    that is in `target` already, comes back with the same pixels. Raises BadInput for NaN or Inf (sanitise
    first: a matrix spreads them) and for a data target; UnknownColourspace when a side is known neither here
    nor to the config.
    """
    source = frame.colourspace
    if source.range == "data":
        return frame
    if target.range == "data":
        raise BadInput(f"a colour frame cannot become {target.name!r}, which holds data; name a colour space")
    if _same(source, target):
        return replace(frame, colourspace=target)
    channels = colour_channels(frame)
    if not np.isfinite(frame.pixels[..., :channels]).all():
        raise BadInput(f"frame {frame.number} has NaN or Inf; sanitise it before converting to {target.name!r}")
    rgb = np.ascontiguousarray(frame.rgb, dtype=np.float32)
    if rgb is frame.pixels or np.shares_memory(rgb, frame.pixels):
        rgb = rgb.copy()
    first, second = _side(source, white_nits), _side(target, white_nits)
    if first.meaning is not None and second.meaning is not None:
        _by_tables(rgb, first.meaning, second.meaning)
    else:
        _by_config(rgb, first, second, config or load_config(), white_nits)
    pixels = frame.pixels.copy()
    pixels[..., :channels] = rgb if channels == 3 else rgb[..., 1:2]
    return frame.with_pixels(pixels, colourspace=target)


def _same(source: Colourspace, target: Colourspace) -> bool:
    if source.range != target.range:
        return False
    if source.interop_id or target.interop_id:
        return source.interop_id == target.interop_id
    if source.range == "scene_linear" and source.chromaticities and target.chromaticities:
        return same_chromaticities(source.chromaticities, target.chromaticities)
    return source.name == target.name


def _side(space: Colourspace, white_nits: float) -> _Side:
    if space.interop_id in INTEROP:
        known = INTEROP[space.interop_id]
        if known.chromaticities is not None:
            return _Side(space, _Meaning(known.chromaticities, transfer_of(space.interop_id, white_nits)))
    if space.range == "scene_linear" and space.chromaticities is not None:
        return _Side(space, _Meaning(space.chromaticities, None))
    return _Side(space, None)


def _by_tables(rgb: npt.NDArray[np.float32], source: _Meaning, target: _Meaning) -> None:
    """In place, in float64, some rows at a time so that a large frame needs little besides itself."""
    matrix = rgb_to_rgb(source.chromaticities, target.chromaticities)
    for start in range(0, rgb.shape[0], _ROWS):
        rows = rgb[start : start + _ROWS]
        light: Any = rows.astype(np.float64)
        if source.transfer is not None:
            light = source.transfer.decode(light)
        if source.chromaticities != target.chromaticities:
            light = light @ matrix.T
        rows[...] = light if target.transfer is None else target.transfer.encode(light)


def _by_config(rgb: npt.NDArray[np.float32], source: _Side, target: _Side, view: ConfigView, white_nits: float) -> None:
    """In place; a side that the tables know goes through linear AP0, if the config says where that is."""
    bridged = view.config.hasRole(AP0_ROLE)
    if white_nits != WHITE_NITS_DEFAULT and not bridged:
        raise BadInput(
            f"{view.source} has no {AP0_ROLE} role, so diffuse white can only be at "
            f"{WHITE_NITS_DEFAULT:g} nits; choose another config"
        )
    source_name, target_name = (
        AP0_ROLE if bridged and side.meaning else _name_in(view, side.space) for side in (source, target)
    )
    if source.meaning and bridged:
        _by_tables(rgb, source.meaning, _AP0)
    apply(view, rgb, source_name, target_name)
    if target.meaning and bridged:
        _by_tables(rgb, _AP0, target.meaning)


def _name_in(view: ConfigView, space: Colourspace) -> str:
    """The config's name of the space, found by its name, else by its id."""
    found = find_space(view, space.name) or find_space(view, space.interop_id)
    if found is None:
        raise UnknownColourspace(
            f"{view.source} has no colourspace {space.name!r}; {nearest(space.name, view.spaces())}"
        )
    return found.getName()
