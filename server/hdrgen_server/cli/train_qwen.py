"""`hdrgen train qwenlog` and `hdrgen train qwenlinear`: every stage of both Qwen systems.

It owns their options. It must not know losses, networks or data.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from hdrgen_server.cli import console, options, train
from nuke_hdrgen.wire.errors import BadParameter

StageOption = Annotated[str, typer.Option(metavar="vae|backbone|lora", help="The stage to train.")]
SizeOption = Annotated[str, typer.Option(metavar="SIZE", help="A configuration: s or published.")]
BaseOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="What the stage starts from: the folder that the stage before wrote with --pack, or Qwen-Image's own.",
    ),
]
LayoutOption = Annotated[
    str,
    typer.Option(
        metavar="drawn|captioned",
        help="drawn: places drawn from numbers, and the panoramas of --data; captioned: EXRs in --data, each with a "
        "sentence in NAME.txt.",
    ),
]
RunOption = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Checkpoints and log; else runs/SYSTEM-STAGE-SIZE.")
]
PackOption = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Only write the run so far: of stage vae the next one's base, else a pack."),
]


@dataclass(frozen=True)
class _Asked:
    """One call of either command."""

    system: str
    stage: str
    size: str
    base: Path | None
    layout: str
    run: Path | None
    pack: Path | None
    curve: str = ""
    way: str = "halved"


def qwenlog(
    stage: StageOption = "lora",
    size: SizeOption = "s",
    base: BaseOption = None,
    data: train.DataOption = None,
    layout: LayoutOption = "drawn",
    curve: Annotated[
        str, typer.Option(metavar="NAME", help="Curve of the codes: logc4, logc3, pq or acescct; else the base's own.")
    ] = "",
    run: RunOption = None,
    steps: train.StepsOption = None,
    seed: train.SeedOption = None,
    device: train.DeviceOption = "auto",
    precision: train.PrecisionOption = "fp32",
    fetch: train.FetchOption = False,
    pack: PackOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Train Qwen-Image to draw log codes: an adapter, or at size s its VAE and transformer. Run it again to resume."""
    asked = _Asked("qwenlog", stage, size, base, layout, run, pack, curve)
    _train(asked, data, steps, seed, device, precision, fetch=fetch, as_json=as_json)


def qwenlinear(
    stage: StageOption = "lora",
    size: SizeOption = "s",
    base: BaseOption = None,
    data: train.DataOption = None,
    layout: LayoutOption = "drawn",
    widen: Annotated[
        str, typer.Option(metavar="halved|zero", help="How stage lora widens a base transformer's projections.")
    ] = "halved",
    run: RunOption = None,
    steps: train.StepsOption = None,
    seed: train.SeedOption = None,
    device: train.DeviceOption = "auto",
    precision: train.PrecisionOption = "fp32",
    fetch: train.FetchOption = False,
    pack: PackOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Train Qwen-Image to draw light: its VAE of two heads, then an adapter, or at size s a transformer.

    Run it again to resume.
    """
    asked = _Asked("qwenlinear", stage, size, base, layout, run, pack, way=widen)
    _train(asked, data, steps, seed, device, precision, fetch=fetch, as_json=as_json)


def _train(
    asked: _Asked,
    data: Path | None,
    steps: int | None,
    seed: int | None,
    device: str,
    precision: str,
    *,
    fetch: bool,
    as_json: bool,
) -> None:
    """Train the stage, or write what it made. Raises BadParameter for no such stage, or one without its base."""
    from hdrgen_server.training.recipe import load_recipe

    recipe = load_recipe(f"{asked.system}-{asked.stage}-{asked.size}")
    target = asked.run or Path("runs") / f"{asked.system}-{asked.stage}-{asked.size}"
    if asked.base is None and (asked.stage != "vae" or asked.size != "s"):
        raise BadParameter(f"stage {asked.stage} needs --base: the folder that it starts from")
    if asked.pack is not None:
        _write(asked, target, train.panoramas(data, None, fetch=fetch), asked.pack)
        console.answer(f"wrote {asked.pack.name} to {asked.pack}")
        return
    with train.open_for_training(device, precision) as devices:
        folder = train.panoramas(data, devices, fetch=fetch)
        from hdrgen_server.training.captioned import CaptionSource

        changed = train.changed(recipe, steps, seed)
        source = CaptionSource(folder, recipe.crop, asked.layout)
        if asked.stage == "vae":
            from hdrgen_server.training.qwen_vae import train_vae

            curve = asked.curve or "logc4"
            position = train_vae(
                asked.system, changed, source, target, console.note, devices, base=asked.base, curve=curve
            )
        else:
            from hdrgen_server.training.qwen import train_qwen

            assert asked.base is not None
            position = train_qwen(
                asked.system, changed, asked.stage, source, target, asked.base, console.note, devices,
                way=asked.way, curve=asked.curve,
            )  # fmt: skip
        train.tell(target, position.step, devices, as_json=as_json)


def _write(asked: _Asked, target: Path, folder: Path, pack: Path) -> None:
    """Write the run's best weights as the next stage's base, or as a pack."""
    from hdrgen_server.training.captioned import CaptionSource
    from hdrgen_server.training.qwen_pack import write_pack, write_vae
    from hdrgen_server.training.recipe import load_recipe

    recipe = load_recipe(f"{asked.system}-{asked.stage}-{asked.size}")
    source = CaptionSource(folder, recipe.crop, asked.layout)
    if asked.stage == "vae":
        write_vae(asked.system, recipe, target, asked.base, asked.curve or "logc4", source, pack)
        return
    assert asked.base is not None
    write_pack(asked.system, recipe, asked.stage, target, asked.base, source, pack, asked.curve)
