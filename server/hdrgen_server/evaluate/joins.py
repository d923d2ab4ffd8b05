"""How a shot that was made window by window goes on where windows join.

It owns the measure. It must not know what made the frames, nor files. `Windows` says where the joins are.

A join is where the windows that a frame is made of change. Neighbouring windows are blended over the frames that they
share, so window w has two: the step to its first frame, where it begins to count, and the step from the last frame
that it shares, where the window before it has ceased to. With windows of 17 frames, 9 apart, of any nine steps from
frame to frame two are joins, and seven lie inside a blend of the same two windows. Without overlap both joins are the
one step from window to window. A blend that ramps evenly spreads what two windows differ by over all its steps: that is
drift, which `flicker` and JOD judge, and no join.

A step's size is the mean |difference in stops| of blocks of 8 x 8 pixels between two frames: brightness, with little
of the detail that moves. A camera does not turn evenly, so each step of the result is held against the same step of
the plate, and then a join's ratio against the median of the steps around it that are no joins: 1 is a join that
nothing tells from its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hdrgen_server.evaluate.flicker import block_stops
from nuke_hdrgen.wire.errors import BadInput
from nuke_hdrgen.wire.windows import Windows


@dataclass(frozen=True)
class Joins:
    """The joins' steps over those of their neighbours, both over the plate's own: median and worst, the index of the
    frame before the worst, and how many there are.
    """

    median: float
    worst: float
    worst_after: int
    count: int


class Steps:
    """Collects the sizes of a shot's steps as its frames go by; one frame's blocks are held."""

    def __init__(self) -> None:
        self.sizes: list[float] = []
        self._before: npt.NDArray[np.float64] | None = None

    def take(self, scene_linear_hwc: npt.NDArray[Any]) -> None:
        """The next frame, scene-linear. Raises BadInput for NaN or Inf."""
        blocks = block_stops(scene_linear_hwc)
        if self._before is not None:
            self.sizes.append(float(np.mean(np.abs(blocks - self._before))))
        self._before = blocks


def joins(result: Sequence[float], plate: Sequence[float], plan: Windows) -> Joins:
    """The joins of a shot, from its steps and its plate's; frame 0 is where the first window begins.

    Raises BadInput for a plate that stands still, and for a shot without joins or without steps between them.
    """
    if len(result) != len(plate):
        raise BadInput(f"the result has {len(result)} steps, its plate {len(plate)}; a shot keeps its length")
    own, steps = np.asarray(plate, np.float64), np.asarray(result, np.float64)
    if not (own > 0).all():
        raise BadInput(f"the plate stands still after frame {int(np.argmin(own))}; joins are told in one that moves")
    ratios = steps / own
    at = _places(len(ratios) + 1, plan)
    found: dict[int, float] = {}
    for place in at:
        around = range(max(0, place - plan.hop), min(len(ratios), place + plan.hop + 1))
        found[place] = float(ratios[place] / np.median([ratios[i] for i in around if i not in at] or [np.nan]))
    if not found or not np.isfinite(list(found.values())).all():
        raise BadInput(f"{len(ratios) + 1} frames in windows of {plan.size} have no joins with steps between them")
    worst = max(found, key=lambda place: found[place])
    return Joins(float(np.median(list(found.values()))), found[worst], worst, len(found))


def _places(frames: int, plan: Windows) -> set[int]:
    """The indices of the frames before a join."""
    starts = [number * plan.hop for number in range(1, frames) if plan.exists(number, frames)]
    return {place for start in starts for place in (start - 1, start + plan.overlap - 1)}
