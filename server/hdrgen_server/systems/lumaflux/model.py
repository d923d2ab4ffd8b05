"""LumaFlux as one thing: the frozen transformer, VAE and image encoder, and the adapters that steer them.

It owns which network does what to codes and latents. It must not know tiles, frames, files or training. Codes are
(B, 3, H, W) in [0, 1]; SDR ones are BT.709 for a BT.1886 display, HDR ones PQ of BT.2020. Latents are (B, C, h, w),
shifted and scaled as the transformer takes them.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from torch import Tensor
from torch.nn import functional as F
from transformers import SiglipVisionModel

from hdrgen_server.systems.lumaflux.adapters import Adapters, Conditions
from hdrgen_server.systems.lumaflux.config import LumaFluxConfig
from hdrgen_server.systems.lumaflux.steered import SteeredFlux
from hdrgen_server.systems.lumaflux.tonefield import Field


class LumaFlux:
    """The networks of one pack. The VAE works in float32: half precision bands PQ codes."""

    def __init__(
        self,
        config: LumaFluxConfig,
        transformer: FluxTransformer2DModel,
        vae: AutoencoderKL,
        encoder: SiglipVisionModel,
        adapters: Adapters,
    ) -> None:
        self.config, self.adapters = config, adapters
        self.vae = vae.requires_grad_(requires_grad=False)
        self.encoder = encoder.requires_grad_(requires_grad=False)
        self.steered = SteeredFlux(transformer)
        self.device = torch.device("cpu")
        settings: Any = vae.config
        self._scale = float(settings.scaling_factor)
        self._shift = float(settings.shift_factor or 0.0)

    @property
    def dtype(self) -> torch.dtype:
        """The transformer's precision."""
        return self.steered.transformer.dtype

    def to(self, device: torch.device) -> LumaFlux:
        """Move every network to a device; the blocks' adapters take the transformer's precision."""
        self.device = device
        modules: list[Any] = [self.steered.transformer, self.vae, self.encoder, self.adapters]
        for module in modules:
            module.to(device)
        self.adapters.transformer.to(self.dtype)
        return self

    def encode(self, codes: Tensor) -> Tensor:
        """The most likely latent of codes; H and W are multiples of the VAE's factor."""
        encoded: Any = self.vae.encode(2 * codes - 1)
        return (encoded.latent_dist.mode() - self._shift) * self._scale

    def decode(self, latent: Tensor) -> Tensor:
        """The codes of a latent, as the VAE gives them: they may lie a little outside [0, 1]."""
        vae: Any = self.vae
        decoded: Tensor = vae.decode(latent / self._scale + self._shift).sample
        return (decoded + 1) / 2

    def field(self, conditions: Conditions, final: Tensor) -> Field:
        """The tone field of a picture's final latent."""
        return self.adapters.rqs.field(torch.cat([final.float().mean(dim=(2, 3)), conditions.tones.float()], dim=1))

    def finish(self, codes: Tensor, field: Field, strength: float = 1.0) -> Tensor:
        """Decoded PQ codes through the tone field, up to the peak."""
        peak = self.adapters.rqs.peak_code
        if "rqs" in self.adapters.without:
            return codes.clamp(0, peak)
        return self.adapters.rqs(codes, field, strength)

    def shown(self, codes: Tensor) -> Tensor:
        """The image encoder's tokens of a whole picture, (B, P, C): it sees it brought to its own square."""
        side = self.config.encoder.image_size
        square = F.interpolate(codes, size=(side, side), mode="bilinear", align_corners=False)
        encoder: Any = self.encoder
        return encoder(pixel_values=(2 * square - 1).to(self.encoder.dtype)).last_hidden_state.float()

    def condition(self, codes: Tensor) -> Conditions:
        """The conditions of a whole picture's SDR codes; H and W are multiples of a token's cell."""
        return self.adapters.condition(codes, self.shown(codes)).to(self.device, self.dtype)

    def velocity(self, conditions: Conditions, latent: Tensor, time: Tensor) -> Tensor:
        """The steered transformer's velocity at latents and flow times (B,), in float32."""
        return self.steered.velocity(self.adapters, conditions, latent.to(self.dtype), time).float()
