"""Where results go: checked before the work, written beside the target and renamed after it.

It owns names, the record that `--json` prints and the sentence that a person reads. It must not know sockets.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hdrgen_server.cli import console
from hdrgen_server.cli.finishing import Finished
from hdrgen_server.cli.inputs import Bracket
from hdrgen_server.cli.jobs import Outcome
from hdrgen_server.contracts.frame import Colourspace
from hdrgen_server.packs.manifest import Pack
from nuke_hdrgen.wire.errors import BadInput, StorageError


@dataclass(frozen=True)
class Target:
    """The files of one result."""

    exr: Path
    preview: Path | None


def plan(output: str, preview: str | None, numbers: Sequence[int]) -> tuple[Target, ...]:
    """The files of each result; `numbers` are the sequence's frames, one for a still.

    Raises BadInput for a name of another type, or of one file for a sequence; StorageError where nothing can be
    written.
    """
    _check_suffix(output, ".exr", "-o")
    if preview is not None:
        _check_suffix(preview, ".png", "--preview")
    targets: list[Target] = []
    for number in numbers:
        exr = _named(output, number, len(numbers))
        picture = None if preview is None else _named(preview, number, len(numbers))
        for path in (exr, picture):
            if path is not None:
                _check_writable(path)
        targets.append(Target(exr, picture))
    return tuple(targets)


def write(target: Target, outcome: Outcome, finished: Finished, bracket: Bracket, space: Colourspace) -> dict[str, Any]:
    """Write the finished bytes, and their preview; returns the record for `--json`. Raises StorageError."""
    from hdrgen_server.image.files import write_beside

    write_beside(target.exr, finished.body)
    if target.preview is not None:
        from hdrgen_server.cli.preview import write_preview

        write_preview(target.exr, target.preview, (-4.0, -2.0, 0.0, 2.0))
    warnings = [*([bracket.warning] if bracket.warning else []), *outcome.warnings, *finished.warnings]
    for warning in warnings:
        console.note(warning)
    return {
        "output": str(target.exr),
        "preview": None if target.preview is None else str(target.preview),
        "inputs": [str(path) for path in bracket.paths],
        "evs": list(bracket.evs),
        "reference": bracket.reference,
        "colourspace": space.name,
        "interop_id": space.interop_id,
        "key": outcome.key,
        "counts": dict(outcome.counts),
        "warnings": warnings,
        "seconds": round(outcome.seconds, 3),
    }


def sentence(result: dict[str, Any], pack: Pack) -> str:
    """What a person reads about one result."""
    what = (
        f"wrote {result['output']} in {result['colourspace']}, pack {pack.name}{' (preview)' if pack.preview else ''}"
    )
    bad = {name: count for name, count in result["counts"].items() if count and name in {"nan", "inf"}}
    replaced = f", replaced {' and '.join(f'{count} {name}' for name, count in bad.items())} samples" if bad else ""
    picture = f", preview {result['preview']}" if result["preview"] else ""
    return f"{what}{replaced}{picture}, {result['seconds']:.1f} s"


def _named(name: str, number: int, count: int) -> Path:
    from hdrgen_server.image.sequence import frame_path, is_pattern

    if is_pattern(name):
        return frame_path(name, number)
    if count > 1:
        raise BadInput(f"{name} names one file for {count} frames; put #### where the frame number goes")
    return Path(name)


def _check_suffix(name: str, suffix: str, option: str) -> None:
    if Path(name).suffix.lower() != suffix:
        raise BadInput(f"{option} {name} is no {suffix} file; results are written as {suffix}")


def _check_writable(path: Path) -> None:
    if path.is_dir():
        raise StorageError(f"cannot write {path}: it is a folder; give a file name")
    if not path.parent.is_dir():
        raise StorageError(f"cannot write {path}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write {path}: the folder is read-only; choose another")
