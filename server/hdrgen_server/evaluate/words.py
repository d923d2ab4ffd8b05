"""Whether a picture shows what its prompt's word says: a nearest-centroid classifier on features that are fixed here.

It owns the words, the features and the centroids, which come from drawn places that no training saw and from held-out
panoramas. It must not know packs or how pictures are made. Light is (H, W, 3) linear Rec.709 with mid-grey at 0.18.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from hdrgen_server.evaluate.metrics import luminance
from hdrgen_server.training.captioned import held_out_place, photographed, seen
from hdrgen_server.training.captions import PANORAMAS
from hdrgen_server.training.drawn import KINDS
from hdrgen_server.training.scenes import Scene
from nuke_hdrgen.wire.errors import BadInput

Array = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
PROMPTS: Mapping[str, str] = MappingProxyType({
    "sunset": "a sunset", "night": "a night scene", "studio": "a photo studio", "forest": "a forest",
    "overcast": "an overcast sky", "interior": "an interior", "noon": "the sun at noon", "street": "a street",
})  # fmt: skip
SEED = 71
PLACES, VIEWS = 24, 6
"""Drawn places of each word, and views of each held-out panorama, that centroids come from."""
FLOOR = 1e-3
QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999)
BANDS = 8


def features_of(scene_linear_hwc: Array) -> Float64:
    """What a picture is told by, (30,): quantiles of luminance in stops, its mean in eight bands from top to bottom,
    log ratios of red and blue to green in three, and gradients across and down at four scales.
    """
    light_hwc = np.maximum(np.asarray(scene_linear_hwc, np.float64), FLOOR)
    level = np.log2(np.maximum(luminance(light_hwc), FLOOR))
    ratios_hwc = np.log2(light_hwc[..., [0, 2]] / light_hwc[..., 1:2])
    found: list[Any] = [np.quantile(level, QUANTILES)]
    found.append([part.mean() for part in np.array_split(level, BANDS)])
    found.extend(part.mean(axis=(0, 1)) for part in np.array_split(ratios_hwc, 3))
    for _ in range(4):
        found.append([np.abs(np.diff(level, axis=axis)).mean() for axis in (1, 0)])
        rows, columns = (n // 2 * 2 for n in level.shape)
        level = level[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2).mean(axis=(1, 3))
    return np.concatenate([np.asarray(part, np.float64) for part in found])


@dataclass(frozen=True, eq=False)
class Words:
    """A centroid for each word in features of unit deviation, and how many references it comes from."""

    centroids: Mapping[str, Float64]
    mean: Float64
    deviation: Float64
    references: int

    def word_of(self, scene_linear_hwc: Array) -> str:
        """The word whose centroid is nearest."""
        at = (features_of(scene_linear_hwc) - self.mean) / self.deviation
        return min(self.centroids, key=lambda word: float(np.linalg.norm(at - self.centroids[word])))


def held_out_words(scenes: Sequence[Scene], side: int) -> Words:
    """The classifier from held-out references. Raises BadInput for a scene that is not held out or has no word."""
    return centroids_of(references(scenes, side, SEED))


def references(scenes: Sequence[Scene], side: int, seed: int) -> dict[str, list[Array]]:
    """Views, (side, side, 3), of each word: drawn places with words that no training has together, and views of
    held-out panoramas, whose word is the first of KINDS in their sentence.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, list[Array]] = {
        kind: [seen(rng, held_out_place(rng, kind), side, panorama=False) for _ in range(PLACES)] for kind in KINDS
    }
    for scene in scenes:
        word = next((kind for kind in KINDS if kind in PANORAMAS.get(scene.name, "")), None)
        if word is None:
            raise BadInput(f"{scene.name} is no panorama whose word is known; leave it out of the folder")
        found[word] += [photographed(rng, scene, side, panorama=False)[0] for _ in range(VIEWS)]
    return found


def centroids_of(pictures: Mapping[str, Sequence[Array]]) -> Words:
    """The classifier from pictures of each word."""
    by_word = {word: np.stack([features_of(one) for one in ones]) for word, ones in pictures.items()}
    every = np.concatenate(list(by_word.values()))
    mean, deviation = every.mean(axis=0), np.maximum(every.std(axis=0), 1e-6)
    centroids = {word: ((rows - mean) / deviation).mean(axis=0) for word, rows in by_word.items()}
    return Words(MappingProxyType(centroids), mean, deviation, len(every))
