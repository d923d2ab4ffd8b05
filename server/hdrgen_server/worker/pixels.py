"""Bodies to frames and frames to bodies.

It owns decoding of a slot into a frame in the system's space, and assembling of the final result bytes. It must not
know messages' order, slots' names or systems.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal, cast

import numpy as np

from hdrgen_server.colour.interop import INTEROP
from hdrgen_server.colour.interop import colourspace as interop_colourspace
from hdrgen_server.colour.ocio import convert
from hdrgen_server.colour.sanitise import sanitise
from hdrgen_server.contracts.frame import Chromaticities, Colourspace, Frame
from hdrgen_server.image.exr import encode_exr, read_exr_frame
from nuke_hdrgen.wire import messages as m
from nuke_hdrgen.wire.errors import UnknownColourspace

RAW_DTYPES = {"f16": np.dtype("<f2"), "f32": np.dtype("<f4")}


@dataclass(frozen=True)
class Decoded:
    """A frame ready for an operator, and the counts of what was wrong with it."""

    frame: Frame
    counts: dict[str, int]


def decode(picture: m.Frame, body: memoryview, space: Colourspace | None) -> Decoded:
    """The body of a slot as a sanitised frame in `space`, or in its own where that is None.

    An encoded frame stays encoded, for the system to decode. A clean float32 body is not copied: the frame looks at
    the slot, which the gateway keeps until the result is there.

    The header's colourspace, number and EV win over what an EXR says of itself. NaN and Inf are replaced and counted
    before any matrix. Raises BadInput for what cannot be decoded.
    """
    stated = colourspace_of(picture.colourspace)
    if picture.format == "exr":
        frame = read_exr_frame(bytes(body), name=f"frame {picture.index}")
    else:
        codes = np.frombuffer(body, RAW_DTYPES[picture.format]).reshape(picture.shape)
        frame = Frame(codes.astype(np.float32, copy=False), tuple(picture.channels), stated)
    frame = replace(frame, colourspace=stated, ev=picture.ev, number=picture.number)
    frame, counts = sanitise(frame)
    if space is not None and stated.range == "scene_linear":
        frame = convert(frame, space)
    return Decoded(frame, counts.as_dict())


def encode(
    frame: Frame, request: m.Open, output: Colourspace, attributes: Mapping[str, str | int | float]
) -> tuple[bytes, str, Frame]:
    """The result's final bytes, their format, and the frame in the requested space.

    An EXR carries tags, layers and attributes; a raw body is float32 (H, W, C) of the colour and alpha channels.
    """
    frame = convert(frame, output)
    if request.encoding == "exr":
        return encode_exr(frame, compression=request.compression, attributes=attributes), "exr", frame
    return np.ascontiguousarray(frame.pixels, dtype="<f4").tobytes(), "f32", frame


def colourspace_of(stated: m.Colourspace) -> Colourspace:
    """The wire's colourspace as the contracts' one.

    Raises UnknownColourspace for an interop id that is none, with the nearest ones: a file tagged with it would tell
    nobody anything.
    """
    if stated.interop_id and stated.interop_id not in INTEROP:
        near = ", ".join(get_close_matches(stated.interop_id, INTEROP, 3, 0.3)) or ", ".join(sorted(INTEROP))
        raise UnknownColourspace(f"{stated.interop_id!r} is no interop id; the nearest are {near}")
    return Colourspace(
        stated.name,
        stated.interop_id,
        cast(Chromaticities, stated.chromaticities) if stated.chromaticities else None,
        cast(Literal["scene_linear", "encoded", "data"], stated.range),
    )


def stated(space: Colourspace) -> m.Colourspace:
    """A colourspace as the wire carries it."""
    return m.Colourspace(space.name, space.interop_id, space.chromaticities, space.range)


def system_space(interop_id: str) -> Colourspace | None:
    """The space that a descriptor names by interop id, None for "as given". Raises UnknownColourspace."""
    return interop_colourspace(interop_id) if interop_id else None
