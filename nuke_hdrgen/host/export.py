"""Exports one input of a gizmo as a whole EXR file, through the gizmo's own disabled Write.

It owns switching that Write on and off, proxy mode, and the file's place. It must not know jobs or results. Runs in
Nuke's main thread.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Generator

import nuke

from nuke_hdrgen.host.nodes import untouched
from nuke_hdrgen.wire.errors import BadInput, Busy, Cancelled

EXECUTING = "already executing"
CANCELLED = "cancel"


def export_frame(write: nuke.Node, frame: int, view: str, path: str) -> None:
    """Render `frame` of one view through the Write to `path`: float32, uncompressed, values as they are in the script.

    At full size whatever the proxy mode. The Write is disabled again however it ends. Raises Busy while Nuke executes
    something else, Cancelled when the user stops Nuke's own render, BadInput when Nuke cannot render.
    """
    name = write.fullName()
    try:
        with untouched(), _full_size(), _enabled(write, path):
            nuke.execute(write, frame, frame, 1, [view])
    except (RuntimeError, OSError) as error:
        said = " ".join(str(error).split())
        if EXECUTING in said.lower():
            raise Busy("Nuke is rendering something else; the bake goes on when that ends") from error
        if CANCELLED in said.lower():
            raise Cancelled("the bake was cancelled while Nuke rendered an input") from error
        raise BadInput(f"{name} cannot export frame {frame}: {said[:300]}") from error


@contextmanager
def _enabled(write: nuke.Node, path: str) -> Generator[None, None, None]:
    write["file"].setValue(path)
    write["disable"].setValue(False)
    try:
        yield
    finally:
        write["disable"].setValue(True)
        write["file"].setValue("")


@contextmanager
def _full_size() -> Generator[None, None, None]:
    proxy = nuke.root()["proxy"]
    was = bool(proxy.value())
    if was:
        proxy.setValue(False)
    try:
        yield
    finally:
        if was:
            proxy.setValue(True)
