"""Fills a LumaFlux from files: FLUX.1 and its VAE as diffusers folders or single files, SigLIP's folder, the adapters.

It owns the files' layout and every complaint about them. It must not know tiles, training or pickles: nothing here
opens one.

A pack holds `transformer/` or `transformer.safetensors`, `vae/` or `vae.safetensors`, `siglip/` and
`adapters.safetensors`. Single files are in the layout of Black Forest Labs' own code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import (
    convert_flux_transformer_checkpoint_to_diffusers,
    convert_ldm_vae_checkpoint,
)
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from torch import Tensor
from transformers import SiglipVisionConfig, SiglipVisionModel

from hdrgen_server.networks.tensors import fill
from hdrgen_server.networks.weight_files import from_folder, read
from hdrgen_server.systems.lumaflux.adapters import Adapters, published_names
from hdrgen_server.systems.lumaflux.config import LumaFluxConfig
from hdrgen_server.systems.lumaflux.model import LumaFlux
from nuke_hdrgen.wire.errors import BadInput

TRANSFORMER, VAE, ENCODER = "transformer", "vae", "siglip"
ADAPTERS_FILE = "adapters.safetensors"
VISION = "vision_model."
SINGLE_FILE_WIDTH = 3072
"""diffusers' table for the original layout splits fused projections at FLUX.1's width alone."""
NOT_STRUCTURE = ("sample_size", "scaling_factor", "shift_factor", "vision_use_head")
"""What a folder's config.json may say otherwise: not a matter of which tensors there are."""

Tensors = Mapping[str, Tensor]


def load_lumaflux(
    config: LumaFluxConfig,
    folder: Path,
    dtype: torch.dtype,
    without: frozenset[str] = frozenset(),
    vae_folder: Path | None = None,
) -> LumaFlux:
    """The networks in a pack's folder, on the CPU; transformer and image encoder in `dtype`, the rest in float32.

    `without` names modules of the adapters that were left out in training; the VAE lies in `vae_folder` where the pack
    has none of its own. Raises BadInput naming the file and what in
    it is wrong.
    """
    return LumaFlux(
        config,
        load_transformer(config, folder, dtype).eval(),
        load_vae(config, vae_folder or folder).eval(),
        load_encoder(config, folder, dtype).eval(),
        load_adapters(config, folder / ADAPTERS_FILE, without).eval(),
    )


def load_adapters(config: LumaFluxConfig, path: Path, without: frozenset[str] = frozenset()) -> Adapters:
    """The adapters of a file with the published names. Raises BadInput naming the first tensor that does not fit."""
    with torch.device("meta"):
        adapters = Adapters(config, without)
    state = published_names({name: tensor.float() for name, tensor in read(path).items()})
    fill(adapters, state, str(path))
    return adapters


def load_vae(config: LumaFluxConfig, folder: Path, name: str = VAE) -> AutoencoderKL:
    """The VAE in a pack's folder, in float32; `name` is its folder's there. Raises BadInput."""
    single = folder / f"{name}.safetensors"
    if single.is_file():
        with torch.device("meta"):
            vae = AutoencoderKL(**config.vae_arguments())
        state = renamed(read(single), lambda state: convert_ldm_vae_checkpoint(state, config.vae_arguments()), single)
        fill(vae, {name: tensor.float() for name, tensor in state.items()}, str(single))
        return vae
    _check_structure(folder / name, config.vae_arguments())
    return from_folder(AutoencoderKL, folder / name, torch_dtype=torch.float32)


def load_transformer(config: LumaFluxConfig, folder: Path, dtype: torch.dtype) -> FluxTransformer2DModel:
    """The transformer in a pack's folder. Raises BadInput."""
    single = folder / f"{TRANSFORMER}.safetensors"
    if not single.is_file():
        _check_structure(folder / TRANSFORMER, config.flux.arguments())
        return from_folder(FluxTransformer2DModel, folder / TRANSFORMER, torch_dtype=dtype)
    if config.flux.width != SINGLE_FILE_WIDTH:
        raise BadInput(f"{single} can be read at FLUX.1's width alone; give a diffusers folder {TRANSFORMER}/ instead")
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(**config.flux.arguments())
    state = renamed(read(single), convert_flux_transformer_checkpoint_to_diffusers, single)
    fill(transformer, {name: tensor.to(dtype) for name, tensor in state.items()}, str(single))
    return transformer


def load_encoder(config: LumaFluxConfig, folder: Path, dtype: torch.dtype) -> SiglipVisionModel:
    """The image encoder in a pack's folder, out of SigLIP's files, which may hold its text side and pooling head too.

    Raises BadInput.
    """
    folder = folder / ENCODER
    _check_structure(folder, config.encoder.arguments(), "vision_config")
    with torch.device("meta"):
        encoder: Any = SiglipVisionModel(SiglipVisionConfig(**config.encoder.arguments()))
    state: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        state |= {name.removeprefix(VISION): tensor for name, tensor in read(path).items()}
    own = encoder.state_dict().keys()
    fill(encoder, {name: tensor.to(dtype) for name, tensor in state.items() if name in own}, str(folder))
    encoder.embeddings.position_ids = torch.arange(config.encoder.side**2)[None]
    return encoder


def _check_structure(folder: Path, wanted: Mapping[str, Any], within: str = "") -> None:
    path = folder / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read; a pack of LumaFlux holds {folder.name}/ as it was saved") from error
    if not isinstance(found, dict):
        raise BadInput(f"{path} is no table of settings; fetch or add the folder again")
    table = found.get(within, found)
    for name, value in wanted.items():
        if name in NOT_STRUCTURE or name not in table:
            continue
        if _plain(table[name]) != _plain(value):
            raise BadInput(
                f"{path}: {name} is {_plain(table[name])}, this pack needs {_plain(value)}; the folder holds another "
                "model or size"
            )


def renamed(state: dict[str, Tensor], rename: Callable[[dict[str, Tensor]], dict[str, Tensor]], path: Path) -> Tensors:
    """A single file's tensors by diffusers' own tables of names. Raises BadInput for another layout."""
    try:
        return rename(state)
    except (KeyError, IndexError) as error:
        raise BadInput(f"{path} lacks {error}; it belongs to another model family") from error


def _plain(value: object) -> object:
    return list(value) if isinstance(value, (list, tuple)) else value
