"""What an exposure head is worth on held-out views: clipped places, agreement of neighbours, and what its stack costs.

It owns the figures of a loaded pack's head. It must not know how packs are found, nor tables. The views are the fixed
ones of its training's held-out check; none was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hdrgen_server.systems.latenthdr.config import EV_HIGH, EV_LOW
from hdrgen_server.systems.latenthdr.exposure import light_of, picture_of
from hdrgen_server.systems.latenthdr.generated import PromptOperator
from hdrgen_server.systems.latenthdr.loading import Loaded
from hdrgen_server.systems.latenthdr.operator import PlateOperator
from hdrgen_server.training.exposures import GAIN_EV, NO_ERRORS, Exposures, clipped_errors
from nuke_hdrgen.wire.errors import BadParameter

MIDDLE = (0.25, 0.75)
"""Codes that are mid-tones in an exposure."""


@dataclass(frozen=True)
class HeadFigures:
    """`clip_gain_db`: the head's pictures at EV -3 where the plate clips, over its EV 0 decode times 2^-3.
    `disagreement`: median relative difference of light between exposures a stop apart, where both show mid-tones;
    `worst` the largest such median of a pair. `views` is how many were looked at.
    """

    clip_gain_db: float
    disagreement: float
    worst: float
    views: int


@torch.inference_mode()
def head_figures(operator: object, name: str, views: Sequence[Exposures]) -> HeadFigures:
    """Figures of the head of a loaded pack on views. Raises BadParameter for a pack of another system."""
    if not isinstance(operator, (PlateOperator, PromptOperator)):
        raise BadParameter(f"{name} has no exposure head; --exposures is for packs of latenthdr")
    loaded, clipped, pairs = operator.loaded, NO_ERRORS, _Pairs()
    space, device = loaded.space, loaded.space.device
    evs = torch.arange(max(EV_LOW, loaded.evs.low), min(EV_HIGH, loaded.evs.high) + 0.5, 1.0)
    for view in views:
        base = space.encode(_base_picture(operator, view).to(device))
        before: Tensor | None = None
        for index, ev in enumerate(map(float, evs)):
            codes = _codes(loaded, base, ev)
            if before is not None:
                pairs.add(index, before, codes, ev)
            if ev == GAIN_EV:
                plate = (space.decode(space.encode(picture_of(view.shown, 0.0).to(device))).cpu() + 1) / 2
                clipped += clipped_errors(codes, plate, view.light, view.shown)
            before = codes
    return HeadFigures(clipped.gain_db, *pairs.medians(), len(views))


def _base_picture(operator: PlateOperator | PromptOperator, view: Exposures) -> Tensor:
    """What the base latent is of: the plate, or the codes that the generator draws."""
    if isinstance(operator, PlateOperator):
        return picture_of(view.shown, 0.0)
    light_hwc = view.light[0].permute(1, 2, 0).numpy()
    return torch.from_numpy(operator.look.picture_of(light_hwc)).permute(2, 0, 1)[None].float()


def _codes(loaded: Loaded, base: Tensor, ev: float) -> Tensor:
    at = torch.full((len(base),), ev, device=base.device)
    return (loaded.space.decode(loaded.head(base, at)).cpu() + 1) / 2


class _Pairs:
    """Differences of light between neighbouring exposures, by which pair they are of."""

    def __init__(self) -> None:
        self._found: dict[int, list[Tensor]] = {}

    def add(self, index: int, darker: Tensor, brighter: Tensor, ev: float) -> None:
        """Take the exposures at `ev` and a stop below."""
        low, high = MIDDLE
        both = ((darker > low) & (darker < high) & (brighter > low) & (brighter < high)).all(dim=1, keepdim=True)
        both = both.expand_as(darker)
        first, second = light_of(darker, ev - 1)[both], light_of(brighter, ev)[both]
        self._found.setdefault(index, []).append((first - second).abs() / (0.5 * (first + second)))

    def medians(self) -> tuple[float, float]:
        """Of all pairs together, and the largest of one pair; NaN where no place is a mid-tone in two exposures."""
        by_pair = [torch.cat(parts) for parts in self._found.values()]
        filled = [values for values in by_pair if len(values)]
        if not filled:
            return float("nan"), float("nan")
        return float(np.median(torch.cat(filled).numpy())), max(float(values.median()) for values in filled)
