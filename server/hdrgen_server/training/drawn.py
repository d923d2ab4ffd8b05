"""Places that are drawn from a few numbers, in scene-linear light: skies, ground, walls, trees, lamps.

It owns the eight kinds of place, their parameters and what a ray sees. It must not know captions, views of photographs,
networks or files. A place is a function of directions, so that a perspective view and a panorama of it are equally
sharp, and a panorama has no seam. Light is linear Rec.709 with mid-grey at 0.18; y is up, angles are in radians.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Values = npt.NDArray[np.floating[Any]]
KINDS = ("sunset", "night", "studio", "forest", "overcast", "interior", "noon", "street")
GROUNDS: Mapping[str, tuple[float, float, float]] = MappingProxyType({
    "grass": (0.10, 0.16, 0.05), "sand": (0.42, 0.34, 0.22), "snow": (0.75, 0.78, 0.82), "asphalt": (0.09, 0.09, 0.10),
    "water": (0.03, 0.06, 0.08), "soil": (0.20, 0.13, 0.08),
})  # fmt: skip
TINTS: Mapping[str, tuple[float, float, float]] = MappingProxyType({
    "white": (1.0, 1.0, 1.0), "warm": (1.0, 0.72, 0.42), "blue": (0.45, 0.65, 1.0), "red": (1.0, 0.30, 0.22),
    "green": (0.40, 1.0, 0.50),
})  # fmt: skip
SUN_RADIUS = 0.045
"""Wider than the sun: a picture of 128 pixels has no half degree."""
LAMP_RADIUS = 0.05
EYE = 1.6


@dataclass(frozen=True)
class Place:
    """What is drawn. `high` is the sun's or moon's elevation, `cover` how cloudy or dense, 0 to 1; `lamps` how many."""

    kind: str
    ground: str
    tint: str
    high: float
    around: float
    cover: float
    lamps: int
    seed: int

    @property
    def words(self) -> tuple[str, str, str]:
        """What a caption tells apart."""
        return self.kind, self.ground, self.tint

    @classmethod
    def random(cls, rng: np.random.Generator, kind: str = "") -> Place:
        """Any place, or any of a kind."""
        chosen = kind or str(rng.choice(KINDS))
        low, top = _HEIGHTS.get(chosen, (0.3, 1.2))
        return cls(
            chosen, str(rng.choice(list(GROUNDS))), str(rng.choice(list(TINTS))), float(rng.uniform(low, top)),
            float(rng.uniform(-np.pi, np.pi)), float(rng.uniform(0, 1)), int(rng.integers(1, 6)),
            int(rng.integers(2**31)),
        )  # fmt: skip


_HEIGHTS: Mapping[str, tuple[float, float]] = {"sunset": (0.03, 0.16), "noon": (0.7, 1.2), "night": (0.3, 0.9)}


def equirectangular(height: int) -> Array:
    """The directions of a panorama of (height, 2 height, 3)."""
    longitude = ((np.arange(2 * height, dtype=np.float32) + 0.5) / height - 1) * np.float32(np.pi)
    latitude = (0.5 - (np.arange(height, dtype=np.float32) + 0.5) / height) * np.float32(np.pi)
    flat = np.cos(latitude)[:, None]
    y = np.sin(latitude)[:, None] + np.zeros_like(longitude)[None]
    return np.stack([flat * np.sin(longitude), y, flat * np.cos(longitude)], axis=-1).astype(np.float32)


def perspective(side: int, yaw: float, pitch: float, fov: float) -> Array:
    """The directions of a square view of (side, side, 3)."""
    at = ((np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1) * np.float32(np.tan(fov / 2))
    x, y = np.meshgrid(at, -at)
    rays = np.stack([x, y, np.ones_like(x)], axis=-1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    cp, sp, cy, sy = np.cos(pitch), np.sin(pitch), np.cos(yaw), np.sin(yaw)
    tilted = np.stack([rays[..., 0], cp * rays[..., 1] + sp * rays[..., 2], cp * rays[..., 2] - sp * rays[..., 1]], -1)
    turned = [cy * tilted[..., 0] + sy * tilted[..., 2], tilted[..., 1], cy * tilted[..., 2] - sy * tilted[..., 0]]
    return np.stack(turned, axis=-1).astype(np.float32)


def draw(place: Place, rays: Array) -> Array:
    """The light that comes from these directions, (H, W, 3) float32."""
    light = _DRAW[place.kind](place, rays, np.random.default_rng(place.seed))
    return np.maximum(light, 0).astype(np.float32)


def _noise(rng: np.random.Generator, points: Values, scale: float, octaves: int = 4) -> Array:
    """Smooth noise of about unit deviation: waves in random directions, each octave finer and weaker."""
    found = np.zeros(points.shape[:-1], np.float32)
    for octave in range(octaves):
        for _ in range(4):
            wave = rng.standard_normal(points.shape[-1]).astype(np.float32) * np.float32(scale * 1.9**octave)
            found += np.sin(points @ wave + np.float32(rng.uniform(0, 6.3))) * np.float32(0.5**octave)
    return found / np.float32(1.8)


def _rgb(colour: tuple[float, float, float]) -> Array:
    return np.asarray(colour, np.float32)


def _towards(around: float, high: float) -> Array:
    return _rgb((np.cos(high) * np.sin(around), np.sin(high), np.cos(high) * np.cos(around)))


def _disc(rays: Array, centre: Array, radius: float) -> Array:
    """1 within a disc on the sphere, with an edge a third of its radius wide."""
    angle = np.arccos(np.clip(rays @ centre, -1, 1))
    return np.clip((radius - angle) / (radius / 3) + 0.5, 0, 1).astype(np.float32)


def _mix(below: Values, above: Values, share: Values) -> Array:
    return (below + share[..., None] * (above - below)).astype(np.float32)


def _floor(place: Place, rays: Array, rng: np.random.Generator, sky: Values, light: Values) -> Array:
    """The ground below the horizon, lit by `light` (3,), with fog of the sky's colour in the distance."""
    down = np.maximum(-rays[..., 1], 1e-3)
    spot = rays[..., [0, 2]] / down[..., None] * np.float32(EYE)
    texture = 1 + np.float32(0.35) * _noise(rng, np.clip(spot, -60, 60), 0.8)
    ground = _rgb(GROUNDS[place.ground]) * light * np.maximum(texture, 0.15)[..., None]
    return _mix(sky, ground, np.clip(down * 14, 0, 1) * (rays[..., 1] < 0))


def _daylight(place: Place, rays: Array, rng: np.random.Generator, *, sun: float, warm: Array, zenith: Array) -> Array:
    """A clear or broken sky with the sun, its glow and clouds, over ground."""
    towards = _towards(place.around, place.high)
    up = np.clip(rays[..., 1], 0, 1)
    sky = _mix(np.broadcast_to(warm, rays.shape).copy(), zenith, up**0.45)
    near = np.clip(rays @ towards, 0, 1)
    sky = sky + warm * (1.5 * near**24 + 6 * near**200)[..., None]
    clouds = np.clip(_noise(rng, rays * np.array([1, 3, 1], np.float32), 2.2) * 0.8 + place.cover * 1.6 - 0.9, 0, 1)
    sky = _mix(sky, 0.9 * warm + 0.2 * zenith, clouds * 0.8 * (up > 0))
    disc = _disc(rays, towards, SUN_RADIUS) * (1 - 0.6 * clouds)
    sky = sky + np.float32(sun) * disc[..., None] * (0.5 * warm / warm.max() + 0.5)
    return _floor(place, rays, rng, sky, 0.9 * zenith + warm * max(0.25, float(np.sin(place.high)) * 2.2))


def _sunset(place: Place, rays: Array, rng: np.random.Generator) -> Array:
    warm, zenith = _rgb((1.0, 0.42, 0.14)), _rgb((0.10, 0.13, 0.28))
    return _daylight(place, rays, rng, sun=float(rng.uniform(250, 900)), warm=warm, zenith=zenith)


def _noon(place: Place, rays: Array, rng: np.random.Generator) -> Array:
    warm, zenith = _rgb((0.75, 0.85, 0.95)), _rgb((0.12, 0.27, 0.62))
    return _daylight(place, rays, rng, sun=float(rng.uniform(600, 2500)), warm=warm, zenith=zenith)


def _overcast(place: Place, rays: Array, rng: np.random.Generator) -> Array:
    up = np.clip(rays[..., 1], 0, 1)
    sky = (0.35 + 0.35 * up + 0.09 * _noise(rng, rays * np.array([1, 3, 1], np.float32), 2.0))[..., None]
    sky = np.clip(sky, 0.1, 1.2) * _rgb((0.92, 0.97, 1.03))
    return _floor(place, rays, rng, sky, _rgb((0.5, 0.5, 0.52)))


def _night(place: Place, rays: Array, rng: np.random.Generator) -> Array:
    up = np.clip(rays[..., 1], 0, 1)
    sky = 0.012 * (1 - up)[..., None] * _rgb((0.7, 0.8, 1.3)) + 0.004
    stars = np.clip(_noise(rng, rays, 60.0, 1) - 1.5, 0, 1) * (up > 0.03)
    sky = sky + 0.6 * stars[..., None]
    sky = sky + 7.0 * _disc(rays, _towards(place.around, place.high), 0.06)[..., None]
    light = _floor(place, rays, rng, sky, _rgb((0.05, 0.06, 0.10)))
    return _lit(light, rays, _lamps(place, rng, (-0.12, 0.22), (15, 60)), _rgb(TINTS[place.tint]), 0.06)


def _lamps(
    place: Place, rng: np.random.Generator, height: tuple[float, float], power: tuple[float, float]
) -> list[tuple[Array, float]]:
    """Where the lamps are, and how bright; the first is where the place is looked at."""
    turns = [place.around, *rng.uniform(-np.pi, np.pi, place.lamps - 1)]
    return [(_towards(float(turn), float(rng.uniform(*height))), float(rng.uniform(*power))) for turn in turns]


def _lit(light: Values, rays: Array, lamps: Sequence[tuple[Array, float]], tint: Array, glow: float) -> Array:
    """Lamps with the glow around them, and what they light; none lights another."""
    gain, own = np.ones_like(light), np.zeros_like(light)
    for lamp, power in lamps:
        near = np.clip(rays @ lamp, 0, 1)
        gain += 12 * near[..., None] ** 12 * tint
        own += (glow * power * near**300)[..., None] * tint
        own += np.float32(power) * _disc(rays, lamp, LAMP_RADIUS)[..., None] * (0.3 + 0.7 * tint)
    return (light * gain + own).astype(np.float32)


def _forest(place: Place, rays: Array, rng: np.random.Generator) -> Array:
    around = np.arctan2(rays[..., 0], rays[..., 2])
    ring = np.stack([np.sin(around), np.cos(around)], axis=-1).astype(np.float32)
    light = _daylight(
        place, rays, rng, sun=float(rng.uniform(60, 400)), warm=_rgb((0.7, 0.8, 0.6)), zenith=_rgb((0.25, 0.4, 0.5))
    )
    up = rays[..., 1]
    leaves = np.clip(_noise(rng, rays, 9.0) * 1.2 + 0.6 * place.cover + 3 * up - 0.2, 0, 1) * (up > -0.05)
    shade = 0.05 + 0.05 * np.maximum(_noise(rng, rays, 18.0), -0.8)
    light = _mix(light, shade[..., None] * _rgb((0.5, 1.0, 0.25)), leaves * 0.97)
    trunks = np.clip(6 * (_noise(rng, ring, 9.0, 3) - 0.55), 0, 1) * ((up > -0.25) & (up < 0.75))
    bark = (0.05 + 0.02 * _noise(rng, rays, 30.0))[..., None] * _rgb((1.0, 0.75, 0.5))
    return _mix(light, bark, trunks)


def _street(place: Place, rays: Array, rng: np.random.Generator) -> Array:
    warm, zenith = _rgb((0.8, 0.85, 0.9)), _rgb((0.3, 0.42, 0.65))
    light = _daylight(place, rays, rng, sun=float(rng.uniform(100, 600)), warm=warm, zenith=zenith)
    turn = np.array([[np.cos(place.around), -np.sin(place.around)], [np.sin(place.around), np.cos(place.around)]])
    across, along = np.moveaxis(rays[..., [0, 2]] @ turn.astype(np.float32), -1, 0)
    reach = np.float32(rng.uniform(4, 7)) / np.maximum(np.abs(across), 1e-3)
    high, far = rays[..., 1] * reach + np.float32(EYE), along * reach
    house = np.floor(far / 9) + 100 * (across > 0)
    top = 9 + 4 * np.sin(house * 12.9)
    wall = (high > 0) & (high < top) & (np.abs(far) < 60)
    paint = _rgb((0.40, 0.34, 0.28)) * (1 + 0.3 * np.sin(house[..., None] * np.array([3.1, 5.7, 7.3], np.float32)))
    window = (np.mod(far, 3) > 1) & (np.mod(far, 3) < 2.2) & (np.mod(high, 3.2) > 1.1) & (np.mod(high, 3.2) < 2.6)
    front = paint * np.where(across > 0, 0.9, 0.45)[..., None]
    front = np.where(window[..., None], _rgb(TINTS[place.tint]) * 0.12, front)
    return np.where(wall[..., None], front, light).astype(np.float32)


def _room(rays: Array, size: Array) -> tuple[Array, Array, Array]:
    """Where rays from the middle meet a box of half `size`: the points, which axis's wall, and on which side."""
    distance = size / np.maximum(np.abs(rays), 1e-4)
    axis = distance.argmin(axis=-1)
    reach = np.take_along_axis(distance, axis[..., None], axis=-1)
    side = np.sign(np.take_along_axis(rays, axis[..., None], axis=-1))[..., 0]
    return (rays * reach).astype(np.float32), axis.astype(np.float32), side


def _interior(place: Place, rays: Array, rng: np.random.Generator) -> Array:
    size = _rgb((float(rng.uniform(2, 4)), float(rng.uniform(1.2, 1.8)), float(rng.uniform(2, 4))))
    points, axis, side = _room(rays, size)
    walls = _rgb((0.55, 0.52, 0.46)) * (1 + 0.05 * _noise(rng, points, 3.0))[..., None]
    floor = _rgb(GROUNDS[place.ground]) * 0.5 + _rgb((0.16, 0.10, 0.06))
    albedo = np.where((axis == 1)[..., None], np.where((side < 0)[..., None], floor, _rgb((0.7, 0.7, 0.68))), walls)
    lit = 0.25 + 0.35 / (1 + ((points - size * _rgb((0, 0.9, 0))) ** 2).sum(axis=-1))
    light = albedo * lit[..., None]
    pane = (axis == 2) & (side > 0) & (np.abs(points[..., 1] - 0.1) < 0.6)
    pane &= (np.mod(points[..., 0] + 0.1, 1.3) > 0.25) & (np.abs(points[..., 0]) < 0.9 * size[0])
    outside = 4 + 5 * np.clip(points[..., 1] + 0.5, 0, 1)
    lamps = _lamps(place, rng, (0.05, 0.4), (12, 50))[:3]
    light = _lit(light, rays, lamps, _rgb(TINTS[place.tint]), 0.03)
    return np.where(pane[..., None], outside[..., None] * _rgb((0.85, 0.95, 1.1)), light).astype(np.float32)


def _studio(place: Place, rays: Array, rng: np.random.Generator) -> Array:
    points, axis, side = _room(rays, _rgb((3, 2, 3)))
    grey = np.where((axis == 1) & (side < 0), 0.16, 0.07) * (1 + 0.3 * np.clip(points[..., 1] / 2, -1, 1))
    light, boxes = grey[..., None] * _rgb((1, 1, 1.03)), np.zeros_like(rays)
    for centre, power in _lamps(place, rng, (0.0, 0.5), (10, 45)):
        right = np.cross(_rgb((0, 1, 0)), centre)
        right /= max(float(np.linalg.norm(right)), 1e-3)
        wide, tall = rays @ right.astype(np.float32), rays @ np.cross(centre, right).astype(np.float32)
        box = (np.abs(wide) < rng.uniform(0.12, 0.35)) & (np.abs(tall) < rng.uniform(0.12, 0.3)) & (rays @ centre > 0)
        light *= 1 + 1.5 * np.clip(rays @ centre, 0, 1)[..., None] ** 3
        boxes = np.where(box[..., None], _rgb(TINTS[place.tint]) * np.float32(power), boxes)
    return np.where(boxes > 0, boxes, light).astype(np.float32)


_DRAW: Mapping[str, Callable[[Place, Array, np.random.Generator], Array]] = MappingProxyType({
    "sunset": _sunset, "night": _night, "studio": _studio, "forest": _forest, "overcast": _overcast,
    "interior": _interior, "noon": _noon, "street": _street,
})  # fmt: skip
