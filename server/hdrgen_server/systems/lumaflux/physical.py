"""What LumaFlux measures of an SDR picture's light: maps, statistics and a spectrum (the document's T_phys, s_g and r).

It owns the measurements and the two small layers on top of them. It must not know transformers, latents or files.
Light is linear BT.2020 in [0, 1], 1 at the SDR display's white; planes are (B, C, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdrgen_server.colour.primaries import rgb_to_rgb
from hdrgen_server.systems.lumaflux.config import AdapterConfig

LUMA = (0.2627, 0.6780, 0.0593)
"""Rec. ITU-R BT.2020-2, table 4; the released code also weighs linear light with them."""
DISPLAY_GAMMA = 2.4
"""Rec. ITU-R BT.1886 with its black at 0."""
QUANTILES = (0.95, 0.99)
QUANTILE_SAMPLES = 1 << 22
BAND_CELLS = 16
TONE_PLANES = 2


@dataclass(frozen=True, eq=False)
class Physical:
    """`tokens` (B, rows x columns, C): T_phys at each token; `statistics` (B, S): g; `spectrum` (B, K): r."""

    tokens: Tensor
    statistics: Tensor
    spectrum: Tensor


def display_light(codes: Tensor) -> Tensor:
    """SDR codes (BT.709, BT.1886 display) in [0, 1] to linear BT.2020 in [0, 1]."""
    matrix = torch.as_tensor(rgb_to_rgb("rec709", "rec2020"), dtype=codes.dtype, device=codes.device)
    light = codes.clamp(0, 1) ** DISPLAY_GAMMA
    return torch.einsum("ij,bjhw->bihw", matrix, light).clamp(0, 1)


def luma_of(planes: Tensor) -> Tensor:
    """(B, 1, H, W): the BT.2020 weighted sum of the channels."""
    weights = torch.tensor(LUMA, dtype=planes.dtype, device=planes.device)
    return (planes * weights[:, None, None]).sum(dim=1, keepdim=True)


def maps_of(light: Tensor) -> Tensor:
    """(B, 3, H, W): luminance, log(1 + its Sobel gradient / 4), saturation (max - min) / (max + 1e-6)."""
    luminance = luma_of(light)
    sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], dtype=light.dtype, device=light.device)
    kernels = torch.stack([sobel, sobel.T])[:, None] / 4
    slopes = F.conv2d(F.pad(luminance, (1, 1, 1, 1), mode="replicate"), kernels)
    steepness = (slopes.square().sum(dim=1, keepdim=True) + 1e-12).sqrt()
    highest, lowest = light.amax(dim=1, keepdim=True), light.amin(dim=1, keepdim=True)
    return torch.cat([luminance, steepness.log1p(), (highest - lowest) / (highest + 1e-6)], dim=1)


def statistics_of(luminance: Tensor) -> Tensor:
    """(B, 4): mean, deviation, 95th and 99th percentile; the percentiles of large pictures are those of a grid."""
    flat = luminance.flatten(1)
    thin = flat[:, :: -(-flat.shape[1] // QUANTILE_SAMPLES)]
    marks = torch.tensor(QUANTILES, dtype=flat.dtype, device=flat.device)
    return torch.cat([flat.mean(1, True), flat.std(1, keepdim=True), torch.quantile(thin, marks, dim=1).T], dim=1)


def tones_of(codes: Tensor, marks: Sequence[float]) -> Tensor:
    """(B, 2 marks): quantiles of SDR codes' luma and of their largest channel, those of large pictures of a grid.

    They tell a curve's shoulder from a clip, which no single place of a picture shows.
    """
    if not marks:
        return codes.new_zeros(len(codes), 0)
    at = torch.tensor(tuple(marks), dtype=codes.dtype, device=codes.device)
    planes = torch.cat([luma_of(codes), codes.amax(dim=1, keepdim=True)], dim=1).flatten(2)
    thin = planes[:, :, :: -(-planes.shape[2] // QUANTILE_SAMPLES)]
    return torch.quantile(thin, at, dim=2).permute(1, 2, 0).flatten(1)


def spectrum_of(luminance: Tensor, bands: int) -> Tensor:
    """(B, bands): log(1 + mean energy) of equal-width rings of the orthonormal spectrum, from the middle out."""
    energy = torch.fft.rfft2(luminance[:, 0], norm="ortho").abs().square()
    height, width = luminance.shape[2:]
    rows = torch.fft.fftfreq(height, device=luminance.device)
    columns = torch.fft.rfftfreq(width, device=luminance.device)
    radius = torch.hypot(rows[:, None], columns[None, :])
    ring = (radius / radius.max().clamp(min=1e-8) * bands).long().clamp(max=bands - 1).flatten()
    total = torch.zeros(len(energy), bands, dtype=energy.dtype, device=energy.device)
    total.index_add_(1, ring, energy.flatten(1))
    count = torch.bincount(ring, minlength=bands).clamp(min=1)
    return (total / count).log1p()


class PhysicalEncoder(nn.Module):
    """The 3x3 convolution that makes T_phys of the maps, and the small network that makes g of the statistics."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.bands = config.bands
        self.conv = nn.Conv2d(3, config.physical_channels, 3, padding=1)
        self.mlp_g = nn.Sequential(
            nn.Linear(4, config.statistics), nn.SiLU(), nn.Linear(config.statistics, config.statistics)
        )

    def forward(self, codes: Tensor, cell: int) -> Physical:
        """Measure SDR codes (B, 3, H, W) in [0, 1]; H and W are multiples of `cell`, the pixels of a token."""
        light = display_light(codes.float())
        luminance = luma_of(light)
        return Physical(
            self._tokens(maps_of(light), cell),
            self.mlp_g(statistics_of(luminance)),
            spectrum_of(luminance, self.bands),
        )

    def _tokens(self, maps: Tensor, cell: int) -> Tensor:
        """The convolution's mean in every cell, worked out in bands of rows: its planes are the largest of all."""
        rows = maps.shape[2] // cell
        padded = F.pad(maps, (1, 1, 1, 1))
        bands: list[Tensor] = []
        for first in range(0, rows, BAND_CELLS):
            last = min(first + BAND_CELLS, rows)
            part = padded[:, :, first * cell : last * cell + 2]
            bands.append(F.avg_pool2d(F.conv2d(part, self.conv.weight, self.conv.bias), cell))
        return torch.cat(bands, dim=2).flatten(2).transpose(1, 2)
