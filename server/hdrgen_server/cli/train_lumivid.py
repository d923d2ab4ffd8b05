"""`hdrgen train lumivid`: every stage of LumiVid.

It owns its options. It must not know losses, networks or data.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hdrgen_server.cli import console, options, train
from nuke_hdrgen.wire.errors import BadParameter

if TYPE_CHECKING:
    from hdrgen_server.training.clips import ClipSource
    from hdrgen_server.training.recipe import Recipe

LAYOUTS = ("panoramas", "shots")


def lumivid(
    stage: Annotated[str, typer.Option(metavar="vae|backbone|lora", help="The stage to train.")] = "lora",
    size: Annotated[str, typer.Option(metavar="SIZE", help="A configuration: s or published.")] = "s",
    base: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="What the stage starts from: the folder that the stage before wrote with --pack, or LTX-2.3's own "
            "with the published scene embeddings as scene.safetensors.",
        ),
    ] = None,
    data: train.DataOption = None,
    layout: Annotated[
        str,
        typer.Option(
            metavar="panoramas|shots", help="How the data lie: panoramas, or folders of EXRs, each a shot in order."
        ),
    ] = "panoramas",
    transform: Annotated[
        str, typer.Option(metavar="NAME", help="Curve of the HDR codes, for an ablation: logc3 or pq.")
    ] = "logc3",
    degradations: Annotated[
        str, typer.Option(metavar="full|none|blur", help="What befalls the SDR, for an ablation.")
    ] = "full",
    crop: Annotated[
        int | None,
        typer.Option(min=64, max=4096, metavar="PIXELS", help="Side of clips; else the recipe's. Small ones are fast."),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Checkpoints and log; else runs/lumivid-STAGE-SIZE.")
    ] = None,
    steps: train.StepsOption = None,
    seed: train.SeedOption = None,
    device: train.DeviceOption = "auto",
    precision: train.PrecisionOption = "fp32",
    fetch: train.FetchOption = False,
    pack: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Only write the run so far: of stage vae the next one's base, else a pack."
        ),
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Train LumiVid: an IC-LoRA on LTX-2.3, or at size s its VAE and transformer. Run it again to resume."""
    from hdrgen_server.training.lumivid import train_lumivid
    from hdrgen_server.training.recipe import load_recipe

    recipe = load_recipe(f"lumivid-{stage}-{size}")
    recipe = recipe if crop is None else replace(recipe, crop=crop)
    target = run or Path("runs") / f"lumivid-{stage}-{size}"
    if base is None and stage != "vae":
        raise BadParameter(f"stage {stage} needs --base: the folder that it starts from")
    if pack is not None:
        from hdrgen_server.training.lumivid_pack import write_pack, write_vae

        if base is None:
            source = _source(recipe, train.panoramas(data, None, fetch=fetch), layout, transform, degradations)
            write_vae(recipe, target, source, pack)
        else:
            write_pack(recipe, stage, target, base, transform, pack)
        console.answer(f"wrote {pack.name} to {pack}")
        return
    with train.open_for_training(device, precision) as devices:
        folder = train.panoramas(data, devices, fetch=fetch)
        source = _source(recipe, folder, layout, transform, degradations)
        changed = train.changed(recipe, steps, seed)
        position = train_lumivid(changed, stage, source, target, base, console.note, devices)
        train.tell(target, position.step, devices, as_json=as_json)


def _source(recipe: Recipe, folder: Path, layout: str, transform: str, degradations: str) -> ClipSource:
    """Where clips come from. Raises BadParameter for a layout, transform or set of degradations that there is not."""
    from hdrgen_server.systems.lumivid.codes import TRANSFORMS
    from hdrgen_server.training.camera import TABLE_5
    from hdrgen_server.training.clips import FRAMES, ClipSource

    for name, given, known in (
        ("layout", layout, LAYOUTS), ("transform", transform, TRANSFORMS), ("degradations", degradations, TABLE_5),
    ):  # fmt: skip
        if given not in known:
            raise BadParameter(f"--{name} must be one of {', '.join(known)}, got {given!r}")
    numbers = recipe.pictures
    return ClipSource(
        folder, recipe.crop, layout, transform, TABLE_5[degradations],
        frames=int(numbers.get("frames", FRAMES)), pool=int(numbers.get("pool", 0)),
        mixed=numbers.get("mixed", 0.0), steeper=numbers.get("steeper", 0.0),
    )  # fmt: skip
