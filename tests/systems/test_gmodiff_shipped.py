"""The second stage that ships in gmodiff-s, on the example bracket: what it fills, and what it must leave alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hdrgen_server.cli.direct import load_operator, run_operator
from hdrgen_server.colour.interop import colourspace
from hdrgen_server.colour.ocio import convert
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.contracts.operator import Operator
from hdrgen_server.image.reading import read_frame
from hdrgen_server.packs.registry import load_registry
from hdrgen_server.settings import load_settings

BRACKET = Path(__file__).parents[2] / "examples" / "bracket"
EVS = {"1_under": -2.0, "2_middle": 0.0, "3_over": 2.0}
WINDOW = np.s_[84:212, 113:241]
"""Around the bracket's largest area that its middle exposure clips."""
HOLE = np.s_[52:76, 52:76]


@pytest.fixture(scope="module")
def shipped() -> Operator:
    return load_operator(load_registry(load_settings()).get("gmodiff-s"), "cpu")


def example() -> list[Frame]:
    frames = [replace(read_frame(BRACKET / f"{stem}.jpg"), ev=ev) for stem, ev in EVS.items()]
    return [
        Frame(np.ascontiguousarray(f.rgb[WINDOW]), ("R", "G", "B"), f.colourspace, ev=f.ev, metadata=f.metadata)
        for f in frames
    ]


def fused(operator: Operator, frames: list[Frame], quality: str) -> np.ndarray:
    return run_operator(operator, "hdrfuse", frames, {"reference": 1}, quality)[0].rgb


def test_what_nothing_supports_comes_closer_to_the_truth(shipped: Operator) -> None:
    frames = example()
    truth = fused(shipped, frames, "draft")
    codes = np.array(frames[0].pixels)
    codes[HOLE] = 0.02
    frames[0] = replace(frames[0], pixels=codes)
    draft, final = (fused(shipped, frames, quality) for quality in ("draft", "final"))

    def stops(found: np.ndarray) -> float:
        return float(np.sqrt(np.mean(np.log2(found[HOLE] / truth[HOLE]) ** 2)))

    assert stops(final) < stops(draft) - 0.3
    assert np.isfinite(final).all()


def test_a_still_bracket_is_its_draft_bit_for_bit(shipped: Operator) -> None:
    middle = example()[1]
    light = convert(middle, colourspace("lin_rec709_scene"))
    frames: list[Frame] = []
    for ev in EVS.values():
        exposed = replace(light, pixels=np.clip(light.pixels * np.float32(2.0**ev), 0, 1))
        codes = convert(exposed, colourspace("srgb_rec709_scene"))
        frames.append(replace(codes, pixels=np.round(codes.pixels * 255) / np.float32(255), ev=ev))
    assert np.array_equal(fused(shipped, frames, "draft"), fused(shipped, frames, "final"))
