"""How long bakes took on this machine, so that the next one can say how long it will take.

It owns a small file of the user's: seconds a megapixel for each operation, pack and quality. It must not know Nuke; a
file that cannot be read or written is done without, for it is only an estimate.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional, cast

FILE_NAME = "timings.json"
NEW_SHARE = 0.5
_FILE_BYTES = 1 << 20


@dataclass(frozen=True)
class Timing:
    """Seconds a megapixel of one result, and the device that took them."""

    seconds_per_megapixel: float
    device: str


def timings_file(environment: Mapping[str, str]) -> str:
    """`$XDG_CACHE_HOME/hdrgen/timings.json`, else below ~/.cache."""
    base = environment.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "hdrgen", FILE_NAME)


def timing(path: str, operation: str, pack: str, quality: str) -> Optional[Timing]:
    """What was measured before, or None."""
    said = _read(path).get(_name(operation, pack, quality))
    if not isinstance(said, dict):
        return None
    entry = cast(Dict[str, object], said)
    seconds, device = entry.get("seconds_per_megapixel"), entry.get("device")
    if not isinstance(seconds, (int, float)) or not isinstance(device, str) or not 0 < seconds < 1e6:
        return None
    return Timing(float(seconds), device)


def remember(path: str, operation: str, pack: str, quality: str, measured: Timing) -> None:
    """Take a measurement in: half of it and half of what was known for the same device."""
    known = timing(path, operation, pack, quality)
    seconds = measured.seconds_per_megapixel
    if known is not None and known.device == measured.device:
        seconds = NEW_SHARE * seconds + (1 - NEW_SHARE) * known.seconds_per_megapixel
    entry = {"seconds_per_megapixel": round(seconds, 6), "device": measured.device}
    text = json.dumps({**_read(path), _name(operation, pack, quality): entry}, indent=1, sort_keys=True)
    part = f"{path}.{os.getpid()}.part"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(part, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(part, path)
    except OSError:
        return


def _read(path: str) -> Dict[str, Any]:
    try:
        with open(path, "rb") as stream:
            said: Any = json.loads(stream.read(_FILE_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return cast(Dict[str, Any], said) if isinstance(said, dict) else {}


def _name(operation: str, pack: str, quality: str) -> str:
    return f"{operation}/{pack or 'default'}/{quality}"
