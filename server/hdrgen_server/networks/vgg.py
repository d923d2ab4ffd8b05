"""The convolutions of VGG16 (Simonyan and Zisserman, ICLR 2015, configuration D) as a feature extractor.

It owns the trunk and its input normalisation. It must not know where weights come from or what compares features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VGG16Trunk(nn.Module):
    """13 convolutions in five stages with 2x2 max pooling between them; no classifier."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        channels = 3
        for widths in STAGES:
            convolutions = nn.ModuleList()
            for width in widths:
                convolutions.append(nn.Conv2d(channels, width, 3, padding=1))
                channels = width
            self.stages.append(convolutions)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION)[:, None, None], persistent=False)

    def forward(self, codes: Tensor) -> list[Tensor]:
        """Features after the last rectifier of every stage, finest first, of display codes (B, 3, H, W) in [0, 1]."""
        x = (codes - self.mean) / self.deviation
        features: list[Tensor] = []
        for index, convolutions in enumerate(self.stages):
            if index:
                x = F.max_pool2d(x, 2)
            assert isinstance(convolutions, nn.ModuleList)
            for convolution in convolutions:
                x = F.relu(convolution(x))
            features.append(x)
        return features
