"""`hdrgen demo`: the operations on `examples/`, through a real sidecar, into `demo/`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hdrgen_server.cli import console, hdrfuse, sdr2hdr
from nuke_hdrgen.wire.errors import BadInput, StorageError

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
BRACKET = ("1_under", "2_middle", "3_over")


def command(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="Where results go.")] = Path("demo"),
    examples: Annotated[
        Path, typer.Option(metavar="FOLDER", help="The examples of a checkout.", show_default=False)
    ] = EXAMPLES,
) -> None:
    """Fuse the example bracket and expand its brightest photograph, through a sidecar; EXRs and contact sheets."""
    images = [examples / "bracket" / f"{name}.jpg" for name in BRACKET]
    missing = next((image for image in images if not image.is_file()), None)
    if missing is not None:
        raise BadInput(f"{missing} is not there: the examples come with a checkout; name their folder with --examples")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{output} cannot be made: {error.strerror}; name another folder with -o") from error
    space = "lin_rec709_scene"
    fused, expanded = output / "hdrfuse.exr", output / "sdr2hdr.exr"
    sheets = [exr.with_suffix(".png") for exr in (fused, expanded)]
    names = [str(image) for image in images]
    hdrfuse.command(names, str(fused), colourspace=space, reference=1, preview=str(sheets[0]))
    sdr2hdr.command(names[2], str(expanded), colourspace=space, preview=str(sheets[1]))
    for exr, sheet in zip((fused, expanded), sheets, strict=True):
        console.answer(f"open {exr.resolve()}, and look at {sheet.resolve()}: the same file, stopped down and up")
