"""What stands before the encoder and, inverted, behind the decoder's linear head; and the tone-mapped picture.

It owns the two views that the VAE has of light. It must not know networks, latents or training. Light is (B, 3, H, W),
scene-linear Rec.709 with mid-grey at 0.18.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hdrgen_server.colour.curves import CURVES

MID_GREY = 0.18
HALF = 1 - MID_GREY
"""The light that is shown at half: x / (x + HALF) leaves mid-grey where it is, and never reaches 1."""


class LightNorm(nn.Module):
    """A learned scale and offset a channel, between light and what a network likes: y = (f(x) - offset) / scale.

    f is the identity, as the document has it; with a knee, which is learned too, f(x) = asinh(x / knee), a straight
    line far below it and a logarithm far above.
    """

    def __init__(self, knee: float) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(3))
        self.log_scale = nn.Parameter(torch.zeros(3))
        self.log_knee = nn.Parameter(torch.full((3,), knee).log()) if knee else None

    def forward(self, light: Tensor) -> Tensor:
        """Light to the network's range; no value is cut."""
        knee = _channel(self.log_knee).exp() if self.log_knee is not None else None
        bent = light if knee is None else torch.asinh(light / knee)
        return (bent - _channel(self.offset)) / _channel(self.log_scale).exp()

    def inverse(self, values: Tensor) -> Tensor:
        """The network's range to light; no value is cut."""
        bent = values * _channel(self.log_scale).exp() + _channel(self.offset)
        return bent if self.log_knee is None else torch.sinh(bent) * _channel(self.log_knee).exp()

    @torch.no_grad()
    def fit(self, light: Tensor) -> None:
        """Start with zero mean and unit deviation on these pictures."""
        self.offset.zero_()
        self.log_scale.zero_()
        flat = self(light).transpose(0, 1).flatten(1)
        self.offset.copy_(flat.mean(dim=1))
        self.log_scale.copy_(flat.std(dim=1).clamp(min=1e-6).log())


def tone_mapped(light: Tensor) -> Tensor:
    """A display's picture, 2 code - 1 of sRGB: x / (x + 0.82) a channel, so that nothing but negative light is cut.

    The document names a standard tone-mapped variant without saying which; this one is ours.
    """
    shown = light.clamp(min=0)
    return 2 * CURVES["srgb"].encode(shown / (shown + HALF)) - 1


def both_views(light: Tensor, norm: LightNorm) -> Tensor:
    """The VAE's picture, (B, 6, H, W): tone-mapped, then normalised light."""
    return torch.cat([tone_mapped(light), norm(light)], dim=1)


def _channel(values: Tensor | None) -> Tensor:
    assert values is not None
    return values[:, None, None]
