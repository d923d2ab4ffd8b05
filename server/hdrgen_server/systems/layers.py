"""Names and making of the layers that results of several systems share. It must not know any one system, nor torch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hdrgen_server.contracts.frame import Frame
from hdrgen_server.image.finish import clipped_pixels, result_weight

CLIPPED = "hdrgen.clipped"
GENERATED = "hdrgen.generated"

BAND_PIXELS = 1 << 16


def clipped_weight(plate: Frame, level: float | None) -> npt.NDArray[np.float32]:
    """How much of a result each pixel takes where the plate is preserved: (H, W) float32, 0 keeps the plate, 1 takes
    the result.

    It is `result_weight` of the plate's `clipped_pixels` at `level`, worked out in bands of rows.
    """
    weight_hw = np.empty((plate.height, plate.width), np.float32)
    rows = max(1, BAND_PIXELS // plate.width)
    for top in range(0, plate.height, rows):
        first, last = max(0, top - 1), min(plate.height, top + rows + 1)
        band = plate.with_pixels(plate.pixels[first:last], data_window=None, layers={})
        weight_hw[top : top + rows] = result_weight(clipped_pixels(band, level))[top - first :][:rows]
    return weight_hw
