"""The licence gate: a pack whose licence must be accepted is not used before someone did.

It owns the record of what this user accepted and the site's list from the settings. It must not know torch or
sockets.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hdrgen_server.packs.manifest import Pack
from hdrgen_server.settings import Settings
from nuke_hdrgen.wire.errors import LicenceNotAccepted, StorageError


def record_path(settings: Settings) -> Path:
    """The file that holds what this user accepted."""
    return settings.data_folder / "accepted.json"


def accepted(pack: Pack, settings: Settings) -> bool:
    """Whether the pack may be used: it asks for nothing, the site accepted it, or this user did; not its base.

    A user's acceptance holds for the licence that was read: a pack that changes its licence asks again.
    """
    if not pack.must_accept or {pack.name, pack.licence} & set(settings.accept_licences):
        return True
    return _read(settings).get(pack.name, {}).get("licence") == pack.licence


def require(pack: Pack, settings: Settings) -> None:
    """Raises LicenceNotAccepted, saying how to accept, unless the pack and its base are `accepted`."""
    if pack.base is not None:
        require(pack.base, settings)
    if not accepted(pack, settings):
        url = f" ({pack.licence_url})" if pack.licence_url else ""
        raise LicenceNotAccepted(
            f"pack {pack.name} is under {pack.licence}{url}, not accepted here; read it, then run "
            f"`hdrgen packs accept {pack.name}`",
            pack=pack.name,
            licence=pack.licence,
        )


def accept(pack: Pack, settings: Settings) -> None:
    """Record that this user accepts the pack's licence. Raises StorageError when it cannot be written."""
    path = record_path(settings)
    entry = {
        "licence": pack.licence,
        "digest": pack.digest,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    text = json.dumps({**_read(settings), pack.name: entry}, indent=2, sort_keys=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text + "\n", encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise StorageError(f"{path} cannot be written: {error.strerror}; make its folder writable") from error


def _read(settings: Settings) -> dict[str, Any]:
    path = record_path(settings)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StorageError(f"{path} cannot be read: {error}; correct or remove it and accept again") from error
    if not isinstance(record, dict) or not all(isinstance(entry, dict) for entry in record.values()):
        raise StorageError(f"{path} is not a record of accepted licences; remove it and accept again")
    return record
