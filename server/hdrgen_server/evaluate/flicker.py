"""How much a shot flickers: brightness that comes and goes from one frame to the next.

It owns the index. It must not know files or what made the frames. The index is this project's own: local brightness in
stops, against the mean of the frames before and after, as a share of the shot's own spread of brightness. So neither a
gain nor a power (a tone curve straight in stops) changes it, motion that goes on evenly adds nothing, and the index of
a result can be held against that of its plate.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from hdrgen_server.evaluate.metrics import luminance
from nuke_hdrgen.wire.errors import BadInput

BLOCK = 8
FLOOR, CAP = 5e-4, 100.0
"""Light between these counts, 1.0 at diffuse white: what a display shows at least, and at most."""


def flicker_index(scene_linear: Iterable[npt.NDArray[Any]]) -> float:
    """The index of a shot's frames, (H, W, 3) scene-linear Rec.709 each, three or more: 0 for a still shot.

    With b the mean log2 luminance of a block of 8 x 8 pixels: the mean of |b(t) - (b(t-1) + b(t+1)) / 2| over blocks
    and frames, divided by the standard deviation of b over all of them. Raises BadInput for fewer frames, frames of
    several sizes, NaN or Inf, and a shot without any contrast.
    """
    before: npt.NDArray[np.float64] | None = None
    now: npt.NDArray[np.float64] | None = None
    count, wavering, total, squares = 0, 0.0, 0.0, 0.0
    for frame in scene_linear:
        after = block_stops(frame)
        if now is not None and after.shape != now.shape:
            raise BadInput(f"frame {count} is of another size than those before it; a shot has one size")
        if before is not None and now is not None:
            wavering += float(np.mean(np.abs(now - 0.5 * (before + after))))
        total += float(after.mean())
        squares += float(np.mean(after * after))
        before, now, count = now, after, count + 1
    if count < 3:
        raise BadInput(f"flicker needs three frames or more, got {count}")
    spread = float(np.sqrt(max(squares / count - (total / count) ** 2, 0.0)))
    if spread < 1e-6:
        raise BadInput("the shot is of one brightness all over; its flicker has nothing to be measured by")
    return wavering / (count - 2) / spread


def block_stops(scene_linear_hwc: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Mean log2 luminance (0 at diffuse white) of every whole block of a frame (H, W, 3), so (H / 8, W / 8); smaller
    frames are one block. Raises BadInput for NaN and Inf.
    """
    if not np.isfinite(scene_linear_hwc).all():
        raise BadInput("a frame holds NaN or Inf, which has no brightness; replace them first")
    stops = np.log2(np.clip(luminance(scene_linear_hwc), FLOOR, CAP))
    height, width = (max(1, side // BLOCK) for side in stops.shape)
    block_h, block_w = min(BLOCK, stops.shape[0]), min(BLOCK, stops.shape[1])
    cut = stops[: height * block_h, : width * block_w]
    return cut.reshape(height, block_h, width, block_w).mean(axis=(1, 3))
