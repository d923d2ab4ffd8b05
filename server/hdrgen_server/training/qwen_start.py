"""Starts a VAE of Qwen-Image's class as what its halvings allow without learning: block means down, smooth steps up.

It owns the initial weights. It must not know pictures' meaning, losses or the loop. The norms divide each pixel by its
own length, which takes the level out of every feature, so that a network from random weights spends its first
thousands of steps on tones. Here each channel of the picture runs along the residual path as a pair (A + k s,
A - k s): the length of many such pairs hardly depends on s, SiLU is close to linear around A, and the difference of a
pair over its sum is s k / A whatever scale both have. All other channels stay random and see no pairs; every residual
branch starts at zero.
`linear_start` does the same for another class of network, whose norms work on groups of channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import (
    AutoencoderKLQwenImage,
    QwenImageAttentionBlock,
    QwenImageCausalConv3d,
    QwenImageResample,
    QwenImageResidualBlock,
)
from torch import Tensor, nn

LEVEL, SLOPE = 3.0, 0.6
"""Where on SiLU pairs ride, and by how much a picture's values, mostly in [-2, 2], move them there."""
SILU_SLOPE = 1.088
"""SiLU's derivative at LEVEL."""
LOG_VARIANCE = -5.0
CENTRE = (0.0, 1.0, 0.0)
BLOCK = (0.5, 0.5, 0.0)
"""A stride of two that pads at the end alone: the mean of each block of 2 x 2."""
SMOOTH = (0.25, 0.5, 0.25)
"""After repeated pixels, this interpolates almost linearly."""


@torch.no_grad()
def start_linear(vae: AutoencoderKLQwenImage, latents: Sequence[int]) -> None:
    """Set the weights in place: picture channel i goes through latent `latents[i]`.

    The least wide layer needs two channels for each of the picture's.
    """
    network: Any = vae
    pairs = len(latents)
    for module in network.modules():
        if isinstance(module, QwenImageResidualBlock):
            _zero(module.conv2)
            if isinstance(module.conv_shortcut, QwenImageCausalConv3d):
                _carry(module.conv_shortcut, pairs, (1.0,))
        elif isinstance(module, QwenImageAttentionBlock):
            _zero(module.proj)
    for part, taps in ((network.encoder, BLOCK), (network.decoder, SMOOTH)):
        for module in part.modules():
            if isinstance(module, QwenImageResample) and isinstance(module.resample, nn.Sequential):
                _carry(module.resample[1], pairs, taps)
        width = part.norm_out.gamma.shape[0]
        part.norm_out.gamma[: 2 * pairs] = LEVEL * (2 * pairs / width) ** 0.5
    _split(network.encoder.conv_in, range(pairs))
    _join(network.encoder.conv_out, latents)
    depth = network.encoder.conv_out.weight.shape[0] // 2
    _last_tap(network.encoder.conv_out)[depth:] = 0
    network.encoder.conv_out.bias[depth:] = LOG_VARIANCE
    _split(network.decoder.conv_in, latents)
    _last_tap(network.decoder.conv_out).zero_()
    _join(network.decoder.conv_out, range(pairs))
    for convolution in (network.quant_conv, network.post_quant_conv):
        convolution.weight.copy_(torch.eye(convolution.weight.shape[0])[..., None, None, None])
        convolution.bias.zero_()


def _last_tap(convolution: Any) -> Tensor:
    """What a convolution does to one frame, (out, in, height, width), as a view."""
    weight: Tensor = convolution.weight
    return weight[:, :, -1] if weight.ndim == 5 else weight


def _zero(convolution: nn.Module) -> None:
    for parameter in convolution.parameters():
        parameter.zero_()


def _filter(taps: Sequence[float]) -> Tensor:
    return torch.outer(torch.tensor(taps), torch.tensor(taps))


def _carry(convolution: Any, pairs: int, taps: Sequence[float]) -> None:
    """Pairs to themselves, filtered; the others see no pairs."""
    weight, filtered = _last_tap(convolution), _filter(taps)
    weight[: 2 * pairs] = 0
    weight[:, : 2 * pairs] = 0
    for channel in range(2 * pairs):
        weight[channel, channel] = filtered
        convolution.bias[channel] = 0


def _split(convolution: Any, channels: Sequence[int]) -> None:
    """Input channels into pairs."""
    weight = _last_tap(convolution)
    weight[: 2 * len(channels)] = 0
    for index, channel in enumerate(channels):
        for row, sign in ((2 * index, 1), (2 * index + 1, -1)):
            weight[row, channel] = sign * SLOPE * _filter(CENTRE)
            convolution.bias[row] = LEVEL


def _join(convolution: Any, channels: Sequence[int]) -> None:
    """Pairs, behind norm and SiLU, into output channels; the other outputs see no pairs."""
    weight, height = _last_tap(convolution), 1 / (2 * SLOPE * SILU_SLOPE)
    weight[:, : 2 * len(channels)] = 0
    for index, channel in enumerate(channels):
        weight[channel] = 0
        weight[channel, 2 * index] = height * _filter(CENTRE)
        weight[channel, 2 * index + 1] = -height * _filter(CENTRE)
        convolution.bias[channel] = 0
