"""Starts an autoencoder as what its halvings allow without learning: block means down, smooth interpolation up.

It owns the initial weights. It must not know pictures, losses or the loop. Group norms take the level out of every
feature, so that a network from random weights spends its first thousands of steps on grey tones. Here the colours run
through the residual path as pairs (s, -s) beside a large constant in their norm group: the group's mean and deviation
then hardly depend on the picture, and norm and SiLU are close to linear. All other channels stay random, and every
residual branch starts at zero.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

COLOURS = 3
CONSTANT = 8.0
"""What the constant channel of a norm group holds; colours are within [-1, 1]."""
BASE, SLOPE = 3.0, 0.5
"""Where on SiLU the colours ride, and by how much they move there: it is linear to 1 % in 2.5 to 3.5."""
LOG_VARIANCE = -5.0
SMOOTH = (0.25, 0.5, 0.25)
"""After repeating pixels, this filter interpolates almost linearly."""
BOX = (0.5, 0.5, 0.0)
"""A stride of two starts at the pixel itself and pads at the end, so this is the mean of each block of 2 x 2."""
CENTRE = (0.0, 1.0, 0.0)
ONE = (1.0,)


@torch.no_grad()
def start_linear(model: AutoencoderKL) -> None:
    """Set the weights in place. The norm groups need at least three channels, and there must be three groups."""
    for module in model.modules():
        if isinstance(module, ResnetBlock2D):
            _zero(module.conv2)
        elif isinstance(module, Attention):
            _zero(_any(module.to_out)[0])
    _start_encoder(_any(model.encoder))
    _start_decoder(_any(model.decoder))
    for name in ("quant_conv", "post_quant_conv"):
        convolution = _any(getattr(model, name))
        convolution.weight.copy_(torch.eye(convolution.weight.shape[0])[..., None, None])
        convolution.bias.zero_()


def _start_encoder(encoder: Any) -> None:
    _carry(encoder.conv_in, CENTRE)
    steps = [block.downsamplers[0].conv for block in encoder.down_blocks if block.downsamplers]
    for convolution in steps:
        _carry(convolution, BOX)
    _carry_shortcuts(encoder)
    size = encoder.conv_norm_out.num_channels // encoder.conv_norm_out.num_groups
    widening = encoder.down_blocks[-1].resnets[0].conv_shortcut
    _pair(*((steps[-1], BOX) if widening is None else (widening, ONE)), size)
    _level(encoder.conv_norm_out, encoder.mid_block.resnets[-1].conv2, size)
    latents = encoder.conv_out.weight.shape[0] // 2
    _join(encoder.conv_out, size)
    encoder.conv_out.weight[latents:].zero_()
    encoder.conv_out.bias[latents:] = LOG_VARIANCE


def _start_decoder(decoder: Any) -> None:
    _carry(decoder.conv_in, CENTRE)
    steps = [block.upsamplers[0].conv for block in decoder.up_blocks if block.upsamplers]
    for convolution in steps:
        _carry(convolution, SMOOTH)
    _carry_shortcuts(decoder)
    size = decoder.conv_norm_out.num_channels // decoder.conv_norm_out.num_groups
    resnets = decoder.up_blocks[-1].resnets
    narrowing = resnets[0].conv_shortcut
    _pair(*((steps[-1], SMOOTH) if narrowing is None else (narrowing, ONE)), size)
    _level(decoder.conv_norm_out, resnets[-1].conv2, size)
    _join(decoder.conv_out, size)


def _carry_shortcuts(half: nn.Module) -> None:
    for module in half.modules():
        if isinstance(module, ResnetBlock2D) and module.conv_shortcut is not None:
            _carry(_any(module.conv_shortcut), ONE)


def _carry(convolution: Any, taps: tuple[float, ...]) -> None:
    """The first three channels go through a separable filter, and nothing else reaches them."""
    for colour in range(COLOURS):
        _zero_row(convolution, colour)
        convolution.weight[colour, colour] = _kernel(taps)


def _pair(convolution: Any, taps: tuple[float, ...], size: int) -> None:
    """Colour k goes to the first channel of group k, its negative to the second; the group's others are zero."""
    for colour in range(COLOURS):
        for channel in range(colour * size, (colour + 1) * size):
            _zero_row(convolution, channel)
        convolution.weight[colour * size, colour] = _kernel(taps)
        convolution.weight[colour * size + 1, colour] = -_kernel(taps)


def _level(norm: Any, before: Any, size: int) -> None:
    """Put the constant beside each pair, and set the norm so that colours come out around BASE, scaled by SLOPE."""
    deviation = CONSTANT * (1 / size - 1 / size**2) ** 0.5
    for colour in range(COLOURS):
        before.bias[colour * size + 2] = CONSTANT
        pair = slice(colour * size, colour * size + 2)
        norm.weight[pair] = SLOPE * deviation
        norm.bias[pair] = BASE + SLOPE * CONSTANT / size


def _join(convolution: Any, size: int) -> None:
    """Take each colour back from its pair: half the difference over SiLU's slope."""
    gate = 1 / (1 + math.exp(-BASE))
    slope = gate * (1 + BASE * (1 - gate))
    for colour in range(COLOURS):
        _zero_row(convolution, colour)
        for sign, channel in ((1, colour * size), (-1, colour * size + 1)):
            convolution.weight[colour, channel] = sign * _kernel(CENTRE) / (2 * SLOPE * slope)


def _kernel(taps: tuple[float, ...]) -> Tensor:
    return torch.outer(torch.tensor(taps), torch.tensor(taps))


def _zero_row(convolution: Any, channel: int) -> None:
    convolution.weight[channel] = 0
    if convolution.bias is not None:
        convolution.bias[channel] = 0


def _zero(layer: Any) -> None:
    layer.weight.zero_()
    layer.bias.zero_()


def _any(module: object) -> Any:
    """A part of a diffusers model, whose attributes have no types."""
    return module
