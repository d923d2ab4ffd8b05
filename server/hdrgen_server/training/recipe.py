"""A training's numbers as a TOML file: configuration, schedule and loss weights.

It owns parsing. It must not know what a configuration builds.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from hdrgen_server.training.loop import Schedule
from nuke_hdrgen.wire.errors import BadParameter

FOLDER = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Recipe:
    """What to train and how; `weights` name the terms of the system's loss, `crop` is a sample's side in pixels,
    `pictures` are numbers that the system's source of samples takes.
    """

    config: str
    crop: int
    schedule: Schedule
    weights: dict[str, float]
    pictures: dict[str, float] = field(default_factory=dict)


def load_recipe(name: str) -> Recipe:
    """A recipe by name, such as `gmodiff-regressor-s`. Raises BadParameter naming the recipes there are."""
    path = FOLDER / f"{name}.toml"
    names = sorted(p.stem for p in FOLDER.glob("*.toml"))
    if name not in names:
        raise BadParameter(f"there is no recipe {name!r}; there are: {', '.join(names)}")
    return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Recipe, strict=True)
