"""Makes packs of LumiVid from runs of its training, each stage's the base of the next.

It owns the packs' files and manifests. It must not know the loop or how a pack is run.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_ltx2 import AutoencoderKLLTX2Video
from peft import get_peft_model_state_dict
from safetensors.torch import save_file

from hdrgen_server.packs.add import finished_manifest
from hdrgen_server.packs.manifest import MANIFEST_NAME
from hdrgen_server.systems.lumivid.loading import (
    ADAPTER,
    CONTEXTS,
    LORA_FILE,
    SCALE,
    SCENE_FILE,
    TRANSFORM,
    TRANSFORMER,
    UPSAMPLER,
    VAE,
)
from hdrgen_server.training.clips import ClipSource
from hdrgen_server.training.lumivid import best_flow, best_vae, posterior_of
from hdrgen_server.training.recipe import Recipe

MANIFEST = """format = 1
name = "{name}"
summary = "LumiVid: opens a shot's highlights window by window, steady over time; the plate keeps its own detail."
system = "lumivid"
size = "{size}"
preview = {preview}
licence = "Apache-2.0"

[options]
config = "{size}"
transform = "{transform}"
"""
PUBLISHED_PREFIX = "diffusion_model."
LATENT_BATCHES, LATENT_BATCH = 12, 4


def write_vae(recipe: Recipe, run: Path, source: ClipSource, folder: Path) -> None:
    """Write the best VAE of a run into `folder`, in half precision, with the mean and deviation of the latents of 48
    training clips, SDR and HDR. Raises BadInput where the run has no weights.
    """
    vae = best_vae(recipe, run)
    _measure(vae, source)
    folder.mkdir(parents=True, exist_ok=True)
    vae.half().save_pretrained(folder / VAE)
    _readable(folder)


@torch.inference_mode()
def _measure(vae: AutoencoderKLLTX2Video, source: ClipSource) -> None:
    source, found = replace(source, pool=0), list[torch.Tensor]()
    for index in range(LATENT_BATCHES):
        batch = source(np.random.default_rng((19, index)), LATENT_BATCH)
        found += [
            posterior_of(vae, 2 * codes - 1).mode().transpose(0, 1).flatten(1) for codes in (batch.sdr, batch.hdr)
        ]
    latents = torch.cat(found, dim=1)
    vae.latents_mean.copy_(latents.mean(dim=1))
    vae.latents_std.copy_(latents.std(dim=1))


def write_pack(recipe: Recipe, stage: str, run: Path, base: Path, transform: str, folder: Path) -> None:
    """Write the best weights of a run with what they were trained on as a pack; the folder's name becomes the pack's.

    A backbone is written whole in half precision; an adapter in the published spelling, beside links to its base. A
    card, README.md, may lie in the folder already. Raises BadInput where the run has no weights.
    """
    model = best_flow(recipe, stage, run, base)
    folder.mkdir(parents=True, exist_ok=True)
    if stage == "backbone":
        model.transformer.half().save_pretrained(folder / TRANSFORMER)
        shutil.copytree(base / VAE, folder / VAE, dirs_exist_ok=True)
        contexts = {name: getattr(model, name).detach().half().contiguous() for name in CONTEXTS}
        save_file(contexts, folder / SCENE_FILE)
    else:
        state = get_peft_model_state_dict(model.transformer, adapter_name=ADAPTER)
        metadata = {SCALE: str(model.scale), TRANSFORM: transform}
        named = {PUBLISHED_PREFIX + name: tensor.contiguous() for name, tensor in state.items()}
        save_file(named, folder / LORA_FILE, metadata=metadata)
        for part in (TRANSFORMER, VAE, UPSAMPLER, SCENE_FILE):
            _link(base / part, folder / part)
    _readable(folder)
    small = "true" if recipe.config == "s" else "false"
    manifest = MANIFEST.format(name=folder.name, size=recipe.config, preview=small, transform=transform)
    (folder / MANIFEST_NAME).write_text(manifest, encoding="utf-8")
    (folder / MANIFEST_NAME).write_bytes(finished_manifest(folder))


def _link(source: Path, target: Path) -> None:
    """Links to a file, or to the files of a folder, that are not there already."""
    for path in sorted(source.rglob("*")) if source.is_dir() else [source] if source.exists() else []:
        place = target / path.relative_to(source) if source.is_dir() else target
        if path.is_file() and not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(path.resolve())


def _readable(folder: Path) -> None:
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
