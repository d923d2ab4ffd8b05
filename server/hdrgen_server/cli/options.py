"""Options that several commands have, in the same words.

It owns their names and help. It must not know any command.
"""

from __future__ import annotations

from typing import Annotated

import typer

PackOption = Annotated[str | None, typer.Option(metavar="NAME", help="Pack; else the quality's default.")]
QualityOption = Annotated[str, typer.Option(metavar="draft|final", help="Fast, or the best there is.")]
ConfigOption = Annotated[str | None, typer.Option(metavar="CONFIG", help="OCIO config; else $OCIO or built-in.")]
SpaceOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Scene-linear space of the result; else the scene_linear role.")
]
SeedOption = Annotated[int, typer.Option(metavar="N", help="Seed of systems that draw noise.")]
StepsOption = Annotated[int | None, typer.Option(metavar="N", help="Steps of systems that take steps.")]
CeilingOption = Annotated[
    float | None, typer.Option(metavar="V", help="Roll highlights off towards V, from half of it on.")
]
SetsOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="PARAMETER=VALUE", help="Any parameter of the pack.")
]
ServerOption = Annotated[str | None, typer.Option(metavar="ADDRESS", help="Sidecar; else found or started.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one machine-readable object.")]
