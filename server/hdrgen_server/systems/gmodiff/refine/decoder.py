"""The Degradation-Aware Decoder of GMODiff (Eq. 7, 8): a VAE's decoder that also sees its encoder's features.

It owns the refinement blocks and the walk through a diffusers `AutoencoderKL`. It must not know denoising, tiles or
files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F

from hdrgen_server.systems.gmodiff.refine.config import RefinerConfig, VAEConfig

RELEASED_SKIP = 1e-5


class RefinementBlock(nn.Module):
    """Eq. 7 and 8: joins decoder and encoder features, gates them by c_L and adds them.

    The document calls the gate a channel-wise vector from the set c_L; here every vector of c_L gates the channels of
    its own cell, so that a tile sees the gates that the whole frame would see. The last convolution starts at zero.
    """

    def __init__(self, channels: int, skip_channels: int, prior_width: int) -> None:
        super().__init__()
        self.join = nn.Conv2d(channels + skip_channels, skip_channels, 3, padding=1)
        self.gate = nn.Sequential(
            nn.Linear(prior_width, skip_channels), nn.SiLU(), nn.Linear(skip_channels, skip_channels)
        )
        self.out = nn.Conv2d(skip_channels, channels, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        if self.out.bias is not None:
            nn.init.zeros_(self.out.bias)

    def forward(self, decoded: Tensor, encoded: Tensor, prior: Tensor) -> Tensor:
        """Decoder features (B, C, h, w), with encoder features (B, S, h, w) under c_L (B, D, rows, columns) added."""
        joined = self.join(torch.cat([decoded, encoded], dim=1))
        return decoded + self.out(joined * self.gates(prior, joined.shape[2:]))

    def gates(self, prior: Tensor, size: Sequence[int]) -> Tensor:
        """What c_L multiplies the joined features by, (B, S, *size), in (0, 1)."""
        gate = torch.sigmoid(self.gate(prior.movedim(1, -1)).movedim(-1, 1))
        return F.interpolate(gate, size=tuple(size), mode="bilinear", align_corners=False)


class ReleasedBlock(nn.Module):
    """The public code's form: encoder features through a 1x1 convolution, gated by one vector for the whole frame."""

    def __init__(self, channels: int, skip_channels: int, prior_width: int) -> None:
        super().__init__()
        self.skip = nn.Conv2d(skip_channels, channels, 1, bias=False)
        self.gate = nn.Sequential(nn.Linear(prior_width, channels), nn.ReLU(), nn.Linear(channels, channels))
        nn.init.constant_(self.skip.weight, RELEASED_SKIP)

    def forward(self, decoded: Tensor, encoded: Tensor, prior: Tensor) -> Tensor:
        """As `RefinementBlock.forward`."""
        gate = torch.sigmoid(self.gate(prior.mean(dim=(2, 3))))
        return decoded + self.skip(encoded) * gate[:, :, None, None]


BLOCKS = {"published": RefinementBlock, "released": ReleasedBlock}


def refinement_blocks(config: RefinerConfig) -> nn.ModuleList:
    """One block before each up block of the decoder, coarsest first."""
    block = BLOCKS[config.decoder]
    return nn.ModuleList(
        block(channels, skip, config.unet.cross_attention_dim) for channels, skip in block_channels(config.vae)
    )


def block_channels(config: VAEConfig) -> list[tuple[int, int]]:
    """(decoder channels, encoder channels) where each block sits, coarsest first."""
    widths = config.block_out_channels
    encoder = (widths[0], *widths[:-1])
    decoder = (widths[-1], *reversed(widths[1:]))
    return list(zip(decoder, reversed(encoder), strict=True))


def encoder_features(vae: AutoencoderKL, image: Tensor) -> list[Tensor]:
    """What goes into each of the encoder's down blocks, finest first, for an image (B, 3, H, W) in [-1, 1].

    H and W must be multiples of the VAE's factor.
    """
    encoder: Any = vae.encoder
    features = [encoder.conv_in(image)]
    for down in encoder.down_blocks[:-1]:
        features.append(down(features[-1]))
    return features


def latent_of(vae: AutoencoderKL, features: Sequence[Tensor]) -> Tensor:
    """The scaled mean of the latent, (B, C, h, w), from the encoder's features."""
    encoder: Any = vae.encoder
    x = encoder.mid_block(encoder.down_blocks[-1](features[-1]))
    moments = encoder.conv_out(encoder.conv_act(encoder.conv_norm_out(x)))
    moments = vae.quant_conv(moments) if vae.quant_conv is not None else moments
    return moments.chunk(2, dim=1)[0] * scaling_factor(vae)


def decode(
    vae: AutoencoderKL, latent: Tensor, blocks: nn.ModuleList, features: Sequence[Tensor], prior: Tensor
) -> Tensor:
    """A scaled latent to an image (B, 3, H, W), nominally in [-1, 1], with encoder features (finest first) and c_L."""
    decoder: Any = vae.decoder
    latent = latent / scaling_factor(vae)
    x = vae.post_quant_conv(latent) if vae.post_quant_conv is not None else latent
    x = decoder.mid_block(decoder.conv_in(x))
    for up, block, feature in zip(decoder.up_blocks, blocks, reversed(features), strict=True):
        x = up(block(x, feature, prior))
    return decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(x)))


def plain_decode(vae: AutoencoderKL, latent: Tensor) -> Tensor:
    """A scaled latent to an image by the VAE alone."""
    decoder: Any = vae.decoder
    latent = latent / scaling_factor(vae)
    return decoder(vae.post_quant_conv(latent) if vae.post_quant_conv is not None else latent)


def scaling_factor(vae: AutoencoderKL) -> float:
    """What the VAE's latents are multiplied by, from its own configuration."""
    return float(vae.config["scaling_factor"])
