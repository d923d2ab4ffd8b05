"""Where a bake's results lie: a folder for each node and each set of parameters, so that nothing is ever overwritten.

It owns `params8` and result paths in both directions. It must not know Nuke, the wire or what is on disk.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Iterable, Mapping, Tuple

from nuke_hdrgen.wire.errors import BadParameter

RESULT_NAME = "out.####.exr"
RESULT_NAME_OF_VIEWS = "out.%V.####.exr"
FRAME_MARK = "####"
VIEW_MARK = "%V"
_PARAMS_DIGITS = 8
_BAKE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def params8(scripts: Mapping[str, str]) -> str:
    """Eight hexadecimal digits of the sha256 of knob scripts by knob name: animation counts, order does not."""
    canonical = json.dumps(dict(scripts), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:_PARAMS_DIGITS]


def result_pattern(cache_root: str, bake_id: str, scripts: Mapping[str, str], views: int = 1) -> str:
    """`<cache_root>/<bake_id>/<params8>/out.####.exr`, with forward slashes as Nuke's file knobs want them.

    `####` is the frame; with several views `%V` is the view's name. Raises BadParameter without a cache root, or for a
    bake id that is no plain name.
    """
    if not cache_root.strip():
        raise BadParameter("cache_root is empty; save the script, or name the folder that bakes are kept in")
    if not _BAKE_ID.fullmatch(bake_id):
        raise BadParameter(
            f"bake_id {bake_id[:64]!r} needs 1 to 64 letters, digits, - or _; press New bake id to draw one"
        )
    name = RESULT_NAME if views == 1 else RESULT_NAME_OF_VIEWS
    return "/".join((forward(cache_root).rstrip("/"), bake_id, params8(scripts), name))


def frame_path(pattern: str, number: int, view: str = "main") -> str:
    """The file of one frame and view: `####` becomes the number with at least four digits, a minus sign among them."""
    return pattern.replace(VIEW_MARK, view).replace(FRAME_MARK, f"{number:04d}")


def frames_among(names: Iterable[str], pattern: str, views: Iterable[str] = ("main",)) -> Tuple[int, ...]:
    """The frames that a folder's file names hold in every view, sorted; other names are passed over."""
    present = set(names)
    found = [_frames_of(present, pattern.rsplit("/", 1)[-1].replace(VIEW_MARK, view)) for view in views]
    return tuple(sorted(set.intersection(*found))) if found else ()


def forward(path: str) -> str:
    """The path with forward slashes."""
    return path.strip().replace("\\", "/")


def _frames_of(names: Iterable[str], name_pattern: str) -> set[int]:
    head, tail = name_pattern.split(FRAME_MARK)
    number = re.compile(re.escape(head) + r"(-?\d{3,9}|\d{4,9})" + re.escape(tail))
    matches = (number.fullmatch(name) for name in names)
    return {int(match[1]) for match in matches if match is not None and f"{int(match[1]):04d}" == match[1]}
