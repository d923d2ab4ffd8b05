"""The record in a result's header: what it was made from and by.

It owns the names of the `hdrgen/*` attributes. It must not know jobs, slots or sockets, nor how a key is made.
"""

from __future__ import annotations

from collections.abc import Mapping

from hdrgen_server.contracts.descriptor import Value
from hdrgen_server.packs.manifest import Pack
from nuke_hdrgen.wire import messages as m


def record(
    request: m.Open, pack: Pack, key: str, versions: Mapping[str, str], parameters: Mapping[str, Value]
) -> dict[str, str | int | float]:
    """The `hdrgen/*` attributes of a result, by the request's provenance: all, the digests only, or none.

    `parameters` are the resolved ones, the pack's defaults among them.
    """
    if request.provenance == "none":
        return {}
    digests: dict[str, str | int | float] = {"hdrgen/key": key, "hdrgen/pack_digest": pack.digest}
    if request.provenance == "digest":
        return digests
    given = {f"hdrgen/parameter/{name}": str(value) for name, value in parameters.items()}
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
