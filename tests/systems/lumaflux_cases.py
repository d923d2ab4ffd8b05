"""Small LumaFlux configurations and networks for tests."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from safetensors.torch import save_file
from transformers import SiglipVisionConfig, SiglipVisionModel

from hdrgen_server.systems.gmodiff.refine.config import VAEConfig
from hdrgen_server.systems.lumaflux.adapters import Adapters
from hdrgen_server.systems.lumaflux.config import CONFIGS, AdapterConfig, EncoderConfig, FluxConfig, LumaFluxConfig

torch.set_num_threads(1)
TINY_FLUX = FluxConfig(16, 1, 2, 2, 16, 24, 12, guidance_embeds=True, axes_dims_rope=(4, 6, 6))
TINY_VAE = VAEConfig((8, 16), layers_per_block=1, norm_num_groups=4, scaling_factor=0.7, sample_size=32)
TINY = LumaFluxConfig(
    TINY_FLUX, TINY_VAE, EncoderConfig(16, 32, 1, 2, 16, 4), AdapterConfig(bottleneck=6), vae_shift=0.1
)
PUBLISHED = CONFIGS["published"]


def random_flux(config: LumaFluxConfig = TINY, seed: int = 0) -> FluxTransformer2DModel:
    """A transformer with random weights."""
    torch.manual_seed(seed)
    return FluxTransformer2DModel(**config.flux.arguments()).eval()


def new_adapters(config: LumaFluxConfig = TINY, seed: int = 1) -> Adapters:
    """Adapters as they start: without effect."""
    torch.manual_seed(seed)
    return Adapters(config).eval()


def stirred(adapters: Adapters, amount: float = 0.1, seed: int = 2) -> Adapters:
    """Noise on every parameter, so that no path is without effect."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in adapters.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=amount)
    return adapters


def reduced(config: LumaFluxConfig = PUBLISHED, layers: int = 2, single: int = 4) -> LumaFluxConfig:
    """The published widths at a reduced depth."""
    return replace(config, flux=replace(config.flux, layers=layers, single_layers=single))


def write_pack(folder: Path, config: LumaFluxConfig = TINY, seed: int = 3) -> Path:
    """A pack's folder of random networks, as diffusers and transformers save them, with a manifest that names no files.

    SigLIP's folder is as published: the whole model's config, tensors named `vision_model.*`, text tensors beside them.
    """
    torch.manual_seed(seed)
    random_flux(config).save_pretrained(folder / "transformer")
    AutoencoderKL(**config.vae_arguments()).save_pretrained(folder / "vae")
    write_siglip(folder / "siglip", config)
    save_file(dict(stirred(new_adapters(config), 0.02).state_dict()), folder / "adapters.safetensors")
    (folder / "pack.toml").write_text(
        'format = 1\nname = "lumaflux-tiny"\nsystem = "lumaflux"\nlicence = "Apache-2.0"\n[options]\nconfig = "tiny"\n'
    )
    return folder


def write_siglip(folder: Path, config: LumaFluxConfig) -> None:
    """The image encoder as google/siglip-* lay it out."""
    vision = SiglipVisionModel(SiglipVisionConfig(**config.encoder.arguments()))
    state = {f"vision_model.{name}": tensor for name, tensor in vision.state_dict().items()}
    state |= {"text_model.final_layer_norm.weight": torch.ones(4), "vision_model.head.probe": torch.zeros(1, 1, 4)}
    folder.mkdir(parents=True)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    vision_config = {k: v for k, v in config.encoder.arguments().items() if k != "vision_use_head"}
    table = {"model_type": "siglip", "text_config": {}, "vision_config": vision_config}
    (folder / "config.json").write_text(json.dumps(table))
