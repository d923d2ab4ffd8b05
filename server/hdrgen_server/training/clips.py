"""Clips for training LumiVid: HDR shots, and SDR that a camera makes of them.

It owns where clips come from, how a virtual camera moves, crops and codes. It must not know networks, losses or the
loop. Source: LumiVid (arXiv 2604.11788), section 3.2: cameras turning in HDR panoramas, and shots of scene-linear EXRs.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hdrgen_server.systems.lumivid.codes import hdr_codes
from hdrgen_server.training.brackets import BRIGHT_TRIES, is_bright
from hdrgen_server.training.camera import Degradations, degraded
from hdrgen_server.training.hdr_sources import HdrFile, hdr_files, read_pictures, shots
from hdrgen_server.training.pairs import BRIGHT, MIX_STOPS, PANORAMAS, as_shown, steepened, varied
from hdrgen_server.training.pictures import scenes_of
from hdrgen_server.training.scenes import Scene
from hdrgen_server.training.views import View, anchor_exposure, perspective
from nuke_hdrgen.wire.errors import BadInput

Array = npt.NDArray[np.float32]

FRAMES = 9
EXPOSURE_STOPS = 1.0
STILL_SHARE = 0.1
"""This share of clips does not move: stills are clips too."""
FASTEST = 0.08
"""Of the view's width, from one frame to the next."""
SHAKE = 0.004
HELD_OUT_SIDE, HELD_OUT_EACH = 128, 3
GLANCE = 32


@dataclass(frozen=True, eq=False)
class Clips:
    """A batch: SDR codes (BT.709, BT.1886) and HDR codes of the same clips, each (B, 3, F, H, W) in [0, 1].

    `held` is the share of HDR samples that the codes could not hold. `number` names a batch of its source's pool, which
    then is empty: `ClipSource.made` makes it when it is first looked at; -1 where every batch is new.
    """

    sdr: Tensor
    hdr: Tensor
    held: float
    number: int = -1

    def to(self, device: torch.device) -> Clips:
        """The same on a device."""
        return Clips(self.sdr.to(device), self.hdr.to(device), self.held, self.number)


@dataclass(frozen=True)
class ClipSource:
    """Makes training batches from a folder; small enough to send to a process.

    `layout` is `panoramas` or `shots`, folders of EXRs in the order of their names. Of panoramas a share `mixed` of
    clips is the light of two cameras in one, as a double exposure has it, and highlights are up to `steeper` stops of
    their exponent steeper or flatter. With a `pool` above 0 there are only so many batches, each the same whenever it
    comes, and only their numbers are sent.
    """

    folder: Path
    crop: int
    layout: str = PANORAMAS
    transform: str = "logc3"
    degradations: Degradations = Degradations()
    frames: int = FRAMES
    pool: int = 0
    mixed: float = 0.0
    steeper: float = 0.0

    def __call__(self, rng: np.random.Generator, size: int) -> Clips:
        """A batch of `size` clips."""
        if self.pool:
            nothing = torch.empty(size, 0)
            return Clips(nothing, nothing, 0.0, int(rng.integers(self.pool)))
        return batch_of([self._draw(rng) for _ in range(size)], self.transform)

    def made(self, number: int, size: int) -> Clips:
        """A batch of the pool."""
        rng = np.random.default_rng((53, number))
        return batch_of([self._draw(rng) for _ in range(size)], self.transform)

    def _draw(self, rng: np.random.Generator) -> tuple[Array, Array]:
        if self.layout == PANORAMAS:
            light = self._turned(rng)
            if rng.random() < self.mixed:
                other = self._turned(rng) * np.float32(2.0 ** rng.uniform(-MIX_STOPS, MIX_STOPS))
                light = _exposed(np.add(light, other, dtype=np.float32))
            light = steepened(_tall(light), rng, self.steeper).reshape(light.shape)
        else:
            light = _exposed(cropped(rng, _shots(self.folder), self.crop, self.frames))
        return pair_of(rng, light, self.degradations)

    def _turned(self, rng: np.random.Generator) -> Array:
        scenes = scenes_of(self.folder, held_out=False)
        light = turned(rng, scenes[int(rng.integers(len(scenes)))], self.crop, self.frames)
        return _exposed(varied(_tall(light), rng).reshape(light.shape))


def pair_of(rng: np.random.Generator, light: Array, how: Degradations) -> tuple[Array, Array]:
    """SDR codes and light, (F, H, W, 3) each, of exposed light: shifted in exposure together, and the light brought to
    where its SDR shows mid-grey.
    """
    light = light * np.float32(2.0 ** rng.uniform(-EXPOSURE_STOPS, EXPOSURE_STOPS))
    clean, codes = degraded(light, rng, how)
    return codes, as_shown(_tall(light), _tall(clean)).reshape(light.shape)


def path(rng: np.random.Generator, start: View, frames: int) -> list[View]:
    """A camera's views: still, or turning and zooming evenly with a hand's shake."""
    if rng.random() < STILL_SHARE:
        return [start] * frames
    speed = start.fov * FASTEST * rng.uniform(0, 1) ** 2
    direction, spin, zoom = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.3), rng.normal(0, 0.004)
    shake = rng.normal(0, 1, (3, 3)) * start.fov * SHAKE * rng.uniform(0, 1)
    found: list[View] = []
    for number in range(frames):
        wave = shake @ np.sin(np.array([0.5, 0.9, 1.7]) * number)
        found.append(
            View(
                start.yaw + speed * np.cos(direction) * number + float(wave[0]),
                start.pitch + speed * np.sin(direction) * number + float(wave[1]),
                start.roll + spin * number + float(wave[2]),
                start.fov * (1 + zoom) ** number,
            )
        )
    return found


def turned(rng: np.random.Generator, scene: Scene, side: int, frames: int) -> Array:
    """A camera in a panorama, (F, side, side, 3) light as the panorama has it; mirrored or not, and mostly with light
    above white in its first frame.
    """
    start = View.random(rng)
    if rng.random() < BRIGHT:
        for _ in range(BRIGHT_TRIES):
            if is_bright(anchor_exposure(perspective(scene.scene_linear_hwc, start, GLANCE, GLANCE))):
                break
            start = View.random(rng)
    views = path(rng, start, frames)
    light = np.stack([perspective(scene.scene_linear_hwc, view, side, side) for view in views])
    return np.ascontiguousarray(light[:, :, ::-1] if rng.random() < 0.5 else light)


def cropped(rng: np.random.Generator, found: Sequence[Sequence[HdrFile]], side: int, frames: int) -> Array:
    """A random crop of a random run of a shot's frames, (F, side, side, 3), forwards or backwards; smaller frames are
    reflected. Raises BadInput for shots that are all shorter, and for frames of several sizes.
    """
    long_enough = [shot for shot in found if len(shot) >= frames]
    if not long_enough:
        raise BadInput(f"no folder has a shot of {frames} EXRs or more; give longer ones")
    shot = long_enough[int(rng.integers(len(long_enough)))]
    first = int(rng.integers(len(shot) - frames + 1))
    read = [next(read_pictures(file)).scene_linear_hwc for file in shot[first : first + frames]]
    if len({frame.shape for frame in read}) > 1:
        raise BadInput(f"{shot[first].path.parent} has frames of several sizes; a shot has one")
    light = np.stack(read)
    height, width = light.shape[1:3]
    light = np.pad(light, [(0, 0), (0, max(0, side - height)), (0, max(0, side - width)), (0, 0)], mode="symmetric")
    top, left = (int(rng.integers(length - side + 1)) for length in light.shape[1:3])
    light = light[:, top : top + side, left : left + side]
    return np.ascontiguousarray(light[::-1] if rng.random() < 0.5 else light)


def batch_of(drawn: Sequence[tuple[Array, Array]], transform: str = "logc3") -> Clips:
    """Stack (SDR codes, light) of one size."""
    coded = [hdr_codes(light, transform) for _, light in drawn]
    sdr, hdr = (
        torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3).contiguous()
        for clips in ([codes for codes, _ in drawn], [codes for codes, _ in coded])
    )
    return Clips(sdr, hdr, sum(held for _, held in coded) / hdr.numel())


def held_out_clips(source: ClipSource) -> tuple[Clips, ...]:
    """A fixed set: of panoramas three cameras in every held-out one, of shots as many crops of the last shot; made as
    training's are.
    """
    found: list[Clips] = []
    scenes: Sequence[Scene | None] = [None]
    if source.layout == PANORAMAS:
        scenes = scenes_of(source.folder, held_out=True)
    for number, scene in enumerate(scenes):
        for index in range(HELD_OUT_EACH):
            rng = np.random.default_rng((41, number, index))
            if scene is None:
                light = cropped(rng, _shots(source.folder)[-1:], HELD_OUT_SIDE, source.frames)
            else:
                light = turned(rng, scene, HELD_OUT_SIDE, source.frames)
            found.append(batch_of([pair_of(rng, _exposed(light), source.degradations)], source.transform))
    return tuple(found)


def _exposed(light: Array) -> Array:
    """Light at the exposure that its first frame asks for."""
    first = light[0]
    gain = anchor_exposure(first).sum(dtype=np.float64) / max(float(first.sum(dtype=np.float64)), 1e-12)
    return light * np.float32(gain)


def _tall(frames: Array) -> Array:
    return np.ascontiguousarray(frames.reshape(-1, *frames.shape[2:]))


@functools.lru_cache(maxsize=2)
def _shots(folder: Path) -> Sequence[Sequence[HdrFile]]:
    return tuple(shots(hdr_files(folder, "shots")).values())
