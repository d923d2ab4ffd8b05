"""What both operations do with a stack: merge it as it comes, and keep its exposures as layers where that is asked.

It owns the parameters of a stack and the layers' names. It must not know plates, prompts or networks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hdrgen_server.contracts.descriptor import Value
from hdrgen_server.systems.latenthdr.config import Range, ev_name
from hdrgen_server.systems.latenthdr.merge import Merged, Merger
from hdrgen_server.systems.latenthdr.stack import Exposed
from hdrgen_server.systems.qwenlog.frame import SMALLEST_TILE, Tiling

LAYER = "hdrgen.ev_"


@dataclass(frozen=True, eq=False)
class Stacked:
    """A merged stack, and its exposures' codes by layer: `hdrgen.ev_m3_r` is red at EV -3, (H, W) in half precision."""

    merged: Merged
    layers: Mapping[str, npt.NDArray[np.float16]]


def merge_stack(exposures: Iterable[Exposed], size: tuple[int, int], *, aovs: bool) -> Stacked:
    """Merge exposures of `size`, the darkest first; with `aovs` keep them, else one at a time is held."""
    merger = Merger(*size)
    layers: dict[str, npt.NDArray[np.float16]] = {}
    for exposed in exposures:
        merger.add(exposed.ev, exposed.codes_hwc)
        if aovs:
            for channel, name in enumerate("rgb"):
                layers[f"{LAYER}{ev_name(exposed.ev)}_{name}"] = exposed.codes_hwc[..., channel].astype(np.float16)
    return Stacked(merger.result(), layers)


def asked_evs(parameters: Mapping[str, Value], known: Range, name: str) -> tuple[float, ...]:
    """The EVs that a request asks of the pack of that name. Raises BadParameter for those that its head never saw."""
    low, high, step = (float(parameters[key]) for key in ("ev_low", "ev_high", "ev_step"))
    return known.stack(low, high, step, name)


def asked_tiles(tiling: Tiling, asked: int, rung: int, cell: int) -> Tiling:
    """The device's tiles or those of an edge that was asked for, halved once a rung from 2."""
    if asked:
        edge = max(asked // cell * cell, min(SMALLEST_TILE, 8 * cell))
        tiling = Tiling(edge, min(tiling.overlap, edge // 4 // cell * cell))
    return tiling.halved(max(0, rung - 1), cell) if rung > 1 else tiling
