"""Nonlinear-activation-free blocks (Chen et al., Simple Baselines for Image Restoration, ECCV 2022).

It owns the block, its norm and its gate. It must not know exposures, gain maps or any system.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

M = TypeVar("M", bound=nn.Module)


class ChannelLayerNorm(nn.Module):
    """Layer norm over the channels of (N, C, H, W); runs without a copy in channels_last memory."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every pixel's channels."""
        nhwc = x.permute(0, 2, 3, 1)
        return F.layer_norm(nhwc, (x.shape[1],), self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


class Pointwise(nn.Conv2d):
    """A 1x1 convolution as a matrix product over pixels: the same weights and values, faster in channels_last."""

    def __init__(self, channels_in: int, channels_out: int, *, bias: bool = True) -> None:
        super().__init__(channels_in, channels_out, 1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name in torch)
        """(N, C, H, W) to (N, channels_out, H, W)."""
        return F.linear(input.permute(0, 2, 3, 1), self.weight[:, :, 0, 0], self.bias).permute(0, 3, 1, 2)


def in_channels_last(model: M) -> M:
    """The model with its convolution weights laid out for channels_last, in place: 20 times faster on a CPU."""
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


def simple_gate(x: Tensor) -> Tensor:
    """Split the channels in two halves and multiply them."""
    first, second = x.chunk(2, dim=1)
    return first * second


class NAFBlock(nn.Module):
    """One NAFNet block on (N, C, H, W): depthwise gate, optional channel attention, gated feed-forward.

    Channel attention pools over the whole input, so a network that is run in tiles goes without it. Both residual
    scales start at `residual`: at the published 0 a new block is the identity.
    """

    def __init__(self, channels: int, *, channel_attention: bool = True, residual: float = 0.0) -> None:
        super().__init__()
        self.norm1 = ChannelLayerNorm(channels)
        self.expand = Pointwise(channels, 2 * channels)
        self.depthwise = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.attention = Pointwise(channels, channels) if channel_attention else None
        self.project = Pointwise(channels, channels)
        self.norm2 = ChannelLayerNorm(channels)
        self.feed_in = Pointwise(channels, 2 * channels)
        self.feed_out = Pointwise(channels, channels)
        self.beta = nn.Parameter(torch.full((1, channels, 1, 1), residual))
        self.gamma = nn.Parameter(torch.full((1, channels, 1, 1), residual))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape out as in."""
        y = simple_gate(self.depthwise(self.expand(self.norm1(x))))
        if self.attention is not None:
            y = y * self.attention(y.mean(dim=(2, 3), keepdim=True))
        x = x + self.project(y) * self.beta
        y = self.feed_out(simple_gate(self.feed_in(self.norm2(x))))
        return x + y * self.gamma


def stage(channels: int, blocks: int, *, channel_attention: bool, residual: float = 0.0) -> nn.Sequential:
    """A run of NAF blocks at one scale."""
    return nn.Sequential(
        *(NAFBlock(channels, channel_attention=channel_attention, residual=residual) for _ in range(blocks))
    )
