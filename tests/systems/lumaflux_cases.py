"""Small LumaFlux configurations and networks for tests."""

from __future__ import annotations

from dataclasses import replace

import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

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
