"""Shots are smoothed over time where their pack can be, stills are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hdrgen_server.cli.choice import Choice
from hdrgen_server.cli.sdr2hdr import steady
from hdrgen_server.packs.manifest import parse_pack


def choice(system: str, **parameters: float) -> Choice:
    pack = parse_pack(f'format = 1\nname = "x"\nsystem = "{system}"\nlicence = "x"\n'.encode(), Path("x"))
    spaces: Any = None
    finish: Any = None
    return Choice(pack, parameters, "draft", 0, False, spaces, finish, "full")


@pytest.mark.parametrize(
    ("system", "frames", "given", "expected"),
    [
        ("lumaflux", 2, {}, {"smoothing": 0.8}),
        ("lumaflux", 2, {"smoothing": 0.0}, {"smoothing": 0.0}),
        ("lumaflux", 1, {}, {}),
        ("bt2446", 2, {}, {}),
    ],
)
def test_smoothing_is_for_shots_of_packs_that_know_it(system, frames, given, expected):
    asked = choice(system, **given)
    found = steady(asked, frames)
    assert found == replace(asked, parameters=expected)
    found.pack.descriptor.resolve(found.parameters)
