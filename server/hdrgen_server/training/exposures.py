"""Views of panoramas for training exposure heads: light, the plate that shows it, and EVs; and the held-out figures.

It owns drawing, the pool of fixed batches, and what a head is worth where the plate clips. It must not know networks,
losses or the loop. Light is linear Rec.709 with mid-grey at 0.18: EV 0 is that exposure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hdrgen_server.systems.latenthdr.config import EV_HIGH, EV_LOW, GAMMA
from hdrgen_server.systems.latenthdr.exposure import code_of
from hdrgen_server.systems.merge.merge import srgb_decode
from hdrgen_server.training.brackets import Camera, exposed_view
from hdrgen_server.training.pairs import BRIGHT, EXPOSURE_STOPS, MIX_STOPS, as_shown, steepened, varied
from hdrgen_server.training.pictures import scenes_of
from hdrgen_server.training.random_curves import through_curve
from hdrgen_server.training.scenes import Scene
from hdrgen_server.training.tone_mapping import DISPLAY_GAMMA
from hdrgen_server.training.views import anchor_exposure

Array = npt.NDArray[np.float32]
PEAK = 2000.0
"""Light beyond this is brought down to it: no exposure of the stack tells it from this."""
HELD_OUT_EACH = 4
HELD_OUT_EVS = (-6.0, -3.0, -1.0, 0.0, 2.0, 4.0)
GAIN_EV = -3.0
CLIPPED_LIGHT = 0.98
STEEPER_STOPS = 0.6
MIXED = 0.5
"""This share of pictures is the light of two views in one, as a double exposure has it."""
POOL_SEED, HELD_OUT_SEED = 29, 41


@dataclass(frozen=True, eq=False)
class Exposures:
    """A batch: light (B, 3, H, W), the plate's light in [0, 1] likewise, and the EVs to learn, (B, K).

    `held` is how many samples of light were above PEAK and were held there. Batches of the same `number`, from 0, are
    the same; one with a number and no pictures stands for what `ExposureSource.numbered` makes.
    """

    light: Tensor
    shown: Tensor
    evs: Tensor
    held: int = 0
    number: int = -1

    def to(self, device: torch.device) -> Exposures:
        """The same on a device."""
        light, shown, evs = (tensor.to(device) for tensor in (self.light, self.shown, self.evs))
        return replace(self, light=light, shown=shown, evs=evs)


@dataclass(frozen=True)
class ExposureSource:
    """Makes training batches from a folder of panoramas; small enough to send to a process.

    Of each picture `evs` exposures are drawn, evenly over the stack. With `plates` the base is a plate: light cut and
    quantised as an 8-bit camera does, or for a share `curves` of pictures SDR by a random curve, its light then at the
    exposure that the SDR shows; without, it is the light itself. With a `pool` there are so many batches and no more,
    and a batch is only its number until it is needed.
    """

    folder: Path
    crop: int
    evs: int = 4
    plates: bool = True
    curves: float = 0.0
    pool: int = 0

    def __call__(self, rng: np.random.Generator, size: int) -> Exposures:
        """A batch of `size` views, or of a pool the number of one."""
        if not self.pool:
            return self._batch(rng, size)
        none = torch.zeros(size, 3, 0, 0)
        return Exposures(none, none, torch.zeros(size, 0), number=int(rng.integers(self.pool)))

    def numbered(self, number: int, size: int) -> Exposures:
        """A batch of the pool, always the same for its number."""
        return replace(self._batch(np.random.default_rng((POOL_SEED, number)), size), number=number)

    def held_out(self) -> tuple[Exposures, ...]:
        """Fixed bright views of the held-out panoramas at HELD_OUT_EVS, every other one by a curve where training has
        such.
        """
        found: list[Exposures] = []
        for number, scene in enumerate(scenes_of(self.folder, held_out=True)):
            for index in range(HELD_OUT_EACH):
                rng = np.random.default_rng((HELD_OUT_SEED, number, index))
                light_hwc = exposed_view(rng, scene, (self.crop, self.crop), bright=True)
                drawn = self._shown(light_hwc, rng, curve=self.curves > 0 and index % 2 == 1)
                found.append(batch_of([drawn], np.array([HELD_OUT_EVS], np.float32)))
        return tuple(found)

    def _batch(self, rng: np.random.Generator, size: int) -> Exposures:
        scenes = scenes_of(self.folder, held_out=False)
        drawn: list[tuple[Array, Array]] = []
        for _ in range(size):
            view_hwc = self._view(rng, scenes)
            if rng.random() < MIXED:
                other_hwc = self._view(rng, scenes) * np.float32(2.0 ** rng.uniform(-MIX_STOPS, MIX_STOPS))
                view_hwc = anchor_exposure(np.add(view_hwc, other_hwc, dtype=np.float32))
            light_hwc = steepened(view_hwc, rng, STEEPER_STOPS)
            light_hwc = light_hwc * np.float32(2.0 ** rng.uniform(-EXPOSURE_STOPS, EXPOSURE_STOPS))
            drawn.append(self._shown(light_hwc, rng, curve=bool(rng.random() < self.curves)))
        return batch_of(drawn, rng.uniform(EV_LOW, EV_HIGH, (size, self.evs)).astype(np.float32))

    def _view(self, rng: np.random.Generator, scenes: Sequence[Scene]) -> Array:
        scene = scenes[int(rng.integers(len(scenes)))]
        view_hwc = exposed_view(rng, scene, (self.crop, self.crop), bright=bool(rng.random() < BRIGHT))
        return anchor_exposure(varied(view_hwc, rng))

    def _shown(self, light_hwc: Array, rng: np.random.Generator, *, curve: bool) -> tuple[Array, Array]:
        if self.plates and curve:
            sdr_hwc = through_curve(light_hwc, rng)
            return as_shown(light_hwc, sdr_hwc), sdr_hwc ** np.float32(DISPLAY_GAMMA)
        within_hwc = np.clip(light_hwc, 0, 1)
        if not self.plates:
            return light_hwc, within_hwc
        return light_hwc, srgb_decode(np.round(Camera().encode(within_hwc) * 255) / np.float32(255))


def batch_of(drawn: Sequence[tuple[Array, Array]], evs: Array) -> Exposures:
    """Stack (light, plate's light), (H, W, 3) of one size each, with EVs (B, K)."""
    light, shown = (
        torch.from_numpy(np.stack([pair[index] for pair in drawn])).permute(0, 3, 1, 2).contiguous().float()
        for index in (0, 1)
    )
    kept = light.clamp(0, PEAK)
    return Exposures(kept, shown.clamp(0, 1), torch.from_numpy(evs), int((kept != light).sum()))


@dataclass(frozen=True)
class ClippedErrors:
    """Sums of squared code errors where the plate clips, at GAIN_EV, of the head and of the plate made darker."""

    head: float
    darkened: float
    samples: int

    @property
    def gain_db(self) -> float:
        """By how many dB the head is better; NaN where nothing clips."""
        return 10 * float(np.log10(self.darkened / max(self.head, 1e-12))) if self.samples else float("nan")

    def __add__(self, other: ClippedErrors) -> ClippedErrors:
        """Both together."""
        return ClippedErrors(self.head + other.head, self.darkened + other.darkened, self.samples + other.samples)


NO_ERRORS = ClippedErrors(0.0, 0.0, 0)


def clipped_errors(found: Tensor, plate: Tensor, light: Tensor, shown: Tensor) -> ClippedErrors:
    """What a head's decoded codes at GAIN_EV are worth against the decoded EV 0 codes times 2^GAIN_EV in light.

    All (B, 3, H, W); the truth is `light` at GAIN_EV, and counts where any channel of the plate's light `shown` clips.
    """
    truth = code_of(light, GAIN_EV)
    darkened = plate.clamp(0, 1) * 2.0 ** (GAIN_EV / GAMMA)
    clipped = (shown.amax(dim=1, keepdim=True) >= CLIPPED_LIGHT).expand_as(truth)
    ours, theirs = ((codes.clamp(0, 1) - truth)[clipped].square().sum() for codes in (found, darkened))
    return ClippedErrors(float(ours), float(theirs), int(clipped.sum()))
