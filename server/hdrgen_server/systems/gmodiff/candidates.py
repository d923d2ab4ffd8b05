"""What a bracket says about each pixel before any network looks: one estimate per exposure and their weighted merge.

It owns the arithmetic on tensors. It must not know networks, files or how the bracket was aligned.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FLOOR = 2.0**-14
CLIP_START, CLIP_END = 0.90, 250 / 255
CRUSH_START, CRUSH_END = 2 / 255, 8 / 255


@dataclass(frozen=True)
class Bracket:
    """A batch of aligned brackets, the reference exposure first.

    `codes` (B, N, 3, H, W): sRGB-like codes in [0, 1]. `scene_linear` (B, N, 3, H, W): those codes linearised and
    divided by 2**ev, so that all exposures agree where nothing is clipped; 1.0 is the reference's clip point.
    `ev` (B, N): stops against the reference. `valid` (B, N, 1, H, W): 0 where alignment moved in nothing.
    """

    codes: Tensor
    scene_linear: Tensor
    ev: Tensor
    valid: Tensor

    def to(self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Bracket:
        """The same bracket on another device or in another dtype."""
        return Bracket(
            *(x.to(device=device, dtype=dtype) for x in (self.codes, self.scene_linear, self.ev, self.valid))
        )


def _ramp(x: Tensor, start: float, end: float) -> Tensor:
    return ((x - start) / (end - start)).clamp(0, 1)


def exposure_weights(bracket: Bracket) -> Tensor:
    """How far each sample can be believed, (B, N, 3, H, W), not normalised.

    Inverse variance of a shot-noise limited sample is proportional to exposure time (Robertson et al. 2003; Hasinoff
    et al. 2010), so a longer exposure counts for more until it nears clipping, where all three channels fade together.
    """
    brightest = bracket.codes.amax(dim=2, keepdim=True)
    clipped = _ramp(brightest, CLIP_START, CLIP_END)
    crushed = 1 - _ramp(bracket.codes, CRUSH_START, CRUSH_END)
    time = torch.exp2(bracket.ev)[:, :, None, None, None]
    return time * (1 - clipped) * (1 - 0.9 * crushed) * bracket.valid


def weighted_merge(bracket: Bracket) -> Tensor:
    """The plain merge (B, 3, H, W), scene-linear at the reference's exposure.

    What every exposure clips comes from the shortest, what nobody sees from the reference.
    """
    weights = exposure_weights(bracket)
    shortest = bracket.ev.argmin(dim=1)
    rows = torch.arange(len(shortest), device=shortest.device)
    fallback = torch.where(
        bracket.valid[rows, shortest] > 0, bracket.scene_linear[rows, shortest], bracket.scene_linear[:, 0]
    )
    epsilon = 1e-4 * torch.exp2(bracket.ev.amin(dim=1))[:, None, None, None]
    total = weights.sum(dim=1)
    return ((weights * bracket.scene_linear).sum(dim=1) + epsilon * fallback) / (total + epsilon)


def log2_floor(scene_linear: Tensor) -> Tensor:
    """log2 with everything at or below 2**-14 at the floor, so that its gradient is finite everywhere."""
    return torch.log2(scene_linear.clamp(min=FLOOR))
