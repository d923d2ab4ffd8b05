"""The exposure head: from a scene's latent and an EV to the latent of that exposure, z_e = z_base + f(z_base, phi(e)).

It owns the network. It must not know what a latent shows, VAEs, curves or files. Latents are (B, C, h, w) in float32,
EVs (B,) in stops from the exposure that shows 0.18 as mid-grey. A picture that goes all around is convolved around its
left and right edge. There is no norm: a norm over the picture would make one place's exposure depend on all others, and
take out the level that says what clips.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdrgen_server.systems.latenthdr.config import HeadConfig

SLOWEST, FASTEST = 1 / 32, 1 / 4
"""Cycles a stop of the Fourier features' ends: neighbouring exposures are alike."""
DROPPED = 0.2
"""This share of a block's channels is left out at a time in training."""


class ExposureFeatures(nn.Module):
    """phi(e): sines and cosines of the EV at geometric frequencies, then two layers."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.bands = config.bands
        self.layers = nn.Sequential(
            nn.Linear(2 * config.bands, config.condition), nn.SiLU(), nn.Linear(config.condition, config.condition)
        )

    def forward(self, evs: Tensor) -> Tensor:
        """(B, condition) of EVs (B,)."""
        share = torch.linspace(0, 1, self.bands, device=evs.device)
        angle = 2 * math.pi * evs.float()[:, None] * SLOWEST * (FASTEST / SLOWEST) ** share
        return self.layers(torch.cat([angle.sin(), angle.cos()], dim=1))


class _Convolution(nn.Conv2d):
    """3 x 3 over a picture that goes on at its edges, or around at the left and right ones."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, 3, stride)

    def over(self, x: Tensor, *, around: bool) -> Tensor:
        """The convolution; with a stride of 2 each of its values is centred on one in two."""
        sides = F.pad(x, (1, 1, 0, 0), mode="circular" if around else "replicate")
        return self(F.pad(sides, (0, 0, 1, 1), mode="replicate"))


class FilmBlock(nn.Module):
    """Two convolutions beside the identity, what is between them scaled and shifted by the exposure: x (1 + g) + b."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.first, self.second = _Convolution(width, width), _Convolution(width, width)
        self.film = nn.Linear(condition, 2 * width)
        self.dropout = nn.Dropout2d(DROPPED)
        start_at_zero(self.film)

    def forward(self, x: Tensor, condition: Tensor, *, around: bool) -> Tensor:
        """(B, width, h, w) to the same."""
        gain, shift = self.film(condition)[..., None, None].chunk(2, dim=1)
        inner = self.first.over(F.silu(x), around=around) * (1 + gain) + shift
        return x + self.second.over(self.dropout(F.silu(inner)), around=around)


class ExposureHead(nn.Module):
    """z_base + f(z_base, phi(e)). Before training f is exactly 0."""

    def __init__(self, config: HeadConfig, channels: int) -> None:
        super().__init__()
        self.config, self.channels = config, channels
        widths, condition = config.widths, config.condition
        self.features = ExposureFeatures(config)
        self.enter = _Convolution(channels, widths[0])
        pairs = list(zip(widths, widths[1:], strict=False))
        self.before = nn.ModuleList(FilmBlock(width, condition) for width in widths[:-1])
        self.down = nn.ModuleList(_Convolution(fine, coarse, stride=2) for fine, coarse in pairs)
        self.middle = nn.ModuleList(FilmBlock(widths[-1], condition) for _ in range(config.middle))
        self.up = nn.ModuleList(_Convolution(coarse, fine) for fine, coarse in reversed(pairs))
        self.join = nn.ModuleList(nn.Conv2d(2 * fine, fine, 1) for fine, _ in reversed(pairs))
        self.after = nn.ModuleList(FilmBlock(fine, condition) for fine, _ in reversed(pairs))
        self.leave = _Convolution(widths[0], channels)
        start_at_zero(self.leave)

    def forward(self, latents: Tensor, evs: Tensor, *, around: bool = False) -> Tensor:
        """The latents of exposures, (B, C, h, w), of a scene's latents and EVs (B,)."""
        return latents + self.change(latents, evs, around=around)

    def change(self, latents: Tensor, evs: Tensor, *, around: bool = False) -> Tensor:
        """f: what an exposure changes, (B, C, h, w)."""
        height, width = latents.shape[2:]
        condition = self.features(evs)
        x = self.enter.over(self._continued(latents, around=around), around=around)
        skipped: list[Tensor] = []
        for block, down in zip(self.before, self.down, strict=True):
            x = block(x, condition, around=around)
            skipped.append(x)
            x = _convolution(down).over(x, around=around)
        for block in self.middle:
            x = block(x, condition, around=around)
        for up, join, block in zip(self.up, self.join, self.after, strict=True):
            x = _convolution(up).over(F.interpolate(x, scale_factor=2.0, mode="nearest"), around=around)
            x = block(join(torch.cat([x, skipped.pop()], dim=1)), condition, around=around)
        return self.leave.over(F.silu(x), around=around)[..., :height, :width]

    def _continued(self, latents: Tensor, *, around: bool) -> Tensor:
        """Latents continued at the bottom and right to a multiple of the coarsest scale's."""
        multiple = self.config.multiple
        bottom, right = (-length % multiple for length in latents.shape[2:])
        wide = F.pad(latents, (0, right, 0, 0), mode="circular" if around else "replicate") if right else latents
        return F.pad(wide, (0, 0, 0, bottom), mode="replicate") if bottom else wide


def _convolution(module: nn.Module) -> _Convolution:
    assert isinstance(module, _Convolution)
    return module


def start_at_zero(layer: nn.Module) -> None:
    """Make a layer give nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
