"""What the command line's tests share beside fixtures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Run = Callable[..., tuple[int, str, str]]


def photograph(path: Path, value: float, size: tuple[int, int] = (32, 24)) -> Path:
    """An 8-bit ramp around `value`, (width, height) in size."""
    width, height = size
    ramp = np.linspace(0.2, 1.0, width)[None, :, None] * np.ones((height, 1, 3)) * value
    Image.fromarray(np.round(np.clip(ramp, 0, 1) * 255).astype(np.uint8)).save(path)
    return path
