"""Rectified flow as the distilled LTX-2.3 is sampled: given noise levels, Euler steps, two stages.

It owns the arithmetic between a velocity and a latent. It must not know networks, windows or pictures. A point at level
s is (1 - s) x + s noise, and its velocity is noise - x. The levels are used as they are: diffusers' scheduler may shift
them by the number of tokens, which the distilled model was not made for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Velocity = Callable[[Tensor, float], Tensor]


def noised(latents: Tensor, noise: Tensor, level: Tensor | float) -> Tensor:
    """The point between latents and noise at a level, which is one for all or broadcasts over them."""
    return (1 - level) * latents + level * noise


def euler(point: Tensor, velocity: Velocity, levels: Sequence[float]) -> Tensor:
    """From the first level to the last; `velocity(point, level)` is asked once a step."""
    for level, following in zip(levels, levels[1:], strict=False):
        point = point + (following - level) * velocity(point, level)
    return point


def seeded_noise(shape: Sequence[int], seed: int) -> Tensor:
    """Unit-normal noise that is the same on every device."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed % 2**63))
