"""Shots are smoothed over time where their pack can be, stills are not."""

from __future__ import annotations

import pytest

from hdrgen_server.cli.choice import shot_parameters
from hdrgen_server.packs.descriptors import load_descriptor


@pytest.mark.parametrize(
    ("system", "frames", "given", "expected"),
    [
        ("lumaflux", 2, {}, {"smoothing": 0.8}),
        ("lumaflux", 2, {"smoothing": 0.0}, {"smoothing": 0.0}),
        ("lumaflux", 2, {"steps": 3}, {"smoothing": 0.8, "steps": 3}),
        ("lumaflux", 1, {}, {}),
        ("bt2446", 2, {}, {}),
    ],
)
def test_smoothing_is_for_shots_of_packs_that_know_it(system, frames, given, expected):
    descriptor = load_descriptor(system)
    found = shot_parameters(descriptor, given, range(frames))
    assert found == expected
    descriptor.resolve(found)
