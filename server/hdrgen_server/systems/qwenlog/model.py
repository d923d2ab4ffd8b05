"""Qwen-Image as one thing: frozen text encoder and VAE, and the transformer between noise and a picture's latent.

It owns which network does what, and the wrap-around of panoramas. It must not know tiles, frames, files, curves or
training. Pictures are (B, C, H, W) nominally in [-1, 1], latents (B, Z, h, w) with zero mean and unit deviation.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from torch import Tensor

from hdrgen_server.systems.qwenlog import stills
from hdrgen_server.systems.qwenlog.config import PATCH, QwenConfig
from hdrgen_server.systems.qwenlog.flow import pack, unpack
from hdrgen_server.systems.qwenlog.text import TextEncoder

WRAP = 8
"""Latents that a panorama is continued by on either side, from its other one: half the least width at most."""


def wrapped(latents: Tensor, by: int) -> Tensor:
    """Latents or pictures continued on the left and right from the other side."""
    return torch.cat([latents[..., -by:], latents, latents[..., :by]], dim=-1) if by else latents


def wrap_of(width: int, multiple: int = PATCH) -> int:
    """By how much a panorama of this width is continued: WRAP, or half of a narrow one, in whole multiples."""
    return min(WRAP, width // 2) // multiple * multiple


class QwenImage:
    """The networks of one pack. The VAE works in float32: half precision bands log codes."""

    def __init__(
        self,
        config: QwenConfig,
        transformer: QwenImageTransformer2DModel,
        vae: AutoencoderKLQwenImage,
        text: TextEncoder,
    ) -> None:
        self.config, self.transformer, self.text = config, transformer, text
        self.vae = stills.for_stills(vae.requires_grad_(requires_grad=False))
        self.device = torch.device("cpu")
        settings: Any = vae.config
        self._mean = torch.tensor(settings.latents_mean)[None, :, None, None]
        self._deviation = torch.tensor(settings.latents_std)[None, :, None, None]

    def to(self, device: torch.device) -> QwenImage:
        """Move every network to a device."""
        self.device = device
        modules: list[Any] = [self.transformer, self.vae, *self.text.modules()]
        for module in modules:
            module.to(device)
        self._mean, self._deviation = self._mean.to(device), self._deviation.to(device)
        return self

    def encode(self, pictures: Tensor) -> Tensor:
        """The most likely latent of pictures; H and W are multiples of the VAE's factor."""
        mean, _ = stills.encode(self.vae, pictures)
        return (mean - self._mean) / self._deviation

    def decode(self, latents: Tensor) -> Tensor:
        """The pictures of latents, wherever their values lie."""
        return stills.decode(self.vae, latents * self._deviation + self._mean)

    def zero(self) -> Tensor:
        """The latent (1, Z, 1, 1) that stands for zeros of the VAE."""
        return -self._mean / self._deviation

    def velocity(
        self, latents: Tensor, level: Tensor, prompt: Tensor, mask: Tensor | None = None, *, panorama: bool = False
    ) -> Tensor:
        """The velocity of latents at noise levels (B,) towards what prompts (B, T, width) say, in float32.

        A panorama sees its other side beyond its left and right edge; what is found there is left out.
        """
        by = wrap_of(latents.shape[-1]) if panorama else 0
        seen = wrapped(latents, by)
        height, width = seen.shape[2:]
        network, dtype = self.transformer, self.transformer.dtype
        tokens: Tensor = network(
            hidden_states=pack(seen).to(dtype),
            encoder_hidden_states=prompt.to(dtype),
            encoder_hidden_states_mask=mask,
            timestep=level.to(dtype),
            img_shapes=[[(1, height // PATCH, width // PATCH)]] * len(latents),
            return_dict=False,
        )[0]
        found = unpack(tokens.float(), height, width)
        return found[..., by : width - by] if by else found
