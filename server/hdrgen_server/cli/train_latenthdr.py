"""`hdrgen train latenthdr`: an exposure head for the VAE that --base names.

It owns its options. It must not know losses, networks or data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hdrgen_server.cli import console, options, train


def latenthdr(
    base: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="The backbone: an AutoencoderKL's folder, or one of Qwen-Image with vae/, as `hdrgen train qwenlog "
            "--stage vae --pack` writes it.",
        ),
    ],
    size: Annotated[str, typer.Option(metavar="SIZE", help="A configuration: s or published.")] = "s",
    data: train.DataOption = None,
    run: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Checkpoints and log; else runs/latenthdr-head-SIZE.")
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
    """Train LatentHDR's exposure head on a frozen VAE. Run it again to resume."""
    from hdrgen_server.training.recipe import load_recipe

    recipe = load_recipe(f"latenthdr-head-{size}")
    target = run or Path("runs") / f"latenthdr-head-{size}"
    if pack is not None:
        from hdrgen_server.training.latenthdr_pack import write_pack

        write_pack(recipe, target, base, pack, base_pack)
        console.answer(f"wrote pack {pack.name} to {pack}")
        return
    with train.open_for_training(device, precision) as devices:
        folder = train.panoramas(data, devices, fetch=fetch)
        from hdrgen_server.training.latenthdr import train_head

        position = train_head(train.changed(recipe, steps, seed), folder, target, base, console.note, devices)
        train.tell(target, position.step, devices, as_json=as_json)
