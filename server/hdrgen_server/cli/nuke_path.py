"""`hdrgen nuke-path`: the folder to put on NUKE_PATH, in a checkout as in an installed package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import hdrgen_server
from hdrgen_server.cli import console
from nuke_hdrgen.wire.errors import BadInput


def nuke_folder() -> Path:
    """The folder that holds init.py, menu.py and gizmos. Raises BadInput when the installation has none."""
    package = Path(hdrgen_server.__file__).resolve().parent
    for folder in (package / "nuke", package.parent.parent):
        if all((folder / name).exists() for name in ("init.py", "menu.py", "gizmos")):
            return folder
    raise BadInput(f"no init.py, menu.py and gizmos beside {package}; reinstall nuke-hdrgen from its wheel or checkout")


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one machine-readable object.")] = False,
) -> None:
    """Print the folder for NUKE_PATH: export NUKE_PATH=$(hdrgen nuke-path)."""
    folder = nuke_folder()
    if as_json:
        console.emit_json({"path": str(folder)})
    else:
        console.answer(str(folder))
