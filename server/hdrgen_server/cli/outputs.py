"""Where results go: checked before the work, written beside the target and renamed after it.

It owns names, the record that `--json` prints and the sentence that a person reads. It must not know sockets.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hdrgen_server.cli import console, gainmaps
from hdrgen_server.cli.finishing import Finished
from hdrgen_server.cli.gainmaps import GainFiles
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
    gain: GainFiles = GainFiles()


@dataclass(frozen=True)
class Names:
    """What the options call the files, None for what is not asked for."""

    exr: str
    preview: str | None = None
    gainmap: str | None = None
    gainmap_jpeg: str | None = None


def plan(names: Names, numbers: Sequence[int]) -> tuple[Target, ...]:
    """The files of each result; `numbers` are the sequence's frames, one for a still.

    Raises BadInput for a name of another type, or of one file for a sequence; StorageError where nothing can be
    written.
    """
    _check_suffix(names.exr, "-o", ".exr")
    for name, option, suffixes in (
        (names.preview, "--preview", (".png",)),
        (names.gainmap, "--gainmap", (".png",)),
        (names.gainmap_jpeg, "--gainmap-jpeg", (".jpg", ".jpeg")),
    ):
        if name is not None:
            _check_suffix(name, option, *suffixes)
    targets: list[Target] = []
    for number in numbers:
        exr = _named(names.exr, number, len(numbers))
        preview, png, jpeg = (
            None if name is None else _named(name, number, len(numbers))
            for name in (names.preview, names.gainmap, names.gainmap_jpeg)
        )
        given = [path for path in (exr, preview, png, jpeg) if path is not None]
        for path in given:
            check_writable(path)
            if given.count(path) > 1:
                raise BadInput(f"{path} is named for two of the files; give each its own name")
        targets.append(Target(exr, preview, GainFiles(png, jpeg)))
    return tuple(targets)


def spare(targets: Sequence[Target], inputs: Sequence[Path]) -> None:
    """Raises BadInput when a file that will be written is one of the inputs."""
    read = {path.resolve() for path in inputs}
    for target in targets:
        for path in (target.exr, target.preview, target.gain.png, target.gain.jpeg):
            if path is not None and path.resolve() in read:
                raise BadInput(f"{path} is an input; give the result another name")


def write(target: Target, outcome: Outcome, finished: Finished, bracket: Bracket, space: Colourspace) -> dict[str, Any]:
    """Write the finished bytes, and their preview; returns the record for `--json`. Raises StorageError."""
    from hdrgen_server.image.files import write_beside

    write_beside(target.exr, finished.body)
    if target.preview is not None:
        from hdrgen_server.cli.preview import write_preview

        write_preview(target.exr, target.preview, (-4.0, -2.0, 0.0, 2.0))
    gain = gainmaps.write(target.gain, finished.body, bracket, space)
    warnings = [*([bracket.warning] if bracket.warning else []), *outcome.warnings, *finished.warnings]
    warnings += gainmaps.warnings(gain)
    for warning in warnings:
        console.note(warning)
    return {
        "output": str(target.exr),
        "preview": None if target.preview is None else str(target.preview),
        "gainmap": gain or None,
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
    gain = result["gainmap"] or {}
    picture += "".join(f", gain map {gain[kind]}" for kind in ("png", "jpeg") if gain.get(kind))
    return f"{what}{replaced}{picture}, {result['seconds']:.1f} s"


def _named(name: str, number: int, count: int) -> Path:
    from hdrgen_server.image.sequence import frame_path, is_pattern

    if is_pattern(name):
        return frame_path(name, number)
    if count > 1:
        raise BadInput(f"{name} names one file for {count} frames; put #### where the frame number goes")
    return Path(name)


def _check_suffix(name: str, option: str, *suffixes: str) -> None:
    if Path(name).suffix.lower() not in suffixes:
        raise BadInput(f"{option} {name} is no {suffixes[0]} file; it is written as {suffixes[0]}")


def check_writable(path: Path) -> None:
    """Raises StorageError when a file cannot be written there."""
    if path.is_dir():
        raise StorageError(f"cannot write {path}: it is a folder; give a file name")
    if not path.parent.is_dir():
        raise StorageError(f"cannot write {path}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write {path}: the folder is read-only; choose another")
