"""`hdrgen nuke-path`: the folder to put on NUKE_PATH, in a checkout as in an installed package.

Nuke puts a folder of NUKE_PATH on its Python's path too, so `nuke_hdrgen` beside init.py is found without being
installed. A checkout's root is such a folder; the wheel carries one inside `hdrgen_server`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import hdrgen_server
from hdrgen_server.cli import console
from nuke_hdrgen.wire.errors import BadInput

HELD = ("init.py", "menu.py", "bake.py", "gizmos", "nuke_hdrgen")


def nuke_folder() -> Path:
    """The folder that holds what Nuke runs and imports. Raises BadInput when the installation has none."""
    package = Path(hdrgen_server.__file__).resolve().parent
    for folder in (package / "nuke", package.parent.parent):
        if all((folder / name).exists() for name in HELD):
            return folder
    raise BadInput(
        f"no folder with {', '.join(HELD)} beside {package}; reinstall nuke-hdrgen from its wheel or checkout"
    )


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one machine-readable object.")] = False,
) -> None:
    """Print the folder for NUKE_PATH: export NUKE_PATH=$(hdrgen nuke-path)."""
    folder = nuke_folder()
    if as_json:
        console.emit_json({"path": str(folder)})
    else:
        console.answer(str(folder))
