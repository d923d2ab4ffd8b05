"""What the regressor is trained to lower (GMODiff, Eq. 3 to 5), as functions of tensors.

It owns the formulas. It must not know data, optimisers or files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hdrgen_server.systems.gmodiff.candidates import log2_floor
from hdrgen_server.systems.gmodiff.regressor import Regression, gain_of, mu_law

DEGRADED = 4 / 255
Distance = Callable[[Tensor, Tensor], Tensor]
"""A scalar from two display-coded images (B, 3, H, W) in [0, 1]."""


@dataclass(frozen=True)
class Weights:
    """How much each term counts. `stops` (L1 in log2) and `square` (mean square of what `tone` compares, which is what
    PSNR counts) are ours; `perceptual` (published: 1e-2) needs a distance.
    """

    gain: float = 1.0
    tone: float = 1.0
    stops: float = 0.05
    mask: float = 0.01
    perceptual: float = 0.0
    square: float = 0.0


def degradation_mask(truth: Tensor, estimate: Tensor) -> Tensor:
    """Eq. 5: 1 where the mean absolute difference over RGB of T(H) exceeds 4/255; (B, 1, H, W)."""
    return ((mu_law(truth) - mu_law(estimate)).abs().mean(dim=1, keepdim=True) > DEGRADED).to(truth.dtype)


def regression_loss(
    regression: Regression,
    reference_codes: Tensor,
    truth: Tensor,
    weights: Weights,
    perceptual: Distance | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """The sum of gain (Eq. 3), tone and perceptual (Eq. 4), square, stops and mask terms, and each by name.

    Truth is scene-linear (B, 3, H, W) at the reference's exposure. What lies beyond the gain map's range is held at
    its end for the comparison: no map can show it. Raises ValueError when `weights.perceptual` has no distance.
    """
    ceiling = gain_of(truth, reference_codes, regression.scale).clamp(0, 1)
    estimate = regression.scene_linear(reference_codes)
    peak = regression.scale
    toned, toned_truth = mu_law(estimate / peak, 5000), mu_law((truth / peak).clamp(max=1), 5000)
    terms = {
        "gain": F.l1_loss(regression.gain, ceiling),
        "tone": F.l1_loss(toned, toned_truth),
        "square": F.mse_loss(toned, toned_truth),
        "stops": F.l1_loss(log2_floor(estimate), log2_floor(truth)),
        "mask": F.binary_cross_entropy_with_logits(regression.mask_logits, degradation_mask(truth, estimate.detach())),
    }
    if weights.perceptual:
        if perceptual is None:
            raise ValueError("the perceptual term has a weight but no distance; pass one or set its weight to 0")
        terms["perceptual"] = perceptual(toned, toned_truth)
    total = sum((getattr(weights, name) * term for name, term in terms.items()), torch.zeros(()))
    return total, {name: float(term.detach()) for name, term in terms.items()}
