"""Packs of SDR2HDR as they ship, on light that they never saw: nearer to the truth than leaving the plate as it is."""

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
from hdrgen_server.evaluate.metrics import Scores, score
from hdrgen_server.evaluate.sdr_protocol import codes_of
from hdrgen_server.image.reading import read_frame
from hdrgen_server.packs.registry import load_registry
from hdrgen_server.settings import load_settings

BRACKET = Path(__file__).parents[2] / "examples" / "bracket"
EVS = {"1_under": -2.0, "2_middle": 0.0, "3_over": 2.0}
WINDOW = np.s_[40:232, 80:272]
SRGB, REC709 = (colourspace(name) for name in ("srgb_rec709_scene", "lin_rec709_scene"))


@pytest.fixture(scope="module", params=["lumaflux-s", "lumivid-s", "latenthdr-s"])
def shipped(request: pytest.FixtureRequest) -> Operator:
    return load_operator(load_registry(load_settings()).get(request.param), "cpu")


@pytest.fixture(scope="module")
def truth_hwc() -> np.ndarray:
    frames = [replace(read_frame(BRACKET / f"{stem}.jpg"), ev=ev) for stem, ev in EVS.items()]
    merge = load_operator(load_registry(load_settings()).get("merge"), "cpu")
    return run_operator(merge, "hdrfuse", frames, {"reference": 1})[0].rgb[WINDOW]


@pytest.mark.parametrize("curve", ["b", "c"])
def test_a_tone_mapped_plate_comes_nearer_to_its_light(shipped: Operator, truth_hwc: np.ndarray, curve: str) -> None:
    codes_hwc = codes_of(curve, np.ascontiguousarray(truth_hwc, np.float32))
    plate = Frame(codes_hwc, ("R", "G", "B"), SRGB, metadata={"bits": 8})
    found = scored(run_operator(shipped, "sdr2hdr", [plate], {})[0], truth_hwc, codes_hwc)
    left = scored(plate, truth_hwc, codes_hwc)
    assert found.psnr > left.psnr + 2
    assert curve == "c" or found.clip_rmse < left.clip_rmse - 0.3  # curve c clips nothing here


def scored(frame: Frame, truth_hwc: np.ndarray, codes_hwc: np.ndarray) -> Scores:
    return score(convert(frame, REC709).rgb, truth_hwc, codes_hwc)
