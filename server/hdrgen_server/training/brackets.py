"""A simulated camera: scene-linear views become brackets of 8-bit photographs, with noise, curves and motion.

It owns the simulation that training and the evaluation protocol share. It must not know networks or metrics. The noise
model is that of the protocol: variance 2e-4 x signal for shot noise and 1e-6 for reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hdrgen_server.training.scenes import Scene
from hdrgen_server.training.views import View, anchor_exposure, perspective

Array = npt.NDArray[np.float32]
SHOT, READ = 2e-4, 1e-6
CAMERA_S = 0.35
MARGIN = 48
BORDER = 8
BRIGHT, BRIGHT_SHARE, BRIGHT_TRIES = 2.0, 0.02, 24


@dataclass(frozen=True)
class Camera:
    """The camera curve: sRGB blended by `s` towards smoothstep, after a power `gamma`; and how noisy it is."""

    s: float = 0.0
    gamma: float = 1.0
    noise: float = 1.0

    @classmethod
    def random(cls, rng: np.random.Generator) -> Camera:
        """Mostly plain sRGB; otherwise any S-curve and power that a camera may have."""
        noise = float(np.exp(rng.uniform(-1.2, 0.7)))
        if rng.random() < 0.5:
            return cls(noise=noise)
        return cls(float(rng.uniform(-0.2, 0.6)), float(np.exp(rng.uniform(-0.15, 0.15))), noise)

    def encode(self, scene_linear: Array) -> Array:
        """Linear in [0, 1] to codes in [0, 1]."""
        codes = np.where(
            scene_linear <= 0.0031308,
            12.92 * scene_linear,
            1.055 * np.maximum(scene_linear, 1e-9) ** np.float32(1 / 2.4) - 0.055,
        )
        codes = codes if self.gamma == 1 else codes**self.gamma
        return (codes + self.s * (codes * codes * (3 - 2 * codes) - codes)).astype(np.float32)

    def shoot(self, scene_linear_hwc: Array, ev: float, rng: np.random.Generator) -> Array:
        """One exposure as 8-bit codes / 255, (H, W, 3) float32."""
        light = np.clip(scene_linear_hwc * np.float32(2.0**ev), 0, 1)
        deviation = self.noise * np.sqrt(SHOT * light + READ)
        light += (deviation * rng.standard_normal(light.shape, np.float32)).astype(np.float32)
        light = np.clip(light, 0, 1)
        return (np.round(self.encode(light) * 255) / 255).astype(np.float32)


@dataclass(frozen=True)
class Motion:
    """What moves between exposures: camera shift in pixels (whole or not), roll in degrees, foreground displacement."""

    shift: float = 0.0
    whole_pixels: bool = True
    roll: float = 0.0
    foreground: tuple[float, float] = (0.0, 0.0)
    patches: int = 0


STILL = Motion()
PROTOCOL_MOTION = Motion(shift=8, foreground=(20, 40), patches=1)


@dataclass(frozen=True, eq=False)
class BracketSample:
    """A bracket and its truth. `codes_nhwc` are quantised in [0, 1]; `evs` are against `reference`, whose own is 0.

    `scene_linear_hwc` is the truth in the reference's geometry at the reference's exposure; `border` pixels along the
    edges have none in moved exposures and are left out of scores. `encoding` is the interop id of the codes.
    """

    codes_nhwc: Array
    evs: tuple[float, ...]
    reference: int
    scene_linear_hwc: Array
    scene: str = ""
    border: int = field(default=0)
    encoding: str = "srgb_rec709_scene"


def simulate(
    rng: np.random.Generator,
    scenes: Sequence[Scene],
    size: tuple[int, int],
    evs: Sequence[float],
    reference: int,
    *,
    camera: Camera = Camera(),
    motion: Motion = STILL,
    bright: bool = False,
) -> BracketSample:
    """Photograph a random view of a random scene, (height, width) in size, moving as told.

    The reference sees the view itself; every other exposure a shifted one, with the foreground somewhere else. `bright`
    looks around (at most 24 times) for a view that `is_bright` in a small copy: only those tell methods apart.
    """
    scene = scenes[int(rng.integers(len(scenes)))]
    moving = motion != STILL
    margin = MARGIN if moving else 0
    wide = exposed_view(rng, scene, size, margin, bright=bright)
    patches = [_Patch.random(rng, scenes, motion, size, margin) for _ in range(motion.patches)]
    exposures = tuple(float(ev) - float(evs[reference]) for ev in evs)
    truth = _compose(wide, patches, rng, STILL, size, margin, at_rest=True)
    codes: list[Array] = []
    for index, ev in enumerate(exposures):
        seen = (
            truth
            if index == reference or not moving
            else _compose(wide, patches, rng, motion, size, margin, at_rest=False)
        )
        codes.append(camera.shoot(seen, ev, rng))
    return BracketSample(np.stack(codes), exposures, reference, truth, scene.name, BORDER if moving else 0)


def exposed_view(
    rng: np.random.Generator, scene: Scene, size: tuple[int, int], margin: int = 0, *, bright: bool
) -> Array:
    """A random view with a margin around it, exposed for what lies within, mirrored or not.

    With `bright` it has light above white, if a few tries find such a view.
    """
    rows, columns = slice(margin, margin + size[0]), slice(margin, margin + size[1])
    view = View.random(rng)
    for _ in range(BRIGHT_TRIES if bright else 0):
        glance = anchor_exposure(perspective(scene.scene_linear_hwc, view, 32, 32 * size[1] // size[0]))
        if is_bright(glance):
            break
        view = View.random(rng)
    wide = perspective(scene.scene_linear_hwc, view, size[0] + 2 * margin, size[1] + 2 * margin, margin=margin)
    if rng.random() < 0.5:
        wide = wide[:, ::-1]
    inner = wide[rows, columns]
    gain = anchor_exposure(inner).sum(dtype=np.float64) / max(inner.sum(dtype=np.float64), 1e-12)
    return np.ascontiguousarray(wide * np.float32(gain))


def is_bright(scene_linear_hwc: Array) -> bool:
    """Whether at least 2 % of the pixels are a stop or more above what the reference can hold, in some channel."""
    return float((scene_linear_hwc.max(axis=2) >= BRIGHT).mean()) >= BRIGHT_SHARE


@dataclass(frozen=True, eq=False)
class _Patch:
    """A soft ellipse of another view, at a place in the wide image."""

    scene_linear_hwc: Array
    alpha_hw1: Array
    row: int
    column: int

    @classmethod
    def random(
        cls,
        rng: np.random.Generator,
        scenes: Sequence[Scene],
        motion: Motion,
        size: tuple[int, int],
        margin: int,
    ) -> _Patch:
        height, width = (max(8, int(rng.uniform(0.15, 0.4) * side)) for side in size)
        scene = scenes[int(rng.integers(len(scenes)))]
        picture = anchor_exposure(perspective(scene.scene_linear_hwc, View.random(rng), height, width))
        picture = picture * np.float32(2.0 ** rng.uniform(-1.5, 2.0))
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        alpha = np.clip((1 - np.sqrt(x * x + y * y)) * 0.5 * min(height, width) / 1.5, 0, 1)
        row = margin + int(rng.integers(0, max(1, size[0] - height)))
        column = margin + int(rng.integers(0, max(1, size[1] - width)))
        return cls(picture, alpha[..., None].astype(np.float32), row, column)


def _compose(
    wide: Array,
    patches: Sequence[_Patch],
    rng: np.random.Generator,
    motion: Motion,
    size: tuple[int, int],
    margin: int,
    *,
    at_rest: bool,
) -> Array:
    picture = wide
    if patches:
        picture = wide.copy()
    for patch in patches:
        row, column = patch.row, patch.column
        if not at_rest:
            angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(*motion.foreground)
            row, column = row + round(distance * np.sin(angle)), column + round(distance * np.cos(angle))
        _paste(picture, patch, row, column)
    if at_rest:
        return np.ascontiguousarray(picture[margin : margin + size[0], margin : margin + size[1]])
    dy, dx = rng.uniform(-motion.shift, motion.shift, 2)
    if motion.whole_pixels:
        top, left = margin + round(dy), margin + round(dx)
        return np.ascontiguousarray(picture[top : top + size[0], left : left + size[1]])
    return _warp(picture, float(dy), float(dx), float(rng.uniform(-motion.roll, motion.roll)), size, margin)


def _paste(picture: Array, patch: _Patch, row: int, column: int) -> None:
    height, width = patch.alpha_hw1.shape[:2]
    top, left = max(0, row), max(0, column)
    bottom, right = min(picture.shape[0], row + height), min(picture.shape[1], column + width)
    if bottom <= top or right <= left:
        return
    cut = (slice(top - row, bottom - row), slice(left - column, right - column))
    target = picture[top:bottom, left:right]
    target += patch.alpha_hw1[cut] * (patch.scene_linear_hwc[cut] - target)


def _warp(picture: Array, dy: float, dx: float, roll: float, size: tuple[int, int], margin: int) -> Array:
    import cv2

    height, width = size
    matrix = cv2.getRotationMatrix2D((margin + width / 2, margin + height / 2), roll, 1.0)
    matrix[:, 2] += (-dx, -dy)
    moved = cv2.warpAffine(
        picture,
        matrix,
        (picture.shape[1], picture.shape[0]),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.ascontiguousarray(moved[margin : margin + height, margin : margin + width], np.float32)
