"""Fills a LumiVid from files: a diffusers folder's networks, the published IC-LoRA and its scene embeddings.

It owns the files' layout and every complaint about them. It must not know windows, training or pickles: nothing here
opens one.

A pack holds `transformer/` and `vae/` as LTX-2.3's diffusers release has them, `latent_upsampler/` where there are two
stages, `scene.safetensors` (`video_context`, `audio_context`) and, on a published base, `lora.safetensors`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.lora_pipeline import LTX2LoraLoaderMixin
from diffusers.models.autoencoders.autoencoder_kl_ltx2 import AutoencoderKLLTX2Video
from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel
from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel
from peft import LoraConfig, set_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from hdrgen_server.networks.weight_files import first_line, from_folder, read
from hdrgen_server.packs.assemble_lumivid import LOGC3
from hdrgen_server.systems.lumivid.config import LumiVidConfig
from hdrgen_server.systems.lumivid.model import LumiVid
from nuke_hdrgen.wire.errors import BadInput

TRANSFORMER, VAE, UPSAMPLER = "transformer", "vae", "latent_upsampler"
SCENE_FILE, LORA_FILE = "scene.safetensors", "lora.safetensors"
CONTEXTS = ("video_context", "audio_context")
ADAPTER, PREFIX = "hdrgen", "transformer."
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
SCALE, TRANSFORM = "reference_downscale_factor", "hdr_transform"
"""What the LoRA's metadata says: how many times smaller the reference is shown, and the curve of the codes."""
STRUCTURE = ("latent_channels", "spatial_compression_ratio", "temporal_compression_ratio")
"""What of a VAE's config.json must be as the configuration has it; the rest may be another release's."""


def load_lumivid(config: LumiVidConfig, folder: Path, dtype: torch.dtype) -> LumiVid:
    """The networks in a pack's folder, on the CPU; the transformer in `dtype`, VAE and upsampler in float32.

    Raises BadInput naming the file and what in it is wrong.
    """
    transformer = load_transformer(config, folder, dtype)
    scale = 1
    if (folder / LORA_FILE).is_file():
        scale = load_lora(transformer, folder / LORA_FILE)
    upsampler = _load_upsampler(config, folder) if config.upsampler else None
    contexts = load_contexts(config, folder / SCENE_FILE)
    model = LumiVid(config, transformer.eval(), load_vae(config, folder).eval(), upsampler, contexts, scale)
    return model.requires_grad_(requires_grad=False)


def load_transformer(config: LumiVidConfig, folder: Path, dtype: torch.dtype) -> LTX2VideoTransformer3DModel:
    """The transformer in a pack's folder, by diffusers, which joins its parts. Raises BadInput."""
    place = folder / TRANSFORMER
    _check(place, config.transformer_arguments())
    return from_folder(LTX2VideoTransformer3DModel, place, torch_dtype=dtype).requires_grad_(requires_grad=False)


def load_vae(config: LumiVidConfig, folder: Path) -> AutoencoderKLLTX2Video:
    """The VAE in a pack's folder, in float32. Raises BadInput."""
    place = folder / VAE
    arguments = config.vae.arguments()
    found = _check(place, {name: arguments[name] for name in STRUCTURE})
    if found.get("timestep_conditioning"):
        raise BadInput(f"{place} holds a VAE whose decoder takes a time step; give the one of LTX-2.3")
    return from_folder(AutoencoderKLLTX2Video, place, torch_dtype=torch.float32).requires_grad_(requires_grad=False)


def _load_upsampler(config: LumiVidConfig, folder: Path) -> LTX2LatentUpsamplerModel:
    assert config.upsampler is not None
    place = folder / UPSAMPLER
    found = _check(place, {"in_channels": config.upsampler.channels, "dims": 3})
    if not found.get("spatial_upsample", True) or found.get("temporal_upsample", False):
        raise BadInput(f"{place} is no upsampler of height and width; give LTX-2.3's spatial one, which doubles them")
    upsampler = from_folder(LTX2LatentUpsamplerModel, place, torch_dtype=torch.float32)
    return upsampler.requires_grad_(requires_grad=False).eval()


def load_contexts(config: LumiVidConfig, path: Path) -> tuple[Tensor, Tensor]:
    """The scene embeddings (1, T, width) of video and audio, in float32. Raises BadInput."""
    state = read(path)
    widths = config.transformer.width, config.transformer.audio_width
    found: list[Tensor] = []
    for name, width in zip(CONTEXTS, widths, strict=True):
        tensor = state.get(name)
        if tensor is None:
            raise BadInput(f"{path} has no tensor {name}; give the scene embeddings that are published with the LoRA")
        tensor = tensor[None] if tensor.ndim == 2 else tensor
        if tensor.ndim != 3 or tensor.shape[0] != 1 or tensor.shape[2] != width or not tensor.isfinite().all():
            raise BadInput(f"{path}: {name} is {tuple(tensor.shape)}, not finite (1, tokens, {width})")
        found.append(tensor.float())
    return found[0], found[1]


def load_lora(transformer: LTX2VideoTransformer3DModel, path: Path) -> int:
    """Put a LoRA in the published spelling (`diffusion_model.`) or diffusers' beside a transformer's weights; how many
    times smaller its reference is. Raises BadInput for another base's, half a pair, or another curve than LogC3.
    """
    metadata = _metadata(path)
    if metadata.get(TRANSFORM, "logc3") not in LOGC3:
        raise BadInput(f"{path} makes {metadata[TRANSFORM]} codes; LumiVid decodes logc3 alone")
    try:
        scale = int(metadata.get(SCALE, "1"))
    except ValueError as error:
        raise BadInput(f"{path}: {SCALE} is {metadata[SCALE]!r}, which is no whole number; fetch it again") from error
    if scale < 1:
        raise BadInput(f"{path}: {SCALE} is {scale}; it must be 1 or more")
    spelled: Any = LTX2LoraLoaderMixin.lora_state_dict(read(path))
    state = {name.removeprefix(PREFIX): tensor for name, tensor in spelled.items()}
    ranks = _check_lora(transformer, state, path)
    dtype: Any = transformer.dtype
    add_adapter(transformer, ranks)
    set_peft_model_state_dict(transformer, state, adapter_name=ADAPTER)
    if dtype is not torch.float32:  # peft makes adapters in float32
        transformer.to(dtype)
    return scale


def add_adapter(transformer: LTX2VideoTransformer3DModel, ranks: Mapping[str, int], init: Any = True) -> None:
    """Untrained adapters on these modules, scaled by 1; `init` as peft's `init_lora_weights`."""
    most = max(ranks.values())
    each = {f"^{path}$".replace(".", r"\."): rank for path, rank in ranks.items()}
    transformer.add_adapter(
        LoraConfig(
            r=most, lora_alpha=most, rank_pattern=each, alpha_pattern=each, init_lora_weights=init,
            target_modules=list(ranks),
        ),
        ADAPTER,
    )  # fmt: skip


def _check_lora(transformer: LTX2VideoTransformer3DModel, state: Mapping[str, Tensor], path: Path) -> Mapping[str, int]:
    modules = dict(transformer.named_modules())
    ranks: dict[str, int] = {}
    for name, tensor in state.items():
        suffix = next((suffix for suffix in (DOWN, UP) if name.endswith(suffix)), "")
        place = name.removesuffix(suffix)
        module = modules.get(place)
        if not suffix or not isinstance(module, nn.Linear):
            raise BadInput(f"{path} adapts {place}, which LTX-2.3 has not; give the IC-LoRA HDR of LTX-2.3")
        down, up = state.get(place + DOWN), state.get(place + UP)
        if down is None or up is None:
            raise BadInput(f"{path} has only one half of the adapter of {place}; fetch it again")
        if (down.shape[1:], up.shape[:1], down.shape[:1]) != (
            (module.in_features,), (module.out_features,), up.shape[1:],
        ):  # fmt: skip
            raise BadInput(f"{path}: the adapter of {place} is one for another base; give one for LTX-2.3 of this size")
        if not bool(tensor.isfinite().all()):
            raise BadInput(f"{path}: tensor {name} holds NaN or Inf; fetch it again")
        ranks[place] = down.shape[0]
    if not ranks:
        raise BadInput(f"{path} holds no adapter; give the IC-LoRA HDR of LTX-2.3")
    return ranks


def _check(folder: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """A folder's config.json. Raises BadInput where it is another model's or size's."""
    path = folder / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{path} cannot be read; a pack of LumiVid holds {folder.name}/ as diffusers saved it"
        ) from error
    if not isinstance(found, dict):
        raise BadInput(f"{path} is no table of settings; fetch or add the folder again")
    for name, value in wanted.items():
        if name in found and found[name] != (list(value) if isinstance(value, tuple) else value):
            raise BadInput(f"{path}: {name} is {found[name]}, this pack needs {value}; it holds another model or size")
    return found


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{path} cannot be read as safetensors ({first_line(error)}); fetch or add it again") from error
