"""The regressor's published and shipped configurations, as data. It must not know torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Form = Literal["published", "set"]


@dataclass(frozen=True)
class RegressorConfig:
    """Sizes of DaReg (GMODiff, section 3.2).

    `published` takes exactly three exposures and writes the gain map directly; `set` takes 2 to 7 exposures with any
    reference and corrects a merge. `widths` are the channels of each scale, `strides` the steps between them; a width
    beyond the encoder's scales is a middle stage. `headroom_stops` above the shortest exposure's clip point fixes the
    scale s of H = s (L + alpha) R(G); None is the published s = 1. `released` has the public code's extra convolution
    before the output, its mask head and its slope of 0.01 in the attention.
    """

    form: Form
    widths: tuple[int, ...]
    encoder: tuple[int, ...]
    decoder: tuple[int, ...]
    strides: tuple[int, ...]
    middle: int = 0
    channel_attention: bool = True
    mask_width: int = 64
    embedding: int = 1024
    headroom_stops: float | None = None
    residual: float = 0.0
    released: bool = False

    @property
    def feature_channels(self) -> int:
        """Channels of all features that stage two gets: of every scale; of the coarsest and the mask as released."""
        if not self.released:
            return sum(self.widths)
        return self.widths[-1] + math.prod(self.strides) ** 2


CONFIGS: dict[str, RegressorConfig] = {
    # GMODiff, section 3.2: encoder [2,4,4,8], decoder [2,2,2,2], 64 to 512 channels at four scales.
    "published": RegressorConfig("published", (64, 128, 256, 512), (2, 4, 4, 8), (2, 2, 2, 2), (2, 2, 2)),
    # The released code's backbone has a fifth scale of 1024 channels after a stride of 4, with one middle block.
    "released": RegressorConfig(
        "published",
        (64, 128, 256, 512, 1024),
        (2, 4, 4, 8),
        (2, 2, 2, 2),
        (2, 2, 2, 4),
        middle=1,
        mask_width=16,
        released=True,
    ),
    "set": RegressorConfig(
        "set",
        (64, 128, 256, 512),
        (2, 4, 4, 8),
        (2, 2, 2, 2),
        (2, 2, 2),
        channel_attention=False,
        headroom_stops=3.0,
        residual=0.5,
    ),
    "s": RegressorConfig(
        "set",
        (24, 48, 72, 96),
        (1, 1, 2, 3),
        (1, 1, 1, 1),
        (2, 2, 2),
        channel_attention=False,
        mask_width=16,
        embedding=64,
        headroom_stops=3.0,
        residual=0.5,
    ),
}
