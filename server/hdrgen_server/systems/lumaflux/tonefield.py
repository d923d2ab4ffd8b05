"""The tone field after the VAE: a monotone rational-quadratic spline on luma and a 1x1 refinement of chroma.

It owns the spline (Durkan et al. 2019, section 3.1) on PQ codes of BT.2020, normalised by the code of the mastering
peak. It must not know transformers, latents beyond their mean, or files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdrgen_server.colour.curves import pq
from hdrgen_server.systems.lumaflux.config import AdapterConfig
from hdrgen_server.systems.lumaflux.physical import TONE_PLANES, luma_of

SMALLEST_BIN = 1e-3
SMALLEST_SLOPE = 1e-3
IDENTITY_SLOPE = math.log(math.expm1(1.0 - SMALLEST_SLOPE))
"""What softplus and the smallest slope turn into a slope of exactly 1."""
# Rec. ITU-R BT.2020-2, table 4: divisors of the non-constant-luminance colour differences.
BLUE_DIVISOR, RED_DIVISOR = 1.8814, 1.4746
LUMA_RED, LUMA_GREEN, LUMA_BLUE = 0.2627, 0.6780, 0.0593


@dataclass(frozen=True, eq=False)
class Field:
    """A spline's free parameters for each picture: `widths` and `heights` (B, K), `slopes` (B, K + 1)."""

    widths: Tensor
    heights: Tensor
    slopes: Tensor

    def mixed(self, earlier: Field, share: float) -> Field:
        """The field with `share` of an earlier frame's in it."""
        return Field(
            self.widths.lerp(earlier.widths, share),
            self.heights.lerp(earlier.heights, share),
            self.slopes.lerp(earlier.slopes, share),
        )

    def knots(self) -> tuple[Tensor, Tensor, Tensor]:
        """Places (B, K + 1) and values (B, K + 1) of the knots, both from 0 to 1, and the slopes there."""
        return _places(self.widths), _places(self.heights), SMALLEST_SLOPE + F.softplus(self.slopes)

    def __call__(self, luma: Tensor) -> Tensor:
        """The spline at luma (B, ...) in [0, 1]; what is outside is taken as the end. Strictly rising."""
        x, y, slope = self.knots()
        flat = luma.clamp(0, 1).flatten(1)
        index = torch.searchsorted(x[:, 1:-1].contiguous(), flat.contiguous(), right=True)

        def at(values: Tensor, offset: int = 0) -> Tensor:
            return values.gather(1, index + offset)

        left, right, low, high = at(x), at(x, 1), at(y), at(y, 1)
        mean = (high - low) / (right - left)
        place = ((flat - left) / (right - left)).clamp(0, 1)
        both = place * (1 - place)
        upper = mean * place.square() + at(slope) * both
        share = upper / (mean + (at(slope) + at(slope, 1) - 2 * mean) * both)
        return torch.lerp(low, high, share).clamp(low, high).reshape(luma.shape)

    def roughness(self) -> Tensor:
        """Mean squared change from bin to bin of slope, and from knot to knot: the document's spline smoothness."""
        x, y, slope = self.knots()
        mean = y.diff(dim=1) / x.diff(dim=1)
        return mean.diff(dim=1).square().mean() + slope.diff(dim=1).square().mean()


def _places(free: Tensor) -> Tensor:
    """Running sums of softmax bins, none narrower than the smallest, from exactly 0 to exactly 1."""
    bins = SMALLEST_BIN + (1 - SMALLEST_BIN * free.shape[1]) * F.softmax(free, dim=1)
    inner = bins.cumsum(dim=1)[:, :-1]
    return torch.cat([torch.zeros_like(bins[:, :1]), inner, torch.ones_like(bins[:, :1])], dim=1)


class ToneField(nn.Module):
    """Predicts one field a picture from its final latent's mean, and its tones where the configuration has them."""

    def __init__(self, config: AdapterConfig, latent_channels: int, peak_nits: float) -> None:
        super().__init__()
        self.count = config.knots
        self.peak_code = float(pq().encode(peak_nits / 100.0))
        hidden = config.tone_hidden
        self.head = nn.Sequential(
            nn.Linear(latent_channels + TONE_PLANES * len(config.tones), hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, 3 * config.knots + 1),
        )
        self.chroma = nn.Conv2d(2, 2, 1)
        start = torch.zeros(3 * config.knots + 1)
        start[2 * config.knots :] = IDENTITY_SLOPE
        _set(self.head[-1], torch.zeros(3 * config.knots + 1, hidden), start)
        _set(self.chroma, torch.eye(2)[:, :, None, None], torch.zeros(2))

    def field(self, known: Tensor) -> Field:
        """The field of a final latent's mean and of tones, (B, latent channels + tones)."""
        found = self.head(known)
        return Field(found[:, : self.count], found[:, self.count : 2 * self.count], found[:, 2 * self.count :])

    def forward(self, codes: Tensor, field: Field, strength: float = 1.0) -> Tensor:
        """PQ codes of BT.2020 (B, 3, H, W) to the same, up to the peak's code; what lies outside is taken as the end.

        `strength` weighs what the field changes of luma: 0 leaves it, 1 is the field, above 1 goes beyond.
        """
        codes = codes.clamp(0, self.peak_code)
        luma = luma_of(codes)
        red, blue = codes[:, :1], codes[:, 2:]
        chroma = torch.cat([(blue - luma) / BLUE_DIVISOR, (red - luma) / RED_DIVISOR], dim=1)
        changed = luma + strength * (field(luma / self.peak_code) * self.peak_code - luma)
        blue_difference, red_difference = self.chroma(chroma).split(1, dim=1)
        red, blue = changed + RED_DIVISOR * red_difference, changed + BLUE_DIVISOR * blue_difference
        green = (changed - LUMA_RED * red - LUMA_BLUE * blue) / LUMA_GREEN
        return torch.cat([red, green, blue], dim=1).clamp(0, self.peak_code)


def _set(layer: nn.Module, weight: Tensor, bias: Tensor) -> None:
    with torch.no_grad():
        for name, value in (("weight", weight), ("bias", bias)):
            layer.get_parameter(name).copy_(value)
