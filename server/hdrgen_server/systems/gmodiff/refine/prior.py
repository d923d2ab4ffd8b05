"""c_L, the degradation-aware embeddings of GMODiff's Eq. 2, as stage two takes them: a grid of vectors over the frame.

It owns pooling and projection. It must not know diffusers, tiles or how the features were made.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def pooled_features(features: Sequence[Tensor], cells: tuple[int, int]) -> Tensor:
    """The regressor's encoder features, (B, C_i, H_i, W_i) each, as means over a grid: (B, sum of C_i, *cells).

    Averages of averages: where the cells divide every scale's size, pooling in two steps gives the same.
    """
    return torch.cat([F.adaptive_avg_pool2d(feature, cells) for feature in features], dim=1)


class Prior(nn.Module):
    """Pooled features to c_L: one vector of the denoising network's cross-attention width for each cell."""

    def __init__(self, widths: Sequence[int], width: int) -> None:
        super().__init__()
        self.project = nn.Sequential(
            nn.LayerNorm(sum(widths)), nn.Linear(sum(widths), width), nn.SiLU(), nn.Linear(width, width)
        )

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, sum of C_i, rows, columns) to c_L (B, width, rows, columns)."""
        return self.project(pooled.movedim(1, -1)).movedim(-1, 1)


class ReleasedPrior(nn.Module):
    """The public code's c_L: the regressor's coarsest features joined with features of the degradation mask.

    It comes as the mask folded into channels, one cell every `cell` pixels, as `Regression.features` has it.
    """

    def __init__(self, features: int, cell: int, width: int) -> None:
        super().__init__()
        self.cell = cell
        self.mask_encoder = nn.Sequential(
            nn.PixelUnshuffle(cell // 4),
            nn.Conv2d((cell // 4) ** 2, width // 4, 3, stride=2, padding=1),
            nn.BatchNorm2d(width // 4),
            nn.ReLU(inplace=True),
            nn.Conv2d(width // 4, width, 3, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.mlp = nn.Sequential(
            nn.Linear(width + features, width), nn.ReLU(inplace=True), nn.Linear(width, width), nn.ReLU(inplace=True)
        )

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, features + cell * cell, rows, columns) to c_L (B, width, rows, columns)."""
        features, mask = pooled[:, : -(self.cell**2)], pooled[:, -(self.cell**2) :]
        encoded = self.mask_encoder(F.pixel_shuffle(mask, self.cell))
        return self.mlp(torch.cat([encoded, features], dim=1).movedim(1, -1)).movedim(-1, 1)


def tokens(prior: Tensor) -> Tensor:
    """c_L (B, D, rows, columns) as the sequence that cross-attention takes, (B, rows * columns, D)."""
    return prior.flatten(2).transpose(1, 2)
