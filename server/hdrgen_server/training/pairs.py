"""Pairs of SDR and HDR pictures for training SDR2HDR: HDR views and frames, and SDR that a real chain makes of them.

It owns where the HDR comes from, exposures, crops and codes. It must not know networks, losses or the loop.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hdrgen_server.colour.curves import CURVES
from hdrgen_server.colour.primaries import rgb_to_rgb
from hdrgen_server.systems.detail import anchor_stops
from hdrgen_server.systems.sdr2hdr import MID_GREY
from hdrgen_server.training.brackets import exposed_view
from hdrgen_server.training.degradations import CRFS, degrade
from hdrgen_server.training.hdr_sources import HdrFile, hdr_files, read_pictures
from hdrgen_server.training.pictures import scenes_of
from hdrgen_server.training.random_curves import through_curve
from hdrgen_server.training.tone_mapping import DISPLAY_GAMMA, OPERATORS
from hdrgen_server.training.views import LUMINANCE, anchor_exposure

Array = npt.NDArray[np.float32]

PANORAMAS = "panoramas"
"""The layout that is a folder of equirectangular EXRs; all others are those of `hdr_sources`."""
WHITE_NITS = 100.0
EXPOSURE_STOPS = 0.7
BRIGHT = 0.85
"""This share of views has light above white: others only teach to do nothing."""
BALANCE_STOPS, CONTRAST_STOPS = 0.15, 0.35
MIX_STOPS = 1.5
"""Where two views' light lies in one picture, the second is up to so many stops brighter or darker."""
CLIPPED_CODE = np.float32(250 / 255)
MOVIE_FRAMES = 48
HELD_OUT_SIDE, HELD_OUT_EACH = 192, 4


@dataclass(frozen=True, eq=False)
class Pairs:
    """A batch: SDR codes (BT.709, BT.1886) and PQ codes (BT.2020) of the same pictures, each (B, 3, H, W) in [0, 1].

    `held` is the share of HDR samples that were above the peak or outside BT.2020, and were held there.
    """

    sdr: Tensor
    hdr: Tensor
    held: float

    def to(self, device: torch.device) -> Pairs:
        """The same on a device."""
        return Pairs(self.sdr.to(device), self.hdr.to(device), self.held)


@dataclass(frozen=True)
class PairSource:
    """Makes training batches from a folder; small enough to send to a process.

    `layout` says how the folder lies; `operators` and `crfs` are what SDR is made by, but for a share `curves` of
    pictures, which random curves make. A panorama has no exposure of its own, so its light is brought to where its SDR
    shows mid-grey: a corpus keeps its masters'.
    """

    folder: Path
    crop: int
    peak_nits: float
    layout: str = PANORAMAS
    operators: tuple[str, ...] = tuple(OPERATORS)
    crfs: tuple[int, ...] = CRFS
    curves: float = 0.0

    def __call__(self, rng: np.random.Generator, size: int) -> Pairs:
        """A batch of `size` crops."""
        return batch_of([self._draw(rng) for _ in range(size)])

    def _draw(self, rng: np.random.Generator) -> tuple[Array, Array, int]:
        if self.layout == PANORAMAS:
            scenes = scenes_of(self.folder, held_out=False)
            scene = scenes[int(rng.integers(len(scenes)))]
            light_hwc = exposed_view(rng, scene, (self.crop, self.crop), bright=bool(rng.random() < BRIGHT))
            light_hwc = anchor_exposure(varied(light_hwc, rng))
            light_hwc = light_hwc * np.float32(2.0 ** rng.uniform(-EXPOSURE_STOPS, EXPOSURE_STOPS))
        else:
            light_hwc = crop_of(rng, _files(self.folder, self.layout), self.crop)
        sdr_hwc = (
            through_curve(light_hwc, rng)
            if rng.random() < self.curves
            else degrade(light_hwc, rng, self.operators, self.crfs).codes_hwc
        )
        if self.layout == PANORAMAS:
            light_hwc = as_shown(light_hwc, sdr_hwc)
        return (sdr_hwc, *pq_codes(light_hwc, self.peak_nits))


def varied(light_hwc: Array, rng: np.random.Generator) -> Array:
    """Linear Rec.709 light as another scene might have it: another white balance, and more or less contrast around
    mid-grey, chromaticity kept. A few dozen panoramas are too few to learn highlights from as they are.
    """
    balanced_hwc = light_hwc * np.exp2(rng.normal(0, BALANCE_STOPS, 3)).astype(np.float32)
    luminance = np.maximum(balanced_hwc @ LUMINANCE, np.float32(1e-6))[..., None]
    power = np.float32(2.0 ** rng.uniform(-CONTRAST_STOPS, CONTRAST_STOPS) - 1)
    return (balanced_hwc * (luminance / np.float32(MID_GREY)) ** power).astype(np.float32)


def steepened(light_hwc: Array, rng: np.random.Generator, stops: float) -> Array:
    """Light (H, W, 3) with what is above 1 brighter or darker by a power of its luminance, `stops` of the exponent at
    most, chromaticity kept: what a few dozen scenes have in their highlights is no rule for others.
    """
    luminance = np.maximum(light_hwc @ LUMINANCE, np.float32(1))[..., None]
    return light_hwc * luminance ** np.float32(2.0 ** rng.uniform(-stops, stops) - 1)


def as_shown(light_hwc: Array, sdr_hwc: Array) -> Array:
    """Linear Rec.709 light at the exposure at which its SDR codes show mid-grey, which is where SDR2HDR leaves it."""
    matrix = rgb_to_rgb("rec709", "rec2020").astype(np.float32).T
    shown_hwc = (sdr_hwc ** np.float32(DISPLAY_GAMMA) @ matrix).astype(np.float32)
    known_hw = (sdr_hwc.max(axis=2) < CLIPPED_CODE).astype(np.float32)
    return light_hwc * np.float32(2.0 ** anchor_stops(shown_hwc, light_hwc @ matrix, shown_hwc, known_hw))


def crop_of(rng: np.random.Generator, files: Sequence[HdrFile], side: int) -> Array:
    """A random crop of a random frame of a corpus, (side, side, 3); smaller frames are reflected. Raises BadInput."""
    file = files[int(rng.integers(len(files)))]
    first = int(rng.integers(MOVIE_FRAMES)) if file.is_movie else 0
    pictures = list(islice(read_pictures(file), first + 1))
    light_hwc = pictures[-1].scene_linear_hwc
    height, width = light_hwc.shape[:2]
    missing = [(0, max(0, side - height)), (0, max(0, side - width)), (0, 0)]
    light_hwc = np.pad(light_hwc, missing, mode="symmetric")
    top, left = (int(rng.integers(length - side + 1)) for length in light_hwc.shape[:2])
    return np.ascontiguousarray(light_hwc[top : top + side, left : left + side])


def pq_codes(scene_linear_hwc: Array, peak_nits: float) -> tuple[Array, int]:
    """Linear Rec.709 light as PQ codes of BT.2020 (diffuse white at 100 cd/m2), and how many samples were held within
    0 and the peak.
    """
    light_hwc = scene_linear_hwc @ rgb_to_rgb("rec709", "rec2020").astype(np.float32).T
    kept_hwc = np.clip(light_hwc, 0, peak_nits / WHITE_NITS)
    codes_hwc: Array = CURVES["pq"].encode(kept_hwc)
    return codes_hwc, int((np.abs(kept_hwc - light_hwc) > 1e-5).sum())


def batch_of(drawn: Sequence[tuple[Array, Array, int]]) -> Pairs:
    """Stack (SDR codes, PQ codes, held samples) of one size."""
    sdr, hdr = (
        torch.from_numpy(np.stack([pair[index] for pair in drawn])).permute(0, 3, 1, 2).contiguous() for index in (0, 1)
    )
    return Pairs(sdr, hdr, sum(pair[2] for pair in drawn) / hdr.numel())


def held_out_pairs(
    folder: Path, peak_nits: float, operators: Sequence[str] = tuple(OPERATORS), *, curves: bool = False
) -> tuple[Pairs, ...]:
    """A fixed set: four views of every held-out panorama, the operators and CRFs in turn; with `curves` every other one
    by a random curve.
    """
    found: list[Pairs] = []
    for number, scene in enumerate(scenes_of(folder, held_out=True)):
        for index in range(HELD_OUT_EACH):
            rng = np.random.default_rng((37, number, index))
            light_hwc = exposed_view(rng, scene, (HELD_OUT_SIDE, HELD_OUT_SIDE), bright=True)
            turn = (HELD_OUT_EACH * number + index) // (1 + curves)
            if curves and index % 2:
                sdr_hwc = through_curve(light_hwc, rng)
            else:
                operator, crf = operators[turn % len(operators)], CRFS[turn % len(CRFS)]
                sdr_hwc = degrade(light_hwc, rng, (operator,), (crf,)).codes_hwc
            found.append(batch_of([(sdr_hwc, *pq_codes(as_shown(light_hwc, sdr_hwc), peak_nits))]))
    return tuple(found)


@functools.lru_cache(maxsize=2)
def _files(folder: Path, layout: str) -> Sequence[HdrFile]:
    return hdr_files(folder, layout)
