"""`hdrgen demo`: the operations on `examples/`, through a real sidecar, into `demo/`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hdrgen_server.cli import console, hdrfuse, sdr2hdr, txt2hdr
from nuke_hdrgen.wire.errors import BadInput, StorageError

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
BRACKET = ("1_under", "2_middle", "3_over")
PROMPT, COUNT = "a night scene, lit by warm lamps", 4


def command(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="Where results go.")] = Path("demo"),
    examples: Annotated[
        Path, typer.Option(metavar="FOLDER", help="The examples of a checkout.", show_default=False)
    ] = EXAMPLES,
) -> None:
    """Fuse the example bracket, expand one photograph and draw from a text, by a sidecar; EXRs and contact sheets."""
    images = [examples / "bracket" / f"{name}.jpg" for name in BRACKET]
    missing = next((image for image in images if not image.is_file()), None)
    if missing is not None:
        raise BadInput(f"{missing} is not there: the examples come with a checkout; name their folder with --examples")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{output} cannot be made: {error.strerror}; name another folder with -o") from error
    space = "lin_rec709_scene"
    fused, expanded, drawn = (output / name for name in ("hdrfuse.exr", "sdr2hdr.exr", "txt2hdr.####.exr"))
    sheets = [output / f"{name}.png" for name in ("hdrfuse", "sdr2hdr", "txt2hdr")]
    names = [str(image) for image in images]
    hdrfuse.command(names, str(fused), colourspace=space, reference=1, preview=str(sheets[0]))
    sdr2hdr.command(names[1], str(expanded), colourspace=space, quality="final", preview=str(sheets[1]))
    txt2hdr.command(PROMPT, str(drawn), colourspace=space, count=COUNT, preview=str(sheets[2]))
    for exr, sheet in zip((fused, expanded), sheets[:2], strict=True):
        console.answer(f"open {exr.resolve()}, and look at {sheet.resolve()}: the same file, stopped down and up")
    console.answer(f"look at {sheets[2].resolve()}: {COUNT} pictures of “{PROMPT}”, stopped down")
