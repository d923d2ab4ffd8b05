"""What a result is made from and by, as one key that client and worker compute alike.

It owns the hash of an input's pixels, an input's identity and the form of the key; node, path, host and device are
never in them. It must not know packs beyond digest and revision, nor files, sockets or pixels' values.
"""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any, Dict, List, Sequence, Tuple, Union

from nuke_hdrgen.wire.errors import BadInput
from nuke_hdrgen.wire.messages import Colourspace, Frame, Open

Body = Union[bytes, bytearray, memoryview]

_MAGIC = 20000630
_MULTI_PART = 0x1000
_VERSION = struct.Struct("<II")
_SIZE = struct.Struct("<I")
_OFFSET = struct.Struct("<Q")
_BOX = struct.Struct("<4i")
_WINDOWS = (b"dataWindow", b"displayWindow")


def input_hash(picture: Frame, body: Body) -> str:
    """sha256 of a raw buffer, or of an EXR's chunks: header and offset table say who wrote the file, not what it
    shows (layout: "OpenEXR File Layout", openexr.com). Raises BadInput for an `exr` body that is none.
    """
    view = memoryview(body)
    return _sha256(view[exr_chunks_at(view) if picture.format == "exr" else 0 :])


def exr_chunks_at(body: Body) -> int:
    """Where the first chunk of an EXR starts, which is what its offset table says first. Raises BadInput."""
    return _exr_layout(memoryview(body))[0]


def input_identity(picture: Frame, body: Body) -> str:
    """What one input shows and means: sha256 of its `input_hash`, EV, colourspace (interop id, else chromaticities;
    range), sample format, shape, channels and, for an EXR, its windows.

    The colourspace's name, the frame's number and its place in the job are not in it. Raises BadInput as `input_hash`.
    """
    view = memoryview(body)
    at, windows = _exr_layout(view) if picture.format == "exr" else (0, [])
    return _digest(
        {
            "pixels": _sha256(view[at:]),
            "ev": float(picture.ev) + 0.0,  # -0.0 is 0.0
            "colourspace": _meaning(picture.colourspace),
            "format": picture.format,
            "shape": list(picture.shape),
            "channels": list(picture.channels),
            "windows": windows,
        }
    )


def result_key(
    request: Open, digest: str, revision: int, output: Colourspace, inputs: Sequence[str], index: int
) -> str:
    """sha256 of canonical JSON of all that decides the pixels of one result.

    `request.parameters` are those that the client gave, without the pack's defaults; `digest` and `revision` are the
    pack's; `inputs` the `input_identity` of each frame that the result is made from, in order; `index` says which of
    the results for these inputs it is: 0 where each frame or bracket makes one.
    """
    return _digest(
        {
            "operation": request.operation,
            "pack": digest,
            "revision": revision,
            "parameters": {name: str(value) for name, value in request.parameters.items()},
            "quality": request.quality,
            "seed": request.seed,
            "aovs": request.aovs,
            "output": _meaning(output),
            "inputs": list(inputs),
            "index": index,
        }
    )


def _meaning(space: Colourspace) -> List[object]:
    primaries = space.interop_id or [float(value) + 0.0 for value in space.chromaticities or ()]
    return [primaries, space.range]


def _digest(identity: Dict[str, Any]) -> str:
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _sha256(view: memoryview) -> str:
    return hashlib.sha256(view).hexdigest()


def _exr_layout(body: memoryview) -> Tuple[int, List[List[int]]]:
    """Where the chunks start, and every part's data and display window (x min, y min, x max, y max)."""
    windows: List[List[int]] = []
    try:
        magic, version = _VERSION.unpack_from(body, 0)
        if magic != _MAGIC:
            raise BadInput("the frame is no EXR file; send an EXR, or say that it is raw")
        at = _end_of_header(body, _VERSION.size, windows)
        if version & _MULTI_PART:
            while body[at] != 0:
                at = _end_of_header(body, at, windows)
            at += 1
        (offset,) = _OFFSET.unpack_from(body, at)
    except (struct.error, IndexError) as error:
        raise BadInput("the EXR ends inside its header; export the frame again") from error
    if not at < offset <= len(body):
        raise BadInput("the EXR's offset table is broken; export the frame again")
    return offset, windows


def _end_of_header(body: memoryview, at: int, windows: List[List[int]]) -> int:
    while body[at] != 0:
        name, at = _text(body, at)
        _, at = _text(body, at)  # the type
        (size,) = _SIZE.unpack_from(body, at)
        at += _SIZE.size
        if name in _WINDOWS:
            windows.append(list(_BOX.unpack_from(body, at)))
        at += size
    return at + 1


def _text(body: memoryview, at: int) -> Tuple[bytes, int]:
    end = at
    while body[end] != 0:
        end += 1
    return bytes(body[at:end]), end + 1
