"""Makes a pack of both stages of GMODiff from a run of the second.

It owns the pack's files and manifest. It must not know the loop, data or how a pack is run.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from hdrgen_server.packs.add import finished_manifest
from hdrgen_server.packs.manifest import MANIFEST_NAME
from hdrgen_server.systems.gmodiff.refine.config import REFINERS
from hdrgen_server.systems.gmodiff.refine.loading import (
    BASE_FILE,
    LORA_FOLDER,
    REFINED_FILE,
    UNET_FOLDER,
    VAE_FOLDER,
    read_tensors,
    refined_state,
)
from hdrgen_server.systems.gmodiff.refine.lora import adapted, save_lora
from hdrgen_server.systems.gmodiff.refine.model import Refiner
from hdrgen_server.training.gmodiff_refine import best_refiner
from hdrgen_server.training.recipe import Recipe

REGRESSOR_FILE = "regressor.safetensors"
MANIFEST = """format = 1
name = "{name}"
summary = "GMODiff: brackets of 2 to 7 exposures, moving or not; final quality refines the gain map in one step."
system = "gmodiff"
size = "{size}"
preview = {preview}
licence = "{licence}"

[options]
config = "{regressor}"
refine = "{size}"
"""

# Measured at 1920x1080 on a CPU; size s needs no more than the system states.
FULL_MEMORY = """
[memory]
fixed_mib = 14100
per_megapixel_mib = 60
"""


def write_refined_pack(recipe: Recipe, run: Path, base: Path, regressor: Path, folder: Path) -> None:
    """Write the best weights of a run, with the base and the regressor, as a pack in half precision.

    The folder's name becomes the pack's; a card, README.md, may lie in it already. Raises BadInput where the run has no
    weights, or a file does not fit.
    """
    config = REFINERS[recipe.config]
    refiner = best_refiner(recipe, run, base)
    folder.mkdir(parents=True, exist_ok=True)
    _save(read_tensors(regressor), folder / REGRESSOR_FILE)
    _save(refined_state(refiner), folder / REFINED_FILE)
    _write_base(refiner, base, folder)
    if adapted(refiner):
        save_lora(refiner, folder / LORA_FOLDER)
        for path in (folder / LORA_FOLDER).iterdir():
            _save(load_file(path), path)
    size, small = recipe.config, config.lora.unet == 0
    (folder / MANIFEST_NAME).write_text(
        MANIFEST.format(
            name=folder.name,
            size=size,
            preview=str(small).lower(),
            licence="Apache-2.0" if small else "CreativeML Open RAIL++-M",
            regressor=config.regressor,
        )
        + ("" if small else FULL_MEMORY),
        encoding="utf-8",
    )
    (folder / MANIFEST_NAME).write_bytes(finished_manifest(folder))


def _write_base(refiner: Refiner, base: Path, folder: Path) -> None:
    """The base as it came; where the UNet was trained whole, the autoencoder as it came and the trained UNet."""
    if base.is_file():
        shutil.copyfile(base, folder / BASE_FILE)
    elif refiner.config.lora.unet:
        for name in (VAE_FOLDER, UNET_FOLDER):
            shutil.copytree(base / name, folder / name, dirs_exist_ok=True)
    else:
        shutil.copytree(base, folder / VAE_FOLDER, dirs_exist_ok=True)
        refiner.unet.half().save_pretrained(folder / UNET_FOLDER)


def _save(state: dict[str, torch.Tensor], path: Path) -> None:
    half = {name: tensor.detach().half().contiguous() for name, tensor in state.items()}
    temporary = path.with_name(f".{path.name}.new")
    save_file(half, temporary, metadata={"format": "pt"})
    temporary.replace(path)
