"""The test chart itself: where each patch lies and which scene-linear value it has.

It owns the layout and the values. It must not know frames, requests, files or torch. Values are linear Rec.709 with
diffuse white at 1.0; positions are shares of the picture, from its left and top edge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Colour = tuple[float, float, float]

MID_GREY = 0.18
STOPS = tuple(range(-10, 11))
SUN = 1000.0
SUN_AT = (0.75, 0.25)
SUN_RADIUS = 1 / 32  # of the height
SEEDED_PATCHES = 8
PRIMARIES: tuple[Colour, ...] = (
    (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, 1), (0, 0, 0),
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """Patches of one height side by side over the whole width; `top` and `bottom` are shares of the height."""

    name: str
    top: float
    bottom: float
    colours: tuple[Colour, ...]


def rows(seed: int) -> tuple[Row, ...]:
    """The rows of patches; the last one depends on the seed, within four stops of mid-grey."""
    drawn = np.random.default_rng(seed % 2**63).uniform(-4.0, 4.0, (SEEDED_PATCHES, 3))
    seeded = tuple((float(r), float(g), float(b)) for r, g, b in MID_GREY * np.exp2(drawn))
    return (
        Row("ramp", 0.5, 0.7, tuple(_grey(MID_GREY * 2.0**stop) for stop in STOPS)),
        Row("primaries", 0.7, 0.85, PRIMARIES),
        Row("seed", 0.85, 1.0, seeded),
    )


def draw(width: int, height: int, seed: int, *, panorama: bool) -> Float32:
    """The chart: (height, width, 3) float32, mid-grey where nothing else is.

    The sun is a disc of 1000.0 whose centre is at SUN_AT. In a panorama it is a disc on the sphere, so that it is wider
    in the picture the nearer it is to the zenith.
    """
    chart = np.full((height, width, 3), MID_GREY, np.float32)
    for row in rows(seed):
        top, bottom = round(row.top * height), round(row.bottom * height)
        which = np.arange(width) * len(row.colours) // width
        chart[top:bottom] = np.asarray(row.colours, np.float32)[which]
    rounded = _sphere_distance(width, height) if panorama else _plane_distance(width, height)
    chart[: height // 2][rounded <= SUN_RADIUS] = SUN
    return chart


def _grey(value: float) -> Colour:
    return (value, value, value)


def _plane_distance(width: int, height: int) -> Float32:
    """Distance of the pixels of the upper half from the sun, as a share of the height."""
    x = (np.arange(width, dtype=np.float32) + 0.5 - SUN_AT[0] * width) / height
    y = (np.arange(height // 2, dtype=np.float32) + 0.5 - SUN_AT[1] * height) / height
    return np.hypot(x[None, :], y[:, None])


def _sphere_distance(width: int, height: int) -> Float32:
    """The same angle, as a share of the half turn that the height spans."""
    longitude = ((np.arange(width, dtype=np.float32) + 0.5) / width - np.float32(SUN_AT[0])) * (2 * np.pi)
    latitude = (0.5 - (np.arange(height // 2, dtype=np.float32) + 0.5) / height) * np.pi
    sun = (0.5 - SUN_AT[1]) * np.pi
    level = np.cos(latitude)[:, None] * np.float32(np.cos(sun)) * np.cos(longitude)[None, :]
    cosine = np.sin(latitude)[:, None] * np.float32(np.sin(sun)) + level
    return (np.arccos(np.clip(cosine, -1, 1)) / np.pi).astype(np.float32)
