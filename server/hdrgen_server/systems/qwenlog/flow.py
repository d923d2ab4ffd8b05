"""Rectified flow as Qwen-Image samples it: packed latents, shifted noise levels, guidance, and Euler steps.

It owns the arithmetic between a velocity and a latent. It must not know networks, prompts or pictures. Latents are
(B, C, h, w); a point at level s is (1 - s) x + s noise, and its velocity is noise - x.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from hdrgen_server.systems.qwenlog.config import PATCH, FlowConfig

DRAFT_STEPS, FINAL_STEPS = 20, 50
Velocity = Callable[[Tensor, float], Tensor]


def pack(latents: Tensor) -> Tensor:
    """(B, C, h, w) as tokens (B, h/2 * w/2, 4 C), each with its channels in the order (channel, row, column)."""
    batch, channels, height, width = latents.shape
    cells = latents.reshape(batch, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * PATCH * PATCH)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Tokens as latents (B, C, height, width): the inverse of `pack`."""
    batch, _, channels = tokens.shape
    cells = tokens.reshape(batch, height // PATCH, width // PATCH, channels // PATCH**2, PATCH, PATCH)
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(batch, -1, height, width)


def levels(config: FlowConfig, steps: int, tokens: int) -> list[float]:
    """`steps` + 1 noise levels from near 1 to 0, shifted towards noise the more tokens a picture has.

    The shift grows with the tokens' number between the configuration's two ends and beyond (diffusers' Qwen-Image
    pipeline); diffusers' scheduler makes the levels.
    """
    slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
    shift = config.base_shift + slope * (tokens - config.base_image_seq_len)
    scheduler: Any = FlowMatchEulerDiscreteScheduler(**config.arguments())
    if steps == 1 and config.shift_terminal is not None:  # the stretch to a last level needs two
        return [1.0, 0.0]
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=shift)
    return [float(level) for level in scheduler.sigmas]


def started(marks: list[float], strength: float) -> list[float]:
    """The last `strength` of the levels, by number of steps, for a start from a picture; at least one step."""
    steps = len(marks) - 1
    return marks[min(steps - 1, steps - round(strength * steps)) :]


def guided(wanted: Tensor, unwanted: Tensor, guidance: float) -> Tensor:
    """Velocities (B, C, h, w) away from the unwanted one, each token as long as the wanted one's (diffusers' pipeline).

    Only the direction changes: a long velocity would burn the picture.
    """
    height, width = wanted.shape[2:]
    first, second = pack(wanted), pack(unwanted)
    combined = second + guidance * (first - second)
    length = combined.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    return unpack(combined * (first.norm(dim=-1, keepdim=True) / length), height, width)


def noised(latents: Tensor, noise: Tensor, level: Tensor | float) -> Tensor:
    """The point between latents and noise at a level, which is one for all or (B, 1, 1, 1)."""
    return (1 - level) * latents + level * noise


def euler(point: Tensor, velocity: Velocity, marks: list[float]) -> Tensor:
    """From the first level to the last, one velocity a step."""
    for level, following in zip(marks, marks[1:], strict=False):
        point = point + (following - level) * velocity(point, level)
    return point


def seeded_noise(shape: tuple[int, ...], seed: int) -> Tensor:
    """Unit-normal noise that is the same on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed % 2**63))
