"""`hdrgen config`: the effective settings and where each comes from."""

from __future__ import annotations

from typing import Annotated

import typer

from hdrgen_server.cli import console
from hdrgen_server.settings import Settings, descriptions, load_settings, origins, settings_files


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one machine-readable object.")] = False,
    describe: Annotated[bool, typer.Option("--describe", help="Say what each option does.")] = False,
) -> None:
    """Print every option, its value and where it comes from.

    Precedence: flag, environment (HDRGEN_NAME), hdrgen.toml in the current folder, the user's file, the
    site's file, default.
    """
    settings = load_settings()
    sources = origins()
    values = {name: getattr(settings, name) for name in Settings.__struct_fields__}
    if as_json:
        files = {layer: {"path": str(path), "exists": path.is_file()} for layer, path in settings_files()}
        options = {
            name: {
                "value": console.plain(value),
                "from": sources[name],
                "description": descriptions()[name],
            }
            for name, value in values.items()
        }
        console.emit_json({"files": files, "options": options})
        return
    for layer, path in settings_files():
        console.answer(f"{layer}: {path} ({'read' if path.is_file() else 'not there'})")
    rows: list[tuple[str, ...]] = [("option", "value", "from")]
    for name, value in values.items():
        rows.append((name, _text(value), sources[name]))
        if describe:
            rows.append(("", descriptions()[name], ""))
    console.table(rows)


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(str(part) for part in value) or "-"
    return str(value) if value != "" else "-"
