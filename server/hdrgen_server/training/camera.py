"""What a camera does to a clip: a tone curve, contrast, lost detail at both ends, and a movie file.

It owns the degradations of the SDR reference and their drawing. It must not know networks, or where clips come from.
Clips are (F, H, W, 3). Source: LumiVid (arXiv 2604.11788), section 3.2: MP4 compression, contrast scaling and selective
blur of highlights and shadows act on the SDR alone; its Table 5 compares all of them with none and with blur only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from hdrgen_server.training.degradations import CRFS, clip_through_x264
from hdrgen_server.training.random_curves import through_curve
from hdrgen_server.training.tone_mapping import OPERATORS, tone_map

Array = npt.NDArray[np.float32]

CONTRAST = (1.0, 1.6)
SIGMAS = (0.8, 3.0)
HIGHLIGHTS, SHADOWS = (0.75, 0.95), (0.05, 0.2)


@dataclass(frozen=True)
class Degradations:
    """The share of clips that each one befalls; `curves` is that of random tone curves against published operators."""

    mp4: float = 0.7
    contrast: float = 0.4
    blur: float = 0.5
    curves: float = 0.5


TABLE_5: Mapping[str, Degradations] = MappingProxyType(
    {"full": Degradations(), "none": Degradations(0, 0, 0), "blur": Degradations(0, 0, 1)}
)


def degraded(light: Array, rng: np.random.Generator, how: Degradations) -> tuple[Array, Array]:
    """SDR codes in [0, 1] of scene-linear Rec.709 light, (F, H, W, 3), before and after the degradations.

    One tone curve, one contrast and one file for the whole clip, as a camera has.
    """
    codes = clean = _tone_mapped(light, rng, how.curves)
    if rng.random() < how.contrast:
        codes = contrasted(codes, float(rng.uniform(*CONTRAST)))
    if rng.random() < how.blur:
        codes = blurred_ends(
            codes, float(rng.uniform(*SIGMAS)), float(rng.uniform(*SHADOWS)), float(rng.uniform(*HIGHLIGHTS))
        )
    if rng.random() < how.mp4:
        codes = np.stack(clip_through_x264(list(codes), int(rng.choice(CRFS))))
    return clean, np.asarray(codes, np.float32)


def contrasted(codes: Array, factor: float) -> Array:
    """Codes with their distance from the middle scaled, cut to [0, 1]: both ends clip."""
    return np.clip((codes - np.float32(0.5)) * np.float32(factor) + np.float32(0.5), 0, 1)


def blurred_ends(codes: Array, sigma: float, low: float, high: float) -> Array:
    """Codes blurred within each frame, `sigma` pixels, where their largest channel is above `high` or below `low`."""
    blurred = gaussian_filter(codes, (0, sigma, sigma, 0))
    level = codes.max(axis=-1, keepdims=True)
    ends = np.maximum(np.clip((level - high) / 0.05, 0, 1), np.clip((low - level) / 0.05, 0, 1))
    return codes + ends.astype(np.float32) * (blurred - codes)


def _tone_mapped(light: Array, rng: np.random.Generator, curves: float) -> Array:
    tall = np.ascontiguousarray(light.reshape(-1, *light.shape[2:]))
    if rng.random() < curves:
        return through_curve(tall, rng).reshape(light.shape)
    return tone_map(tall, list(OPERATORS)[int(rng.integers(len(OPERATORS)))]).reshape(light.shape)
