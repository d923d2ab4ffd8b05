"""`hdrgen preview`: a picture of a scene-linear file at several exposures, or in false colour."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from hdrgen_server.cli import console
from nuke_hdrgen.wire.errors import BadParameter


def parse_stops(text: str) -> tuple[float, ...]:
    """The numbers of `--stops`. Raises BadParameter."""
    try:
        stops = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise BadParameter(f"--stops {text!r} is no list of numbers; write for example --stops=-4,-2,0,2") from error
    if not 1 <= len(stops) <= 16 or not all(math.isfinite(s) and abs(s) <= 30 for s in stops):
        raise BadParameter(f"--stops {text!r} must be 1 to 16 exposures within 30 stops")
    return stops


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A scene-linear EXR, or an Ultra HDR JPEG.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.png", help="The picture to write.")],
    false_colour: Annotated[bool, typer.Option("--false-colour", help="Luminance in stops from mid-grey.")] = False,
    stops: Annotated[str, typer.Option(metavar="S1,S2,…", help="Exposures of the sheet, in stops.")] = "-4,-2,0,2",
    as_json: Annotated[bool, typer.Option("--json", help="Print one machine-readable object.")] = False,
) -> None:
    """Write a contact sheet of FILE at several exposures: what stopping it down shows."""
    exposures = parse_stops(stops)
    write_preview(file, output, exposures, false_colour=false_colour)
    if as_json:
        console.emit_json({"preview": str(output), "stops": list(exposures), "false_colour": false_colour})
    else:
        console.answer(f"wrote {output}")


def write_preview(file: Path, output: Path, stops: tuple[float, ...], *, false_colour: bool = False) -> None:
    """Read a scene-linear file and write its picture. Raises BadInput and StorageError."""
    from hdrgen_server.image import preview
    from hdrgen_server.image.reading import read_frame
    from hdrgen_server.image.ultrahdr import is_ultrahdr, read_ultrahdr

    frame = read_ultrahdr(file) if is_ultrahdr(file) else read_frame(file)
    picture = preview.false_colour(frame) if false_colour else preview.exposure_ladder(frame, stops)
    preview.save_png(picture, output)
