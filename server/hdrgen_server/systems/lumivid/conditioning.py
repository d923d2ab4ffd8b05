"""In-context conditioning: a video's latents as tokens, with the SDR reference's clean tokens at the sequence's end.

It owns the order of tokens, their positions and their noise levels. It must not know networks' weights, curves or
sampling. Source: LumiVid, section 3.2 (AVControl); the released IC-LoRA appends the reference, leaves it at timestep 0
and scales its positions by the factor that it is smaller by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Sequence:
    """What the transformer sees: tokens (B, N + R, C), their bounds in (seconds, pixels, pixels) (B, 3, N + R, 2), and
    the level of noise of each (B, N + R). The first N are the video's.
    """

    tokens: Tensor
    positions: Tensor
    levels: Tensor
    count: int


def pack(latents: Tensor) -> Tensor:
    """Latents (B, C, F, H, W) as tokens (B, F H W, C)."""
    return latents.flatten(2).transpose(1, 2)


def unpack(tokens: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Tokens (B, F H W, C) as latents (B, C, F, H, W)."""
    return tokens.transpose(1, 2).unflatten(2, size)


def positions(rope: Any, size: tuple[int, int, int], fps: float, device: torch.device, scale: float = 1.0) -> Tensor:
    """Bounds of latents (F, H, W) by the transformer's own table, (1, 3, F H W, 2): seconds, and pixels times
    `scale`.
    """
    found: Tensor = rope.prepare_video_coords(1, *size, device, fps=fps)
    found[:, 1:] *= scale
    return found


def sequence(rope: Any, latents: Tensor, levels: Tensor, reference: Tensor, fps: float, scale: float) -> Sequence:
    """Noisy latents (B, C, F, H, W) with a clean reference (B, C, F', H', W') that is `scale` times smaller.

    `levels` (B, F) are the noise levels of the video's latent frames, 0 to 1.
    """
    batch, _, frames, height, width = latents.shape
    tokens, appended = pack(latents), pack(reference)
    own = positions(rope, (frames, height, width), fps, latents.device)
    size = (reference.shape[2], reference.shape[3], reference.shape[4])
    beside = positions(rope, size, fps, latents.device, scale)
    each = levels.repeat_interleave(height * width, dim=1)
    return Sequence(
        torch.cat([tokens, appended], dim=1),
        torch.cat([own, beside], dim=2).expand(batch, -1, -1, -1),
        torch.cat([each, each.new_zeros(batch, appended.shape[1])], dim=1),
        tokens.shape[1],
    )
