"""Small panoramas for tests of training."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def panorama(seed: int, height: int = 96) -> npt.NDArray[np.float32]:
    """Equirectangular (H, 2H, 3): sky over ground, texture of two scales, and lamps up to 60."""
    rng = np.random.default_rng(seed)
    stops = np.linspace(1.0, -3.0, height, dtype=np.float32)[:, None].repeat(2 * height, axis=1)
    for scale, amount in ((16, 1.2), (4, 0.6)):
        coarse = rng.standard_normal((height // scale, 2 * height // scale)).astype(np.float32)
        stops += amount * np.kron(coarse, np.ones((scale, scale), np.float32))
    light = np.exp2(stops)
    for row, column in rng.integers((0, 0), (height - 12, 2 * height - 12), (8, 2)):
        light[row : row + 10, column : column + 10] = rng.uniform(8, 60)
    return (light[..., None] * np.array([1.0, 0.9, 0.75], np.float32)).astype(np.float32)
