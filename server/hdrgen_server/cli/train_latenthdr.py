"""`hdrgen train latenthdr`: an exposure head for the VAE that --base names.

It owns its options. It must not know losses, networks or data.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hdrgen_server.cli import console, options, train
from nuke_hdrgen.wire.errors import BadParameter

if TYPE_CHECKING:
    from hdrgen_server.training.recipe import Recipe


def latenthdr(
    base: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="The backbone: an AutoencoderKL's folder, or one of Qwen-Image with vae/, as `hdrgen train qwenlog "
            "--stage vae --pack` writes it.",
        ),
    ],
    stage: Annotated[str, typer.Option(metavar="head|joint", help="The head alone, or with an adapter.")] = "head",
    size: Annotated[str, typer.Option(metavar="SIZE", help="A configuration: s or published.")] = "s",
    data: train.DataOption = None,
    run: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Checkpoints and log; else runs/latenthdr-STAGE-SIZE.")
    ] = None,
    head: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Stage joint: the run of the stage before; its base draws (Qwen-Image)."),
    ] = None,
    steps: train.StepsOption = None,
    seed: train.SeedOption = None,
    device: train.DeviceOption = "auto",
    precision: train.PrecisionOption = "fp32",
    fetch: train.FetchOption = False,
    pack: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Only make a pack, named like the folder, of the run so far.")
    ] = None,
    base_pack: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="With --pack: the pack that it is on, which has the same VAE; then it holds the head alone. A head on "
            "Qwen-Image's needs one: it draws.",
        ),
    ] = "",
    as_json: options.JsonOption = False,
) -> None:
    """Train LatentHDR's exposure head on a frozen VAE, or on with its generator. Run it again to resume."""
    from hdrgen_server.training.recipe import load_recipe

    recipe = load_recipe(f"latenthdr-{stage}-{size}")
    target = run or Path("runs") / f"latenthdr-{stage}-{size}"
    if pack is not None:
        _write(recipe, stage, target, base, pack, base_pack, train.panoramas(data, None, fetch=fetch))
        console.answer(f"wrote pack {pack.name} to {pack}")
        return
    if stage == "joint" and (head is None or not (head / "best.safetensors").is_file()):
        raise BadParameter("stage joint needs --head: the folder of a run of stage head")
    with train.open_for_training(device, precision) as devices:
        folder, chosen = train.panoramas(data, devices, fetch=fetch), train.changed(recipe, steps, seed)
        if head is not None and stage == "joint":
            from hdrgen_server.training.latenthdr_joint import train_joint

            position = train_joint(chosen, folder, target, base, head, console.note, devices)
        else:
            from hdrgen_server.training.latenthdr import train_head

            position = train_head(chosen, folder, target, base, console.note, devices)
        train.tell(target, position.step, devices, as_json=as_json)


def _write(recipe: Recipe, stage: str, run: Path, base: Path, pack: Path, base_pack: str, data: Path) -> None:
    """Write a run's best weights as a pack."""
    from hdrgen_server.training.latenthdr_pack import write_joint_pack, write_pack

    if stage == "joint":
        write_joint_pack(recipe, data, run, base, pack, base_pack)
        return
    write_pack(recipe, run, base, pack, base_pack)
