"""What a bracket says about each pixel before any network looks: one estimate per exposure and their weighted merge.

It owns the arithmetic on tensors. It must not know networks, files or how the bracket was aligned.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

FLOOR = 2.0**-14
CLIP_START, SAFE_END, CLIP_END = 0.90, 0.97, 250 / 255
CRUSH_START, CRUSH_END = 2 / 255, 8 / 255
TOLERANCE_STOPS, CODE_STOPS = 0.12, 6.4


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


def disagreement(bracket: Bracket) -> Tensor:
    """How many stops each exposure is from what the reference allows, over its tolerance; (B, N, 1, H, W), at least 0.

    Where the reference is clipped it only says "at least this bright", where it is crushed "at most this dark". The
    tolerance is 0.12 stops and two code values of the darker sample, on luminance averaged over 3x3 pixels.
    """
    weights = bracket.codes.new_tensor([0.2126, 0.7152, 0.0722])[:, None, None]
    light = _blurred((bracket.scene_linear * weights).sum(dim=2, keepdim=True))
    codes = _blurred((bracket.codes * weights).sum(dim=2, keepdim=True))
    brightest = _blurred(bracket.codes.amax(dim=2, keepdim=True))
    stops = log2_floor(light)
    above = stops - stops[:, :1]
    clipped = brightest > CLIP_START
    crushed = codes < CRUSH_START
    above = torch.where((clipped[:, :1] & (above > 0)) | (crushed[:, :1] & (above < 0)), 0, above)
    above = torch.where((clipped & (above < 0)) | (crushed & (above > 0)), 0, above)
    darker = torch.minimum(codes, codes[:, :1]).clamp(min=1 / 255)
    return above.abs() / (TOLERANCE_STOPS + CODE_STOPS / (255 * darker))


def consistent_merge(bracket: Bracket, disagreed: Tensor) -> Tensor:
    """The merge of what agrees with the reference (B, 3, H, W); where all that do are clipped, the shortest of them."""
    agreement = torch.exp(-0.5 * disagreed.square())
    weights = exposure_weights(bracket) * agreement
    shortest = bracket.ev.argmin(dim=1)
    rows = torch.arange(len(shortest), device=shortest.device)
    epsilon = 1e-3 * torch.exp2(bracket.ev.amin(dim=1))[:, None, None, None]
    reference = bracket.scene_linear[:, 0]
    trust = (agreement * bracket.valid)[rows, shortest]
    fallback = reference + trust * (bracket.scene_linear[rows, shortest] - reference)
    return ((weights * bracket.scene_linear).sum(dim=1) + epsilon * fallback) / (weights.sum(dim=1) + epsilon)


def unsupported(bracket: Bracket, disagreed: Tensor) -> Tensor:
    """1 where no exposure says anything about a pixel, to 0 where one does fully; (B, 1, H, W).

    An exposure does where it agrees with the reference and is not clipped; the shortest also where it is clipped, since
    nobody knows more. Specks into which no 3x3 pixels fit are left out: noise and edges make them where nothing moves.
    """
    shortest = functional.one_hot(bracket.ev.argmin(dim=1), bracket.ev.shape[1])[:, :, None, None, None]
    clipped = _ramp(bracket.codes.amax(dim=2, keepdim=True), SAFE_END, CLIP_END) * (1 - shortest)
    support = (1 - clipped) * torch.exp(-0.5 * disagreed.square()) * bracket.valid
    found = 1 - support.amax(dim=1)
    eroded = -functional.max_pool2d(-found, 3, stride=1, padding=1)
    return torch.minimum(found, functional.max_pool2d(eroded, 3, stride=1, padding=1))


def _blurred(planes: Tensor) -> Tensor:
    """Mean over 3x3 pixels of (B, N, 1, H, W), edges repeated."""
    padded = functional.pad(planes.flatten(0, 1), (1, 1, 1, 1), mode="replicate")
    return functional.avg_pool2d(padded, 3, stride=1).unflatten(0, planes.shape[:2])
