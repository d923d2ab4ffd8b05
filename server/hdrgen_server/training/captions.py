"""What pictures are called: sentences about drawn places, and one for each panorama that is known by name.

It owns the words and which combinations of them are kept for checking. It must not know pixels or networks.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from hdrgen_server.training.drawn import Place

HELD_OUT_SHARE = 8
"""One in so many combinations of kind, ground and tint is never trained on."""

_KINDS: Mapping[str, Sequence[str]] = MappingProxyType({
    "sunset": ("a sunset", "the sun setting on the horizon", "a warm sunset sky", "evening light at sunset"),
    "night": ("a night scene", "a dark night", "night with a moon and stars", "a moonlit night"),
    "studio": ("a photo studio", "a studio with softboxes", "a dark studio with bright panels", "studio lighting"),
    "forest": ("a forest", "a forest of tall trees", "sunlight through a forest", "woods with a green canopy"),
    "overcast": ("an overcast sky", "a cloudy grey day", "overcast weather", "a dull overcast day"),
    "interior": ("an interior", "a room with windows", "an interior with lamps", "the interior of a house"),
    "noon": ("the sun at noon", "a bright noon sky", "midday sun in a blue sky", "noon in summer"),
    "street": ("a street", "a city street", "houses along a street", "a street between buildings"),
})  # fmt: skip
_GROUND = ("over {}", "with {} on the ground", "above {}")
_FLOOR = {"water": "dark stone", "snow": "white stone", "grass": "green carpet"}
_LAMPS = ("{} lamps", "lit by {} lamps", "with {} lights")
_LIT = frozenset({"night", "interior", "studio"})
_SKY = {True: ("many clouds", "broken clouds"), False: ("a clear sky", "no clouds")}

PANORAMAS: Mapping[str, str] = MappingProxyType({
    "adams_place_bridge": "a street under a bridge in a city at noon", "aristea_wreck_puresky": "a clear sunset sky",
    "blocky_photo_studio": "a photo studio with softboxes", "blouberg_sunrise_2": "a sunset over the sea and sand",
    "bpy_city": "a city street between buildings", "bpy_courtyard": "a courtyard with houses at noon",
    "bpy_forest": "sunlight through a forest", "bpy_studio": "a dark studio with bright panels",
    "bpy_interior": "an interior of a hotel with lamps", "bpy_sunrise": "a warm sunset sky over grass",
    "christmas_photo_studio_07": "a photo studio with warm lights", "dancing_hall": "the interior of a dancing hall",
    "dikhololo_night": "a dark night with stars", "empty_warehouse_01": "the interior of an empty warehouse",
    "forest_slope": "a forest of tall trees on a slope", "kiara_1_dawn": "dawn, the sun on the horizon over grass",
    "lebombo": "an interior with windows", "moonless_golf": "a dark night over grass",
    "narrow_moonlit_road": "a moonlit night on a narrow road", "noon_grass": "the sun at noon over grass",
    "overcast_soil_puresky": "an overcast sky over soil", "pmndrs_bridge": "a bridge at noon",
    "pmndrs_esplanade": "an esplanade under a clear noon sky", "pmndrs_lab": "the interior of a laboratory",
    "pmndrs_sky": "a bright noon sky with broken clouds", "pmndrs_sunset": "a warm sunset sky",
    "pmndrs_venice": "a sunset over water in Venice", "pmndrs_workshop": "the interior of a workshop",
    "potsdamer_platz": "a city street between tall buildings", "rainforest_trail": "a trail in a green forest",
    "rooitou_park": "a park with trees at noon", "st_fagans_interior": "the interior of an old house with windows",
    "studio_small_03": "a small photo studio", "studio_small_05": "a small studio with softboxes",
    "venice_sunset": "a sunset over water",
})  # fmt: skip
"""The panoramas that `hdrgen train --fetch` brings and their like, by file name."""


def is_held_out(place: Place) -> bool:
    """Whether this combination of words is for checking alone."""
    return zlib.crc32(" ".join(place.words).encode("ascii")) % HELD_OUT_SHARE == 0


def sentence(place: Place, rng: np.random.Generator) -> str:
    """One of many sentences about a place; its kind is always said, the rest now and then."""

    def one(of: Sequence[str]) -> str:
        return str(rng.choice(list(of)))

    parts = [one(_KINDS[place.kind])]
    inside = place.kind == "interior"
    if place.kind != "studio" and rng.random() < 0.7:
        ground = _FLOOR.get(place.ground, place.ground) if inside else place.ground
        parts.append(one(_GROUND).format(ground))
    if place.kind in _LIT and rng.random() < 0.7:
        parts.append(one(_LAMPS).format(place.tint))
    if place.kind in {"sunset", "noon"} and rng.random() < 0.5:
        parts.append(one(_SKY[place.cover > 0.5]))
    first, *rest = parts
    return " ".join([first, *rest[:1], *(f", {part}" for part in rest[1:])]).replace(" ,", ",")


def called(name: str) -> str:
    """The sentence for a panorama by its file's name; a name that is not known is spelled out."""
    return PANORAMAS.get(name, name.replace("_", " "))
