"""GMODiff's stage two: the initial gain map, encoded, denoised in one step under c_L and L0, and decoded (Eq. 6 to 8).

It owns the networks' order and arithmetic on whole tensors. It must not know tiles, files, training or the regressor.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor, nn

from hdrgen_server.systems.gmodiff.config import CONFIGS
from hdrgen_server.systems.gmodiff.refine.config import RefinerConfig, Schedule
from hdrgen_server.systems.gmodiff.refine.decoder import (
    decode,
    encoder_features,
    latent_of,
    plain_decode,
    refinement_blocks,
)
from hdrgen_server.systems.gmodiff.refine.prior import Prior, ReleasedPrior, tokens


class Refiner(nn.Module):
    """VAE, a second encoder for L0, the denoising network with a doubled input, c_L's projection, refinement blocks.

    As built, without LoRA and before weights are loaded, everything that the document adds to the stock networks is
    without effect: `conv_in` has a zero half for L0 and the refinement blocks end in zeros.

    Its parts may be held in number formats of their own: images and c_L go in, and latents and images come out, in
    float32; features stay as the encoder made them.
    """

    def __init__(self, config: RefinerConfig) -> None:
        super().__init__()
        self.config = config
        latent = config.vae.latent_channels
        self.vae = AutoencoderKL(**config.vae.arguments())
        self.condition = encoder_only(AutoencoderKL(**config.vae.arguments()))
        self.unet = UNet2DConditionModel(**config.unet.arguments(2 * latent, latent))
        nn.init.zeros_(self.unet.conv_in.weight[:, latent:])
        self.prior, self.blocks = additions(config)
        self.signal, self.noise = signal_and_noise(config.schedule)

    def features(self, gain: Tensor) -> list[Tensor]:
        """The encoder's features, finest first, of a gain map (B, 3, H, W) in [0, 1]."""
        return encoder_features(self.vae, (2 * gain - 1).to(dtype_of(self.vae.encoder)))

    def latent(self, features: list[Tensor]) -> Tensor:
        """Z_L (B, C, h, w) of the gain map with these features."""
        return latent_of(self.vae, features).float()

    def condition_latent(self, under_codes: Tensor) -> Tensor:
        """The latent of the under-exposed frame L0, codes (B, 3, H, W) in [0, 1]."""
        codes = (2 * under_codes - 1).to(dtype_of(self.condition))
        return latent_of(self.condition, encoder_features(self.condition, codes)).float()

    def embeddings(self, pooled: Tensor) -> Tensor:
        """c_L (B, D, rows, columns) of the regressor's features, pooled to one cell a vector."""
        return self.prior(pooled.to(dtype_of(self.prior))).float()

    def denoise(self, latent: Tensor, condition: Tensor, prior: Tensor) -> Tensor:
        """Eq. 6: one step at the fixed T from the latent of the initial gain map, all (B, C, h, w)."""
        time = torch.full((latent.shape[0],), self.config.schedule.timestep, device=latent.device)
        dtype = dtype_of(self.unet)
        both = torch.cat([latent, condition], dim=1).to(dtype)
        predicted: Any = self.unet(both, time, encoder_hidden_states=tokens(prior).to(dtype))
        return (latent - self.noise * predicted.sample.float()) / self.signal

    def decode(self, latent: Tensor, features: list[Tensor], prior: Tensor) -> Tensor:
        """The Degradation-Aware Decoder: a gain map (B, 3, H, W), not limited to [0, 1]."""
        dtype = dtype_of(self.vae.decoder)
        features = [feature.to(dtype) for feature in features]
        return (decode(self.vae, latent.to(dtype), self.blocks, features, prior.to(dtype)).float() + 1) / 2

    def change(self, initial: Tensor, refined: Tensor, features: list[Tensor], prior: Tensor) -> Tensor:
        """What the step changed: both latents decoded, the difference as a gain map (B, 3, H, W)."""
        plain = plain_decode(self.vae, initial.to(dtype_of(self.vae.decoder))).float()
        return self.decode(refined, features, prior) - (plain + 1) / 2

    def forward(self, gain: Tensor, mask: Tensor, under_codes: Tensor, prior: Tensor) -> Tensor:
        """The refined gain map (B, 3, H, W) in [0, 1] of a whole image.

        Takes the initial map, the degradation mask (B, 1, H, W), L0's codes and c_L (B, D, rows, columns); H and W are
        multiples of `multiple`.
        """
        features = self.features(gain)
        initial = self.latent(features)
        refined = self.denoise(initial, self.condition_latent(under_codes), prior)
        if self.config.merge == "decoded":
            return self.decode(refined, features, prior).clamp(0, 1)
        return (
            gain + mask_weight(mask, self.config.mask_range) * self.change(initial, refined, features, prior)
        ).clamp(0, 1)

    @property
    def multiple(self) -> int:
        """Pixels that each side, and a tile's start, must be a multiple of: VAE's times UNet's, and c_L's."""
        return math.lcm(self.config.vae.factor << (len(self.config.unet.block_out_channels) - 1), self.config.token)


def dtype_of(module: nn.Module) -> torch.dtype:
    """The number format that a module's weights are in."""
    return next(module.parameters()).dtype


def additions(config: RefinerConfig) -> tuple[Prior | ReleasedPrior, nn.ModuleList]:
    """What no base model has: c_L's projection and the refinement blocks, with their first values."""
    widths, width = CONFIGS[config.regressor].widths, config.unet.cross_attention_dim
    released = config.decoder == "released"
    prior = ReleasedPrior(widths[-1], config.token, width) if released else Prior(widths, width)
    return prior, refinement_blocks(config)


def use_released_initialisation(refiner: Refiner) -> None:
    """Start L0's half of conv_in as the public code does: normal, with the deviation of the other half."""
    latent = refiner.config.vae.latent_channels
    with torch.no_grad():
        weight = refiner.unet.conv_in.weight
        weight[:, latent:] = torch.randn_like(weight[:, latent:]) * weight[:, :latent].std()


def mask_weight(mask: Tensor, mask_range: tuple[float, float]) -> Tensor:
    """How much of a change is taken where the degradation mask has these values: 0 up to the range's first value, then
    rising to 1 at its second.
    """
    start, end = mask_range
    return ((mask - start) / (end - start)).clamp(0, 1)


def encoder_only(vae: AutoencoderKL) -> AutoencoderKL:
    """The VAE without what decodes."""
    del vae.decoder, vae.post_quant_conv
    return vae


def signal_and_noise(schedule: Schedule) -> tuple[float, float]:
    """Square roots of the schedule's cumulative alpha, and of one minus it, at T."""
    with torch.device("cpu"):
        scheduler = DDPMScheduler(
            num_train_timesteps=schedule.steps,
            beta_start=schedule.beta_start,
            beta_end=schedule.beta_end,
            beta_schedule="scaled_linear",
        )
    kept = float(scheduler.alphas_cumprod[schedule.timestep])
    return kept**0.5, (1 - kept) ** 0.5
