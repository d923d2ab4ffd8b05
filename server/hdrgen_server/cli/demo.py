"""`hdrgen demo`: the operations on `examples/`, through a real sidecar, into `demo/`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hdrgen_server.cli import console, hdrfuse
from nuke_hdrgen.wire.errors import BadInput, StorageError

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
BRACKET = ("1_under", "2_middle", "3_over")


def command(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="Where results go.")] = Path("demo"),
    examples: Annotated[
        Path, typer.Option(metavar="FOLDER", help="The examples of a checkout.", show_default=False)
    ] = EXAMPLES,
) -> None:
    """Fuse the example bracket through a sidecar, and write the EXR and a contact sheet."""
    images = [examples / "bracket" / f"{name}.jpg" for name in BRACKET]
    missing = next((image for image in images if not image.is_file()), None)
    if missing is not None:
        raise BadInput(f"{missing} is not there: the examples come with a checkout; name their folder with --examples")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{output} cannot be made: {error.strerror}; name another folder with -o") from error
    exr, sheet = output / "hdrfuse.exr", output / "hdrfuse.png"
    hdrfuse.command(
        [str(image) for image in images], str(exr), colourspace="lin_rec709_scene", reference=1, preview=str(sheet)
    )
    console.answer(f"open {exr.resolve()}, and look at {sheet.resolve()}: the same file, stopped down and up")
