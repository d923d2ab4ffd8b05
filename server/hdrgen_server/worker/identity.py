"""A result's key: what it was made from and by, independent of node, path, host and device.

It owns the key's form and the hash of an input's pixels. It must not know jobs, slots or sockets.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence

from hdrgen_server.contracts.frame import Colourspace
from hdrgen_server.packs.manifest import Pack
from nuke_hdrgen.wire import messages as m
from nuke_hdrgen.wire.errors import BadInput

_MULTI_PART = 0x1000
_VERSION = struct.Struct("<II")
_SIZE = struct.Struct("<I")
_OFFSET = struct.Struct("<Q")


def input_hash(picture: m.Frame, body: memoryview) -> str:
    """sha256 of a raw buffer, or of an EXR's chunks: header and offset table say who wrote the file, not what it
    shows (layout: "OpenEXR File Layout", openexr.com).
    """
    start = exr_chunks_at(body) if picture.format == "exr" else 0
    return hashlib.sha256(body[start:]).hexdigest()


def exr_chunks_at(body: memoryview) -> int:
    """Where the first chunk of an EXR starts, which is what its offset table says first. Raises BadInput."""
    try:
        magic, version = _VERSION.unpack_from(body, 0)
        if magic != 20000630:
            raise BadInput("the frame is no EXR file; send an EXR, or say that it is raw")
        at = 8
        while True:
            at = _end_of_header(body, at)
            if not version & _MULTI_PART:
                break
            if body[at] == 0:
                at += 1
                break
        (offset,) = _OFFSET.unpack_from(body, at)
    except (struct.error, IndexError) as error:
        raise BadInput("the EXR ends inside its header; export the frame again") from error
    if not at < offset <= len(body):
        raise BadInput("the EXR's offset table is broken; export the frame again")
    return offset


def result_key(
    request: m.Open,
    pack: Pack,
    output: Colourspace,
    inputs: Sequence[str],
    parameters: Mapping[str, object],
    index: int,
) -> str:
    """sha256 of canonical JSON of all that decides the pixels; `inputs` are the hashes of the frame or its window."""
    primaries = output.interop_id or list(output.chromaticities or ())
    identity = {
        "operation": request.operation,
        "pack": pack.digest,
        "revision": pack.revision,
        "parameters": {name: str(value) for name, value in sorted(parameters.items())},
        "quality": request.quality,
        "seed": request.seed,
        "primaries": primaries,
        "inputs": list(inputs),
    } | ({} if inputs else {"index": index})
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def record(request: m.Open, pack: Pack, key: str, versions: Mapping[str, str]) -> dict[str, str | int | float]:
    """The `hdrgen/*` attributes of a result, by the request's provenance: all, the digests only, or none."""
    if request.provenance == "none":
        return {}
    digests: dict[str, str | int | float] = {"hdrgen/key": key, "hdrgen/pack_digest": pack.digest}
    if request.provenance == "digest":
        return digests
    given = {f"hdrgen/parameter/{name}": str(value) for name, value in request.parameters.items()}
    made = {f"hdrgen/version/{name}": text for name, text in versions.items()}
    extra = {f"hdrgen/{name}": str(value) for name, value in request.attributes.items()}
    main = {
        "hdrgen/operation": request.operation,
        "hdrgen/pack": pack.name,
        "hdrgen/revision": pack.revision,
        "hdrgen/quality": request.quality,
        "hdrgen/seed": str(request.seed),
    }
    return {**extra, **given, **made, **main, **digests}


def _end_of_header(body: memoryview, at: int) -> int:
    while body[at] != 0:
        for _ in range(2):  # attribute name, then type name
            while body[at] != 0:
                at += 1
            at += 1
        (size,) = _SIZE.unpack_from(body, at)
        at += _SIZE.size + size
    return at + 1
