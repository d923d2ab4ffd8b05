"""Fills a QwenImage from files: a diffusers folder's networks, and a LoRA of any spelling on top.

It owns the files' layout and every complaint about them. It must not know tiles, training or pickles: nothing here
opens one.

A pack holds `transformer/`, `vae/` and, where Qwen2.5-VL reads the prompt, `text_encoder/` and `tokenizer/`, each as
Qwen/Qwen-Image has it; `scheduler/` and `lora.safetensors` may be there. A VAE may be stored for stills alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from safetensors import SafetensorError
from torch import Tensor

from hdrgen_server.networks.tensors import fill
from hdrgen_server.networks.weight_files import first_line, read
from hdrgen_server.systems.qwenlog import lora
from hdrgen_server.systems.qwenlog.config import FlowConfig, QwenConfig
from hdrgen_server.systems.qwenlog.model import QwenImage
from hdrgen_server.systems.qwenlog.stills import all_taps
from hdrgen_server.systems.qwenlog.text import load_text
from nuke_hdrgen.wire.errors import BadInput

TRANSFORMER, VAE = "transformer", "vae"
SCHEDULER_FILE = Path("scheduler") / "scheduler_config.json"
LORA_FILE = "lora.safetensors"
LATENTS = ("latents_mean", "latents_std")
"""What a VAE's config.json may say otherwise: its own latents' mean and deviation."""


def load_qwen(config: QwenConfig, folder: Path, dtype: torch.dtype) -> QwenImage:
    """The networks in a pack's folder, on the CPU; transformer and text encoder in `dtype`, the VAE in float32.

    Raises BadInput naming the file and what in it is wrong.
    """
    text = load_text(config.text, folder, dtype)
    vae = load_vae(config, folder)
    transformer = load_transformer(config, folder, dtype)
    if (folder / LORA_FILE).is_file():
        lora.load(transformer, read(folder / LORA_FILE), str(folder / LORA_FILE))
    return QwenImage(with_flow(config, folder), transformer.eval(), vae.eval(), text)


def load_transformer(config: QwenConfig, folder: Path, dtype: torch.dtype) -> QwenImageTransformer2DModel:
    """The transformer in a pack's folder, by diffusers, which joins its parts. Raises BadInput."""
    place = folder / TRANSFORMER
    check_config(place, config.transformer.arguments())
    try:
        found: Any = QwenImageTransformer2DModel.from_pretrained(
            place, local_files_only=True, use_safetensors=True, output_loading_info=True, torch_dtype=dtype
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise BadInput(f"{place} cannot be loaded: {first_line(error)}; fetch or add it again") from error
    module, notes = found
    lacking = [*notes["missing_keys"], *(str(key[0]) for key in notes["mismatched_keys"])]
    if lacking:
        raise BadInput(f"{place} has no tensor {min(lacking)} of the right shape; fetch or add it again")
    return module.requires_grad_(requires_grad=False)


def load_vae(config: QwenConfig, folder: Path) -> AutoencoderKLQwenImage:
    """The VAE in a pack's folder, in float32, with its own latents' mean and deviation. Raises BadInput."""
    place = folder / VAE
    found = check_config(place, config.vae.arguments())
    arguments: dict[str, Any] = config.vae.arguments() | latents_of(config, found, place)
    with torch.device("meta"):
        vae = AutoencoderKLQwenImage(**arguments)
    state: dict[str, Tensor] = {}
    for path in sorted(place.glob("*.safetensors")):
        state |= read(path)
    fill(vae, all_taps({name: tensor.float() for name, tensor in state.items()}, vae), str(place))
    return vae


def latents_of(config: QwenConfig, found: Mapping[str, Any], place: Path) -> dict[str, Any]:
    """The latents' mean and deviation that a VAE's config.json states, else the configuration's. Raises BadInput."""
    stated: dict[str, list[float]] = {}
    for name in LATENTS:
        values = found.get(name, list(getattr(config.vae, name)))
        if not isinstance(values, list) or len(values) != config.vae.latent_channels:
            raise BadInput(f"{place / 'config.json'}: {name} needs {config.vae.latent_channels} numbers")
        stated[name] = [float(value) for value in values]
    if min(stated["latents_std"]) <= 0:
        raise BadInput(f"{place / 'config.json'}: latents_std must be above 0")
    return stated


def with_flow(config: QwenConfig, folder: Path) -> QwenConfig:
    """The configuration with the noise levels of the folder's own scheduler, where it has one. Raises BadInput."""
    path = folder / SCHEDULER_FILE
    if not path.is_file():
        return config
    table = table_of(path)
    known = {field.name for field in fields(FlowConfig)}
    return replace(config, flow=replace(config.flow, **{k: v for k, v in table.items() if k in known}))


def check_config(place: Path, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    """A folder's config.json. Raises BadInput where it is another model's or size's."""
    path = place / "config.json"
    table = table_of(path)
    for name, value in wanted.items():
        if name in LATENTS or name not in table:
            continue
        if _plain(table[name]) != _plain(value):
            raise BadInput(
                f"{path}: {name} is {_plain(table[name])}, this pack needs {_plain(value)}; the folder holds another "
                "model or size"
            )
    return table


def table_of(path: Path) -> dict[str, Any]:
    """A JSON file's settings. Raises BadInput."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{path} cannot be read; a pack of Qwen-Image holds {path.parent.name}/ as it was saved"
        ) from error
    if not isinstance(found, dict):
        raise BadInput(f"{path} is no table of settings; fetch or add the folder again")
    return found


def _plain(value: object) -> object:
    return list(value) if isinstance(value, (list, tuple)) else value
