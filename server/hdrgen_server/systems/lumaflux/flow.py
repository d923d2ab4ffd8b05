"""The flow between an SDR picture's latent and its HDR one: a noisy straight bridge, and Euler steps back along it.

It owns the bridge (z_t = (1 - t) z_hdr + t z_start with z_start = z_sdr + 0.05 eps, v = z_start - z_hdr) and the steps.
It must not know networks, pictures or tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

DRAFT_STEPS = 8
"""The released default; the document's inference takes 40."""
FINAL_STEPS = 40

Velocity = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True, eq=False)
class Bridge:
    """Points on the bridge at each sample's time, and the velocity there; all (B, C, h, w)."""

    point: Tensor
    velocity: Tensor


def bridge(hdr: Tensor, start: Tensor, time: Tensor) -> Bridge:
    """The bridge from HDR latents at t = 0 to `start` at t = 1, at times (B,)."""
    t = time[:, None, None, None]
    return Bridge((1 - t) * hdr + t * start, start - hdr)


def start_of(sdr: Tensor, noise: Tensor, amount: float) -> Tensor:
    """Where the bridge starts: the SDR latent with a little unit-normal noise."""
    return sdr + amount * noise


def times(steps: int) -> list[float]:
    """`steps` + 1 equally spaced flow times from 1 to 0."""
    return torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64).tolist()


def euler(start: Tensor, velocity: Velocity, steps: int) -> Tensor:
    """From t = 1 to t = 0 in `steps` Euler steps; `velocity(point, time)` is asked once a step."""
    point, marks = start, times(steps)
    for time, following in zip(marks, marks[1:], strict=False):
        point = point + (following - time) * velocity(point, time)
    return point
