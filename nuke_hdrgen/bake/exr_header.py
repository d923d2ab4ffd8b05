"""Reads an EXR header from bytes with the standard library: size and channels, as frame messages state them, and text.

It owns the few header attributes that it reads (OpenEXR file layout, openexr.com/en/latest/OpenEXRFileLayout.html).
It must not know pixels, files or the wire's messages.
"""

from __future__ import annotations

import struct
from typing import Dict, Optional, Tuple

from nuke_hdrgen.wire.errors import BadInput

MAGIC = b"\x76\x2f\x31\x01"
_MULTI_PART = 0x1000
_DEEP = 0x0800
_CHANNEL_TAIL = 16  # pixel type, pLinear and three reserved bytes, x and y sampling

Shape = Tuple[int, int, int]


def exr_shape(data: bytes, name: str) -> Tuple[Shape, Tuple[str, ...]]:
    """((height, width, channels), channel names) of the data window of a single-part scanline or tiled EXR.

    `name` says in an error which file it was. Raises BadInput when it is no such EXR or its header is cut short.
    """
    if data[:4] != MAGIC or len(data) < 8:
        raise BadInput(f"{name} is no EXR file; check that the disk is not full and bake again")
    flags = struct.unpack_from("<I", data, 4)[0]
    if flags & (_MULTI_PART | _DEEP):
        raise BadInput(f"{name} is a multi-part or deep EXR; set the Write to one part")
    try:
        attributes = _attributes(data)
        left, top, right, bottom = struct.unpack("<4i", attributes["dataWindow"])
        channels = _channels(attributes["channels"])
    except (KeyError, ValueError, struct.error, UnicodeDecodeError) as error:
        raise BadInput(f"the header of {name} is damaged or cut short; bake again") from error
    return (bottom - top + 1, right - left + 1, len(channels)), channels


def exr_text(data: bytes, attribute: str) -> Optional[str]:
    """The text of a header attribute, None where the header has none; `data` is the file's beginning.

    Raises ValueError when the header is damaged or not whole in `data`.
    """
    if data[:4] != MAGIC:
        raise ValueError("no EXR file")
    try:
        value = _attributes(data).get(attribute)
        return None if value is None else value.decode("utf-8")
    except struct.error as error:
        raise ValueError("the header is cut short") from error


def _attributes(data: bytes) -> Dict[str, bytes]:
    attributes: Dict[str, bytes] = {}
    at = 8
    while data[at : at + 1] != b"\0":
        name, at = _text(data, at)
        _, at = _text(data, at)
        (size,) = struct.unpack_from("<i", data, at)
        at += 4
        if size < 0 or at + size > len(data):
            raise ValueError(name)
        attributes[name] = data[at : at + size]
        at += size
    return attributes


def _channels(value: bytes) -> Tuple[str, ...]:
    names: Tuple[str, ...] = ()
    at = 0
    while value[at : at + 1] != b"\0":
        name, at = _text(value, at)
        names += (name,)
        at += _CHANNEL_TAIL
    return names


def _text(data: bytes, at: int) -> Tuple[str, int]:
    """The NUL-terminated text at `at`, and where the next thing starts. Raises ValueError when there is no NUL."""
    end = data.index(b"\0", at)
    return data[at:end].decode("utf-8"), end + 1
