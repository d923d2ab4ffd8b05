"""Where a bake's results lie: a folder for each node and each set of parameters, so that nothing is ever overwritten.

It owns `params8` and the result path. It must not know Nuke, files or the wire.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Mapping

from nuke_hdrgen.wire.errors import BadParameter

RESULT_NAME = "out.####.exr"
_PARAMS_DIGITS = 8
_BAKE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def params8(scripts: Mapping[str, str]) -> str:
    """Eight hexadecimal digits of the sha256 of knob scripts by knob name: animation counts, order does not."""
    canonical = json.dumps(dict(scripts), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:_PARAMS_DIGITS]


def result_pattern(cache_root: str, bake_id: str, scripts: Mapping[str, str]) -> str:
    """`<cache_root>/<bake_id>/<params8>/out.####.exr`, with forward slashes as Nuke's file knobs want them.

    Raises BadParameter without a cache root, or for a bake id that is no plain name.
    """
    if not cache_root.strip():
        raise BadParameter("cache_root is empty; name the folder that bakes are kept in")
    if not _BAKE_ID.fullmatch(bake_id):
        raise BadParameter(
            f"bake_id {bake_id[:64]!r} needs 1 to 64 letters, digits, - or _; clear it to draw a new one"
        )
    root = cache_root.replace("\\", "/").rstrip("/")
    return "/".join((root, bake_id, params8(scripts), RESULT_NAME))


def frame_path(pattern: str, number: int) -> str:
    """The file of one frame: `####` becomes the number with at least four digits, a minus sign among them."""
    return pattern.replace("####", f"{number:04d}")
