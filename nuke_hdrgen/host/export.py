"""Exports one input of a gizmo as a whole EXR file's bytes, through the gizmo's own disabled Write.

It owns switching that Write on and off and the local temporary file. It must not know jobs or results.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from typing import Generator

import nuke

from nuke_hdrgen.wire.errors import BadInput


def export_frame(write: nuke.Node, frame: int) -> bytes:
    """The EXR that the Write makes of `frame`: float32, uncompressed, values as they are in the script.

    The Write is disabled again and its file removed, however it ends. Raises BadInput when Nuke cannot render it.
    """
    with tempfile.TemporaryDirectory(prefix="hdrgen-") as folder:
        path = os.path.join(folder, f"in.{frame:04d}.exr").replace("\\", "/")
        try:
            with _enabled(write, path):
                nuke.execute(write, frame, frame)
            with open(path, "rb") as stream:
                return stream.read()
        except (RuntimeError, OSError) as error:
            raise BadInput(f"{write.fullName()} cannot export frame {frame}: {_one_line(error)}") from error


@contextmanager
def _enabled(write: nuke.Node, path: str) -> Generator[None, None, None]:
    write["file"].setValue(path)
    write["disable"].setValue(False)
    try:
        yield
    finally:
        write["disable"].setValue(True)
        write["file"].setValue("")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
