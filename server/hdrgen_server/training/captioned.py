"""Pictures with sentences: drawn places and panoramas, or a folder of EXRs with a text file beside each.

It owns what a batch holds and how the sources mix. It must not know networks, codes or losses. Light is linear Rec.709
with mid-grey at 0.18, never cut.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from hdrgen_server.image.exr import read_exr_header
from hdrgen_server.training import drawn
from hdrgen_server.training.captions import called, is_held_out, sentence
from hdrgen_server.training.drawn import KINDS, Place
from hdrgen_server.training.hdr_sources import HdrFile, read_pictures
from hdrgen_server.training.pictures import scenes_of
from hdrgen_server.training.scenes import Scene
from hdrgen_server.training.views import View, anchor_exposure, perspective
from nuke_hdrgen.wire.errors import BadInput, BadParameter

Array = npt.NDArray[np.float32]
LAYOUTS = ("drawn", "captioned")
PANORAMA_SHARE = 0.4
PHOTOGRAPH_SHARE = 0.3
AIMED_SHARE = 0.85
PEAK = 2000.0
"""Light beyond this is brought down to it: a sun of half a million is learnt by no picture of 128 pixels."""
KEPT_ASIDE = 10
"""One in so many files of a captioned folder is for checking alone."""


@dataclass(frozen=True, eq=False)
class Captioned:
    """Light, (B, 3, H, W), a sentence for each, whether they are panoramas, and how many samples were brought into 0
    to PEAK. Batches of the same `number`, from 0, are the same.
    """

    light: Tensor
    prompts: tuple[str, ...]
    panorama: bool
    held: int = 0
    number: int = -1

    def to(self, device: torch.device) -> Captioned:
        """The same batch on another device."""
        return replace(self, light=self.light.to(device))


@dataclass(frozen=True)
class CaptionSource:
    """Makes training batches; small enough to send to a process.

    `drawn` mixes drawn places with the panoramas of a folder; a batch is square views of `crop`, or half as many
    panoramas of crop x 2 crop. `captioned` takes EXRs each with NAME.txt beside it, all but those that `held_out` keeps
    for checking; those twice as wide as high count as panoramas. With a `pool` there are so many batches and no more,
    each with its number.
    """

    folder: Path
    crop: int
    layout: str = "drawn"
    pool: int = 0

    def __post_init__(self) -> None:
        """Raises BadParameter for another layout."""
        if self.layout not in LAYOUTS:
            raise BadParameter(f"there is no layout {self.layout!r}; there are: {', '.join(LAYOUTS)}")

    def __call__(self, rng: np.random.Generator, size: int) -> Captioned:
        """A batch of `size` views, or of half as many panoramas."""
        if self.pool:
            number = int(rng.integers(self.pool))
            return replace(self._batch(np.random.default_rng((23, number)), size), number=number)
        return self._batch(rng, size)

    def pooled(self, size: int) -> Iterator[Array]:
        """Every square view, (crop, crop, 3), of the pool that is trained on in batches of `size`."""
        for number in range(self.pool):
            batch = self._batch(np.random.default_rng((23, number)), size)
            if not batch.panorama:
                yield from (np.ascontiguousarray(light.permute(1, 2, 0).numpy()) for light in batch.light)

    def _batch(self, rng: np.random.Generator, size: int) -> Captioned:
        panorama = bool(rng.random() < PANORAMA_SHARE)
        if self.layout == "captioned":
            return self._from_files(rng, size, panorama=panorama)
        count = max(1, size // 2) if panorama else size
        made = [self._draw(rng, panorama=panorama) for _ in range(count)]
        return batch_of(made, panorama=panorama)

    def _draw(self, rng: np.random.Generator, *, panorama: bool) -> tuple[Array, str]:
        if rng.random() < PHOTOGRAPH_SHARE:
            scenes = scenes_of(self.folder, held_out=False)
            return photographed(rng, scenes[int(rng.integers(len(scenes)))], self.crop, panorama=panorama)
        place = Place.random(rng)
        while is_held_out(place):
            place = Place.random(rng)
        return seen(rng, place, self.crop, panorama=panorama), sentence(place, rng)

    def _from_files(self, rng: np.random.Generator, size: int, *, panorama: bool) -> Captioned:
        trained, _ = captioned_files(self.folder)
        files = [file for file in trained if file.panorama == panorama]
        if not files:
            return self._from_files(rng, size, panorama=not panorama)
        count = max(1, size // 2) if panorama else size
        chosen = [files[int(rng.integers(len(files)))] for _ in range(count)]
        made = [(cropped(rng, file.light(), self.crop, panorama=panorama), file.prompt()) for file in chosen]
        return batch_of(made, panorama=panorama)


def seen(rng: np.random.Generator, place: Place, crop: int, *, panorama: bool) -> Array:
    """A drawn place, all around or as a view that mostly looks where the light comes from."""
    if panorama:
        return drawn.draw(place, drawn.equirectangular(crop))
    aimed = rng.random() < AIMED_SHARE
    yaw = place.around + float(rng.normal(0, 0.2)) if aimed else float(rng.uniform(-np.pi, np.pi))
    pitch = place.high - 0.3 if aimed and place.kind == "noon" else float(rng.normal(0.08, 0.1))
    return drawn.draw(place, drawn.perspective(crop, yaw, pitch, float(rng.uniform(0.9, 1.5))))


def photographed(rng: np.random.Generator, scene: Scene, crop: int, *, panorama: bool) -> tuple[Array, str]:
    """A panorama at any yaw, or a level view of it, with its sentence."""
    whole_hwc = _anchored(scene)
    if panorama:
        turned = np.roll(whole_hwc, int(rng.integers(whole_hwc.shape[1])), axis=1)
        return _sized(turned, crop, 2 * crop), called(scene.name)
    view = View(float(rng.uniform(-180, 180)), float(rng.normal(0, 8)), 0.0, float(rng.uniform(60, 100)))
    return perspective(whole_hwc, view, crop, crop), called(scene.name)


@dataclass(frozen=True)
class CaptionedFile:
    """An EXR and the text beside it."""

    path: Path
    panorama: bool

    def light(self) -> Array:
        """The picture, (H, W, 3). Raises BadInput."""
        return _read(self.path)

    def prompt(self) -> str:
        """Its text in one line. Raises BadInput where that is empty or not there."""
        return _caption(self.path)


@functools.lru_cache(maxsize=4)
def captioned_files(folder: Path) -> tuple[Sequence[CaptionedFile], Sequence[CaptionedFile]]:
    """The EXRs of a folder and those below, each with its text: those to train on, and every tenth, held out.

    Raises BadInput for fewer than two, one without text, and one that cannot be read.
    """
    paths = sorted(folder.glob("**/*.exr"))
    if len(paths) < 2:
        raise BadInput(
            f"{folder} has {len(paths)} EXRs, training needs two or more: one in {KEPT_ASIDE} is for checking; put "
            "pictures there as NAME.exr with a sentence each in NAME.txt"
        )
    files = [CaptionedFile(path, _is_panorama(path)) for path in paths]
    for file in files:
        file.prompt()
    return [file for number, file in enumerate(files) if number % KEPT_ASIDE], files[::KEPT_ASIDE]


def _is_panorama(path: Path) -> bool:
    low, high = read_exr_header(path)["dataWindow"]
    return int(high[0] - low[0] + 1) == 2 * int(high[1] - low[1] + 1)


def cropped(rng: np.random.Generator, light_hwc: Array, crop: int, *, panorama: bool) -> Array:
    """A panorama at any yaw, or the largest square at any place, brought to size; mirrored half of the time."""
    if panorama:
        return _sized(np.roll(light_hwc, int(rng.integers(light_hwc.shape[1])), axis=1), crop, 2 * crop)
    side = min(light_hwc.shape[:2])
    top, left = (int(rng.integers(0, length - side + 1)) for length in light_hwc.shape[:2])
    part = light_hwc[top : top + side, left : left + side]
    return _sized(part[:, ::-1] if rng.random() < 0.5 else part, crop, crop)


def held_out(source: CaptionSource) -> tuple[Captioned, ...]:
    """Fixed batches that no training sees: of drawn places with held-out words, and of held-out panoramas; of a
    captioned folder, crops of every tenth file.
    """
    rng = np.random.default_rng(53)
    if source.layout == "captioned":
        _, files = captioned_files(source.folder)
        return tuple(
            batch_of([(cropped(rng, f.light(), source.crop, panorama=f.panorama), f.prompt())], panorama=f.panorama)
            for f in files
        )
    batches: list[Captioned] = []
    scenes = scenes_of(source.folder, held_out=True)
    for panorama in (False, True):
        made = [photographed(rng, scene, source.crop, panorama=panorama) for scene in scenes]
        batches.append(batch_of(made, panorama=panorama))
        places = [held_out_place(rng, kind) for kind in KINDS]
        made = [(seen(rng, place, source.crop, panorama=panorama), sentence(place, rng)) for place in places]
        batches.append(batch_of(made, panorama=panorama))
    return tuple(batches)


def held_out_place(rng: np.random.Generator, kind: str) -> Place:
    """A place of a kind whose words no training has together."""
    place = Place.random(rng, kind)
    while not is_held_out(place):
        place = Place.random(rng, kind)
    return place


def batch_of(made: Sequence[tuple[Array, str]], *, panorama: bool) -> Captioned:
    """Pictures (H, W, 3) of one size with their sentences as a batch."""
    light = torch.stack([torch.from_numpy(np.ascontiguousarray(light_hwc)).permute(2, 0, 1) for light_hwc, _ in made])
    kept = light.nan_to_num(0.0, PEAK, 0.0).clamp(0, PEAK)
    held = int((kept != light).sum())
    return Captioned(kept, tuple(prompt for _, prompt in made), panorama, held)


@functools.lru_cache(maxsize=64)
def _anchored(scene: Scene) -> Array:
    return anchor_exposure(scene.scene_linear_hwc)


@functools.lru_cache(maxsize=64)
def _read(path: Path) -> Array:
    from hdrgen_server.colour.interop import colourspace

    (picture,) = read_pictures(HdrFile(path, colourspace("lin_rec709_scene")))
    return picture.scene_linear_hwc


@functools.lru_cache(maxsize=100_000)
def _caption(path: Path) -> str:
    beside = path.with_suffix(".txt")
    try:
        text = beside.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} has no readable {beside.name} beside it; write a sentence about it there") from error
    if not text:
        raise BadInput(f"{beside} is empty; write a sentence about {path.name} there")
    return " ".join(text.split())


def _sized(light_hwc: Array, height: int, width: int) -> Array:
    planes = torch.from_numpy(np.ascontiguousarray(light_hwc)).permute(2, 0, 1)[None]
    sized = F.interpolate(planes, (height, width), mode="area" if height <= light_hwc.shape[0] else "bilinear")
    return sized[0].permute(1, 2, 0).numpy()
