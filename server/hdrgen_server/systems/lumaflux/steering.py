"""What LumaFlux adds to one block of a Flux transformer: PGA on its values, PCM before it, the coupler after it.

It owns the three modules and the shared conditioner Psi(t, l) that weighs them. It must not know the transformer, hooks
or files. Tokens are (B, N, C). Everything starts at exactly no effect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdrgen_server.systems.lumaflux.config import AdapterConfig

INITIAL = (-2.0, 0.0, -2.0, 0.0, -4.0, -2.0)
"""The conditioner's bias: gates small but alive, offsets 0, spectral share near 0."""
PERIOD = 10_000.0


@dataclass(frozen=True, eq=False)
class Weights:
    """Psi(t, l) of one block: each (B,). `shift_*` are the document's beta, `coupling` is lambda."""

    pga: Tensor
    shift_pga: Tensor
    pcm: Tensor
    shift_pcm: Tensor
    spectral: Tensor
    coupling: Tensor


class Conditioner(nn.Module):
    """Psi(t, l): from flow time and block index to what weighs the block's modules."""

    def __init__(self, blocks: int, width: int) -> None:
        super().__init__()
        self.t_proj = nn.Linear(width, width)
        self.layer_embed = nn.Embedding(blocks, width)
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.head = nn.Linear(width, len(INITIAL))
        nn.init.zeros_(self.head.weight)
        with torch.no_grad():
            self.head.bias.copy_(torch.tensor(INITIAL))

    def forward(self, time: Tensor) -> list[Weights]:
        """The weights of every block at flow times (B,) in [0, 1]."""
        at = self.t_proj(sinusoids(time.float(), self.layer_embed.embedding_dim))
        logits = self.head(self.mlp(at[:, None] + self.layer_embed.weight[None])).unbind(dim=1)
        return [_weights(*block.unbind(dim=-1)) for block in logits]


def _weights(*logits: Tensor) -> Weights:
    pga, shift_pga, pcm, shift_pcm, spectral, coupling = logits
    return Weights(
        torch.sigmoid(pga), shift_pga, torch.sigmoid(pcm), shift_pcm, F.softplus(spectral), torch.sigmoid(coupling)
    )


def sinusoids(time: Tensor, width: int) -> Tensor:
    """(B, width): sines, then cosines, of 1000 t at geometrically falling frequencies."""
    half = width // 2
    frequency = torch.exp(-math.log(PERIOD) * torch.arange(half, device=time.device, dtype=time.dtype) / half)
    angle = 1000.0 * time[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class ValueAdapter(nn.Module):
    """PGA: a low-rank change of the values, gated per token and head by the light and per head by its spectrum."""

    def __init__(self, config: AdapterConfig, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.down = nn.Linear(width, config.rank, bias=False)
        self.up = nn.Linear(config.rank, width, bias=False)
        self.p_v = nn.Linear(config.physical_channels + config.statistics, heads)
        self.w_r = nn.Linear(config.bands, heads)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.w_r.weight)

    def forward(self, tokens: Tensor, physical: Tensor, statistics: Tensor, spectrum: Tensor, by: Weights) -> Tensor:
        """What is added to the values of `tokens`. `physical` is of the last tokens; those before are context, whose
        physical gate is 1.
        """
        low_rank = by.pga.to(tokens.dtype)[:, None, None] * self.up(self.down(tokens))
        change = low_rank + by.shift_pga.to(tokens.dtype)[:, None, None] * tokens
        known = torch.cat([physical, statistics[:, None].expand(-1, physical.shape[1], -1)], dim=-1)
        gate = F.pad(torch.sigmoid(self.p_v(known)), (0, 0, tokens.shape[1] - physical.shape[1], 0), value=1.0)
        spectral = by.spectral.to(tokens.dtype)[:, None] * F.softplus(self.w_r(spectrum))
        gate = gate * (1 + spectral[:, None])
        return (change.unflatten(-1, (self.heads, -1)) * gate[..., None]).flatten(-2)


class Modulation(nn.Module):
    """PCM: the block's image tokens scaled and shifted, channel by channel, by what the picture shows."""

    def __init__(self, config: AdapterConfig, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, config.bottleneck), nn.SiLU(), nn.Linear(config.bottleneck, 2 * width)
        )
        start_at_zero(self.mlp[-1])

    def forward(self, tokens: Tensor, perceptual: Tensor, by: Weights) -> Tensor:
        """h + gamma LN(h) + zeta with gamma and zeta of the perceptual tokens' mean."""
        found = by.pcm.to(tokens.dtype)[:, None] * self.mlp(perceptual.mean(dim=1))
        gamma, zeta = (found + by.shift_pcm.to(tokens.dtype)[:, None]).chunk(2, dim=-1)
        normal = F.layer_norm(tokens, tokens.shape[-1:])
        return tokens + gamma[:, None] * normal + zeta[:, None]


class Coupler(nn.Module):
    """Adds light and meaning to the block's image tokens, place by place."""

    def __init__(self, config: AdapterConfig, width: int) -> None:
        super().__init__()
        self.w_p = _bottleneck(config.physical_channels, config.bottleneck, width)
        self.w_c = _bottleneck(width, config.bottleneck, width)

    def forward(self, tokens: Tensor, physical: Tensor, perceptual: Tensor, view: View, by: Weights) -> Tensor:
        """z + lambda (W_p T_phys + W_c C_perc).

        The perceptual tokens go through W_c's first layer before they are brought to the picture's grid: both are
        linear, so the order does not matter, and a hundredth of the channels is resampled.
        """
        seen = self.w_c[1:](view.resampled(self.w_c[0](perceptual)))
        return tokens + by.coupling.to(tokens.dtype)[:, None, None] * (self.w_p(physical) + seen)


@dataclass(frozen=True)
class View:
    """The part of a picture's token grid that the transformer sees: `grid` is (rows, columns) of the whole picture."""

    grid: tuple[int, int]
    rows: slice
    columns: slice

    @classmethod
    def whole(cls, grid: tuple[int, int]) -> View:
        """All of a grid."""
        return cls(grid, slice(0, grid[0]), slice(0, grid[1]))

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of this part."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    def resampled(self, square: Tensor) -> Tensor:
        """Tokens of a square grid over the whole picture, bilinearly at this part's tokens."""
        side = math.isqrt(square.shape[1])
        planes = square.transpose(1, 2).unflatten(2, (side, side))
        planes = F.interpolate(planes, size=self.grid, mode="bilinear", align_corners=False)
        return self._cut(planes)

    def part(self, tokens: Tensor) -> Tensor:
        """The part's own among the tokens (B, rows x columns, C) of the whole picture."""
        return self._cut(tokens.transpose(1, 2).unflatten(2, self.grid))

    def _cut(self, planes: Tensor) -> Tensor:
        return planes[:, :, self.rows, self.columns].flatten(2).transpose(1, 2)


class BlockAdapter(nn.Module):
    """All that is added to one block."""

    def __init__(self, config: AdapterConfig, width: int, heads: int) -> None:
        super().__init__()
        self.pga = ValueAdapter(config, width, heads)
        self.pcm = Modulation(config, width)
        self.coupler = Coupler(config, width)


def _bottleneck(inputs: int, bottleneck: int, outputs: int) -> nn.Sequential:
    layers = nn.Sequential(
        nn.Linear(inputs, bottleneck, bias=False), nn.SiLU(), nn.Linear(bottleneck, outputs, bias=False)
    )
    start_at_zero(layers[-1])
    return layers


def start_at_zero(layer: nn.Module) -> None:
    """Make a layer give nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
