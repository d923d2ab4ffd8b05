"""Pictures in [-1, 1] from simulated photographs, by named encoding: what an autoencoder learns to hold.

It owns the table of encodings and the drawing of pictures. It must not know networks, losses or the loop. A new
encoding is one function of a simulated bracket and one row of `ENCODINGS`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hdrgen_server.systems.gmodiff.config import CONFIGS
from hdrgen_server.systems.gmodiff.regressor import gain_of, gain_scale
from hdrgen_server.training.brackets import BracketSample, Camera, simulate
from hdrgen_server.training.scenes import Scene, load_scenes

Array = npt.NDArray[np.float32]
BRIGHT = 0.5
ZOOM = 2
HELD_OUT_SIDE = 192
HELD_OUT_EACH = 4
HELD_OUT_EVS = (-2.0, 0.0, 2.0)


@dataclass(frozen=True, eq=False)
class Picture:
    """One encoded picture, (H, W, 3) in [-1, 1]; `held` counts the samples that had to be held at the ends."""

    picture_hwc: Array
    held: int


Encoding = Callable[[BracketSample, int], Picture]
"""A picture of a bracket. The index chooses an exposure, for encodings that look at only one."""


def sdr(sample: BracketSample, index: int) -> Picture:
    """One exposure as display codes 2L - 1: what a camera shows, over- and under-exposed as well."""
    return Picture(2 * sample.codes_nhwc[index] - 1, 0)


def gain_map(sample: BracketSample, index: int) -> Picture:
    """The true gain map over the reference frame, 2G - 1 (GMODiff, section 3.2, with the scale of our set form)."""
    del index
    ev = torch.tensor([sample.evs], dtype=torch.float32)
    codes = _planes(sample.codes_nhwc[sample.reference])
    gain = gain_of(_planes(sample.scene_linear_hwc), codes, gain_scale(CONFIGS["s"], ev))
    held = gain.clamp(0, 1)
    picture_hwc: Array = (2 * held - 1)[0].permute(1, 2, 0).numpy()
    return Picture(picture_hwc, int((held != gain).sum()))


ENCODINGS: Mapping[str, Encoding] = MappingProxyType({"sdr": sdr, "gainmap": gain_map})


@dataclass(frozen=True, eq=False)
class Pictures:
    """A batch (B, 3, H, W) in [-1, 1], and the share of its samples that were held at the ends."""

    pictures: Tensor
    held: float

    def to(self, device: torch.device) -> Pictures:
        """The same batch on another device."""
        return Pictures(self.pictures.to(device), self.held)


@dataclass(frozen=True)
class PictureSource:
    """Makes training batches from a folder of panoramas, every encoding in turn; small enough to send to a process."""

    folder: Path
    crop: int
    encodings: tuple[str, ...] = tuple(ENCODINGS)

    def __call__(self, rng: np.random.Generator, size: int) -> Pictures:
        """A batch of `size` crops of views that are one to two crops wide, so that detail comes at many scales."""
        scenes = scenes_of(self.folder, held_out=False)
        drawn = [self._draw(rng, scenes, self.encodings[i % len(self.encodings)]) for i in range(size)]
        pictures = torch.cat([_planes(p.picture_hwc) for p in drawn])
        return Pictures(pictures, sum(p.held for p in drawn) / pictures.numel())

    def _draw(self, rng: np.random.Generator, scenes: Sequence[Scene], name: str) -> Picture:
        side = int(rng.integers(self.crop, ZOOM * self.crop + 1))
        spacing, reference = float(rng.uniform(1, 3)), int(rng.choice([0, 1, 1, 1, 2]))
        sample = simulate(
            rng, scenes, (side, side), (-spacing, 0.0, spacing), reference,
            camera=Camera.random(rng), bright=bool(rng.random() < BRIGHT),
        )  # fmt: skip
        picture = ENCODINGS[name](sample, int(rng.integers(len(sample.evs))))
        top, left = rng.integers(0, side - self.crop + 1, 2)
        cut = picture.picture_hwc[top : top + self.crop, left : left + self.crop]
        return Picture(np.ascontiguousarray(cut), picture.held * cut.size // picture.picture_hwc.size)


@functools.lru_cache(maxsize=2)
def scenes_of(folder: Path, *, held_out: bool) -> Sequence[Scene]:
    """The panoramas of one side of the split, read once a process. Raises BadInput when there are none."""
    import cv2

    cv2.setNumThreads(1)
    return load_scenes(folder, held_out=held_out)


def held_out_pictures(folder: Path, name: str) -> tuple[Tensor, ...]:
    """A fixed set of pictures of an encoding, (1, 3, 192, 192) each: four views of every held-out scene.

    Half of the views have highlights that clip; the exposures take turns.
    """
    pictures: list[Tensor] = []
    for number, scene in enumerate(scenes_of(folder, held_out=True)):
        for index in range(HELD_OUT_EACH):
            rng = np.random.default_rng((91, number, index))
            size = (HELD_OUT_SIDE, HELD_OUT_SIDE)
            sample = simulate(rng, [scene], size, HELD_OUT_EVS, 1, bright=index % 2 == 0)
            pictures.append(_planes(ENCODINGS[name](sample, index % len(HELD_OUT_EVS)).picture_hwc))
    return tuple(pictures)


def _planes(image_hwc: Array) -> Tensor:
    return torch.from_numpy(image_hwc).permute(2, 0, 1)[None]
