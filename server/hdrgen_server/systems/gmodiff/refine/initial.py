"""What stage one says about a frame, as stage two takes it. It must not know torch, networks or tiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Initial:
    """What stage one says about a frame (H, W).

    `gain_hwc` (H, W, 3) and `mask_hw` in [0, 1]; `under_hwc` the codes of the shortest exposure in [0, 1]; `pooled_chw`
    (C, rows, columns) the encoder's features, one cell every `cell` pixels.
    """

    gain_hwc: Array
    mask_hw: Array
    under_hwc: Array
    pooled_chw: Array
    cell: int
