"""`hdrgen cache`: list the bakes of a cache folder, and prune those that nobody needs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from fileseq import framesToFrameRange

from hdrgen_server.cli import console
from hdrgen_server.cli.cache_prune import Criteria, Removal, choose, freed, parse_age, remove
from hdrgen_server.cli.cache_scan import Bake, References, Stored, occupied, record, references, scan
from nuke_hdrgen.wire.errors import BadParameter

Json = Annotated[bool, typer.Option("--json", help="Print one machine-readable object.")]
Roots = Annotated[list[Path], typer.Argument(metavar="ROOT", help="Cache folders: the nodes' cache_root.")]
Scripts = Annotated[
    list[Path] | None,
    typer.Option(
        "--scripts", metavar="FOLDER", help="Search its .nk and .gizmo files, and their backups; may be repeated."
    ),
]

app = typer.Typer(help="Bakes on disk: list and prune them.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_bakes(roots: Roots, scripts: Scripts = None, as_json: Json = False) -> None:
    """List what is baked: frames, size, newest time, what made it and, with --scripts, who reads it."""
    bakes = _bakes(roots)
    found = references(scripts) if scripts else None
    described: list[dict[str, Any]] = [_described(bake) | record(bake) | _references(bake, found) for bake in bakes]
    if as_json:
        console.emit_json({"bakes": described, "bytes": occupied(_files(bakes))})
        return
    heading = ("bake", "frames", "size", "newest", "operation", "pack", "seed")
    rows: list[tuple[str, ...]] = [heading if found is None else (*heading, "scripts")]
    for bake, told in zip(bakes, described, strict=True):
        made = tuple(told.get(name, "-") for name in ("operation", "pack", "seed"))
        row = (_name(bake), told["frames"] or "-", _size(bake.bytes), told["newest"], *made)
        rows.append(row if found is None else (*row, _said(told)))
    console.table(rows)
    for bake, told in zip(bakes, described, strict=True):
        if "problem" in told:
            console.note(told["problem"])
        if bake.leftovers:
            console.note(
                f"{bake.folder} holds {len(bake.leftovers)} files of killed renders; `cache prune` removes them"
            )
    console.answer(f"bakes: {len(bakes)}, {_size(occupied(_files(bakes)))}")


@app.command()
def prune(
    roots: Roots,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="Whose newest file is older: 12h, 30d or 8w.")
    ] = None,
    unreferenced: Annotated[
        bool, typer.Option("--unreferenced", help="Whose bake id no script of --scripts names.")
    ] = False,
    scripts: Scripts = None,
    recent: Annotated[
        bool, typer.Option("--recent", help="Also what changed within the last hour; somebody may be baking it.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove; without it, only say what would go.")] = False,
    as_json: Json = False,
) -> None:
    """Remove bakes that fulfil every criterion given, and old files of killed renders. Says first; --yes removes.

    Only files of bakes are touched, links are not followed. A script outside --scripts is not seen.
    """
    if unreferenced != bool(scripts):
        raise BadParameter("--unreferenced and --scripts FOLDER go together: name where every script lies")
    age = None if older_than is None else parse_age(older_than)
    criteria = Criteria(age, references(scripts) if scripts else None, recent)
    bakes = _bakes(roots)
    removals = choose(bakes, criteria, time.time())
    count, given_back = remove(removals) if yes else (sum(len(r.files) for r in removals), freed(removals))
    if as_json:
        rows = [_described(removal.bake) | {"whole": removal.whole} for removal in removals]
        console.emit_json({"removed": yes, "bakes": rows, "files": count, "bytes": given_back})
        return
    for removal in removals:
        console.answer(_sentence(removal, yes=yes))
    kept = len(bakes) - sum(removal.whole for removal in removals)
    if not removals:
        console.answer(f"nothing to remove; bakes that stay: {kept}")
        return
    total = f"{count} files, {_size(given_back)}; bakes that stay: {kept}"
    console.answer(f"removed {total}" if yes else f"would remove {total}; run it again with --yes to do so")


def _bakes(roots: list[Path]) -> list[Bake]:
    """The bakes of every root once, however often it is named."""
    return [bake for root in dict.fromkeys(root.resolve() for root in roots) for bake in scan(root)]


def _files(bakes: list[Bake]) -> list[Stored]:
    return [stored for bake in bakes for stored in (*bake.results, *bake.leftovers)]


def _described(bake: Bake) -> dict[str, Any]:
    return {
        "root": str(bake.root),
        "bake_id": bake.bake_id,
        "params": bake.params,
        "frames": framesToFrameRange(list(bake.frames), sort=True, compress=False) if bake.frames else "",
        "views": list(bake.views),
        "files": len(bake.results),
        "leftovers": len(bake.leftovers),
        "others": bake.others,
        "bytes": bake.bytes,
        "newest": time.strftime("%Y-%m-%d %H:%M", time.localtime(bake.changed)),
    }


def _references(bake: Bake, found: References | None) -> dict[str, list[str]]:
    if found is None:
        return {}
    return {"scripts": [str(path) for path in found.of(bake)], "scripts_of_id": [str(p) for p in found.of_id(bake)]}


def _said(told: dict[str, Any]) -> str:
    """Who reads this bake; else whose node made it with other parameters; else a dash."""
    names = ", ".join(Path(path).name for path in told["scripts"])
    return names or ", ".join(f"({Path(path).name})" for path in told["scripts_of_id"]) or "-"


def _sentence(removal: Removal, *, yes: bool) -> str:
    verb = "removed" if yes else "would remove"
    bake = removal.bake
    if not removal.whole:
        return f"{verb} {len(removal.files)} files of killed renders in {bake.folder}, {_size(occupied(removal.files))}"
    left = f"; {bake.others} other files stay there" if bake.others else ""
    frames = _described(bake)["frames"] or "none"
    return f"{verb} {bake.folder}, frames {frames}, {_size(occupied(removal.files))}{left}"


def _name(bake: Bake) -> str:
    return f"{bake.bake_id}/{bake.params}"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"
