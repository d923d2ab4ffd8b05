"""The held-out panorama that methods are scored on in these tests."""

from __future__ import annotations

import numpy as np
import pytest

from hdrgen_server.training.scenes import Scene


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """Smooth colours with windows up to 40 times brighter than the rest."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[0:128, 0:256].astype(np.float32)
    base = 0.2 + 0.15 * np.sin(x / 9)[..., None] * np.cos(y / 7)[..., None] * rng.uniform(0.5, 1, 3)
    for _ in range(60):
        top, left = rng.integers(0, 118), rng.integers(0, 246)
        base[top : top + 9, left : left + 9] *= rng.uniform(4, 40)
    return [Scene("lebombo", base.astype(np.float32), 0)]
