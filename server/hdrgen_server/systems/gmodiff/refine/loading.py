"""Fills a refiner: base weights from a diffusers folder or one safetensors file, then what stage two trained.

It owns the files' layout and every complaint about them. It must not know tiles, training or pickles: nothing here
opens one.

A stage-two folder holds `refine.safetensors` (conv_in, c_L's projection and the refinement blocks) and `lora/` with one
adapter a network; a network whose rank is 0 was trained whole and lies in the base folder as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from hdrgen_server.networks.tensors import check, fill
from hdrgen_server.systems.gmodiff.refine.config import RefinerConfig
from hdrgen_server.systems.gmodiff.refine.family import NEEDED, check_config, check_folder, check_single, config_of
from hdrgen_server.systems.gmodiff.refine.lora import ADAPTER, adapted, add_lora
from hdrgen_server.systems.gmodiff.refine.model import Refiner, additions
from nuke_hdrgen.wire.errors import BadInput

REFINED_FILE = "refine.safetensors"
VAE_FOLDER, UNET_FOLDER = "vae", "unet"
BASE_FILE = "base.safetensors"
LORA_FOLDER = "lora"
WEIGHTS = "diffusion_pytorch_model.safetensors"
LDM_VAE, LDM_UNET = "first_stage_model.", "model.diffusion_model."


def load_base(config: RefinerConfig, source: Path) -> Refiner:
    """A refiner with base weights, in float32, and nothing trained on top.

    `source` is a folder with `unet/` and `vae/` as diffusers saves them, or one .safetensors file in the layout of the
    original Stable Diffusion code. Raises BadInput naming the file and what in it is wrong.
    """
    if not source.exists():
        raise BadInput(f"{source} does not exist; give one .safetensors file, or a folder as diffusers saves it")
    with torch.device("meta"):
        refiner = Refiner(config)
    if source.is_dir():
        check_folder(config, source)
        vae = _from_folder(source / VAE_FOLDER, AutoencoderKL)
        unet = _from_folder(source / UNET_FOLDER, UNet2DConditionModel)
        _use_scaling(refiner, source / VAE_FOLDER)
    else:
        vae, unet = _from_file(config, source)
    _fill_encoders(refiner, vae, str(source))
    fill(refiner.unet, widened(unet, config.vae.latent_channels), str(source))
    refiner.prior, refiner.blocks = additions(config)
    return refiner


def load_vae(config: RefinerConfig, folder: Path) -> Refiner:
    """A refiner on a VAE in a diffusers folder, its UNet new: for sizes that train the UNet whole. Raises BadInput."""
    check_config(folder, config.vae.arguments())
    refiner = Refiner(config)
    _use_scaling(refiner, folder)
    _fill_encoders(refiner, _from_folder(folder, AutoencoderKL), str(folder))
    return refiner


def load_refined(refiner: Refiner, folder: Path) -> None:
    """Load what stage two trained on top of the base: `refine.safetensors` and the adapters, which are left unmerged.

    Raises BadInput naming the file and the tensor that is missing, left over or of another shape.
    """
    path = folder / REFINED_FILE
    state = read_tensors(path)
    own = {name: t for name, t in refiner.state_dict().items() if name.startswith(("prior.", "blocks."))}
    own |= {name: refiner.state_dict()[name] for name in ("unet.conv_in.weight", "unet.conv_in.bias")}
    check(own, state, str(path))
    refiner.load_state_dict(state, strict=False)
    add_lora(refiner)
    for name, (network, _, _) in adapted(refiner).items():
        file = folder / LORA_FOLDER / f"{name}.safetensors"
        adapter = read_tensors(file)
        check(get_peft_model_state_dict(network, adapter_name=ADAPTER), adapter, str(file))
        set_peft_model_state_dict(network, adapter, adapter_name=ADAPTER)


def refined_state(refiner: Refiner) -> dict[str, Tensor]:
    """The tensors of `refine.safetensors`."""
    kept = ("prior.", "blocks.", "unet.conv_in.")
    return {name: tensor.contiguous() for name, tensor in refiner.state_dict().items() if name.startswith(kept)}


def widened(state: Mapping[str, Tensor], latent_channels: int) -> dict[str, Tensor]:
    """The UNet's weights with zeros for L0's channels in `conv_in`, where the base has none."""
    weight = state.get("conv_in.weight")
    if weight is None or weight.shape[1] != latent_channels:
        return dict(state)
    return {**state, "conv_in.weight": torch.cat([weight, torch.zeros_like(weight)], dim=1)}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file in float32. Raises BadInput when it is missing, cut short or something else."""
    if path.suffix != ".safetensors":
        raise BadInput(f"{path} is no .safetensors file; convert it with `hdrgen packs add` first")
    try:
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error


def _use_scaling(refiner: Refiner, folder: Path) -> None:
    """Take the latents' scale from the VAE's own config.json, where it states one."""
    factor = config_of(folder).get("scaling_factor", refiner.config.vae.scaling_factor)
    for vae in (refiner.vae, refiner.condition):
        vae.register_to_config(scaling_factor=factor)


def _fill_encoders(refiner: Refiner, state: Mapping[str, Tensor], where: str) -> None:
    """The VAE, and a copy of its encoder for L0."""
    fill(refiner.vae, state, where)
    encoder = {name: tensor.clone() for name, tensor in state.items() if name.startswith(("encoder.", "quant_conv."))}
    fill(refiner.condition, encoder, where)


def _from_folder(folder: Path, network: type[AutoencoderKL] | type[UNet2DConditionModel]) -> dict[str, Tensor]:
    """One network's weights, read by diffusers, which knows the older names in published folders."""
    try:
        loaded: Any = network.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, torch_dtype=torch.float32
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise BadInput(f"{folder} cannot be loaded: {_first_line(error)}; fetch or add it again") from error
    module, notes = loaded
    if notes["missing_keys"]:
        raise BadInput(f"{folder} has no tensor {min(notes['missing_keys'])}; its {WEIGHTS} is not complete")
    return module.state_dict()


def _from_file(config: RefinerConfig, path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """VAE and UNet out of one file in the original layout, renamed by diffusers' own tables; the rest is not read."""
    if path.suffix != ".safetensors":
        raise BadInput(f"{path} is no .safetensors file; give one, or a folder as diffusers saves it")
    state: dict[str, Tensor] = {}
    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            check_single(path, file.metadata() or {}, names)
            for name in names:
                if name.startswith((LDM_VAE, LDM_UNET)):
                    state[name] = file.get_tensor(name).float()
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error
    for prefix in (LDM_VAE, LDM_UNET):
        if not any(name.startswith(prefix) for name in state):
            raise BadInput(f"{path} has no tensors named {prefix}*; it is no Stable Diffusion 2.1 checkpoint; {NEEDED}")
    latent = config.vae.latent_channels
    try:
        vae = convert_ldm_vae_checkpoint(state, config.vae.arguments())
        unet = convert_ldm_unet_checkpoint(state, config.unet.arguments(latent, latent))
    except (KeyError, IndexError) as error:
        raise BadInput(f"{path} lacks {error}; it belongs to another model family; {NEEDED}") from error
    return vae, unet


def _unreadable(path: Path, error: BaseException) -> BadInput:
    return BadInput(f"{path} cannot be read as safetensors ({_first_line(error)}); fetch or add it again")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
