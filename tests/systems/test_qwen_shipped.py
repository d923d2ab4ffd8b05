"""The packs qwenlog-s and qwenlinear-s as they ship: words, light, edges and heads, on pictures of their own size."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from hdrgen_server.cli.direct import Quiet, load_operator
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.contracts.operator import Request
from hdrgen_server.evaluate import light_vae
from hdrgen_server.evaluate.prompted import seam_of
from hdrgen_server.evaluate.words import features_of
from hdrgen_server.packs.registry import load_registry
from hdrgen_server.settings import load_settings
from hdrgen_server.systems.qwenlinear.operator import DualLook
from hdrgen_server.systems.qwenlog.operator import QwenOperator
from hdrgen_server.training import drawn
from hdrgen_server.training.drawn import Place

NAMES = ("qwenlog-s", "qwenlinear-s")


@cache
def shipped(name: str) -> QwenOperator:
    operator = load_operator(load_registry(load_settings()).get(name), "cpu")
    assert isinstance(operator, QwenOperator)
    return operator


def picture(name: str, prompt: str, seed: int = 0, aovs: bool = False, **given: str | int) -> Frame:
    operator = shipped(name)
    resolved = operator.descriptor.resolve({"prompt": prompt, **given})
    (frame,) = operator.run(Request("txt2hdr", resolved, seed=seed, aovs=aovs), (), Quiet())
    return frame


@pytest.mark.parametrize("name", NAMES)
def test_words_choose_the_light(name: str) -> None:
    night, noon, overcast = (
        picture(name, words).rgb for words in ("a dark night", "the sun at noon", "overcast weather")
    )
    assert noon.shape == (128, 128, 3)
    assert np.median(night) < np.median(overcast) < np.median(noon)
    assert overcast.max() < 1.44
    assert noon.max() > 10
    assert np.array_equal(noon, picture(name, "the sun at noon").rgb), "the same seed, the same pixels"
    assert np.abs(features_of(noon) - features_of(picture(name, "the sun at noon", seed=1).rgb)).max() > 0.05


@pytest.mark.parametrize("name", NAMES)
def test_a_panorama_goes_on_across_its_edge(name: str) -> None:
    seam = seam_of(picture(name, "a sunset over grass", projection="panorama", width=256).rgb)
    assert seam.ratio < 2.5
    assert seam.rank < 1


def views() -> list[np.ndarray]:
    places = [Place.random(np.random.default_rng(seed), kind) for seed, kind in enumerate(("sunset", "street"))]
    return [drawn.draw(place, drawn.perspective(128, place.around, 0.1, 1.2)) for place in places]


def test_log_codes_hold_light_and_logc4_no_less_than_logc3() -> None:
    operator = shipped("qwenlog-s")
    found = light_vae.round_trips(operator.model, operator.look, views())
    assert list(found) == ["logc4", "logc3", "pq", "acescct"]
    assert found["logc4"] > 24
    assert found["logc4"] > found["logc3"] - 0.5


def test_both_heads_lie_on_the_same_pixels_and_the_linear_one_needs_its_half() -> None:
    operator = shipped("qwenlinear-s")
    look = operator.look
    assert isinstance(look, DualLook)
    found = light_vae.heads(operator.model, look, views())
    assert found.shift == (0, 0)
    assert found.linear > 22
    assert found.halved < found.linear - 6
    assert light_vae.round_trips(operator.model, look, views()) == {"linear": pytest.approx(found.linear)}
    layers = picture("qwenlinear-s", "a sunset", aovs=True).layers
    assert {f"hdrgen.tonemapped_{c}" for c in "rgb"} <= set(layers)


@pytest.mark.parametrize("name", NAMES)
def test_a_ramp_through_a_sun_has_no_more_bands_when_it_is_stopped_down(name: str) -> None:
    operator = shipped(name)
    bright, dark = light_vae.bands(operator.model, operator.look, 128)
    assert (bright.stops, dark.stops) == (0, -4)
    assert dark.run[1] <= max(bright.run[1], dark.run[0]) + 1
    assert dark.gaps[1] <= bright.gaps[1] + 0.1


def test_bands_of_a_coarse_row_are_found() -> None:
    row = np.repeat(np.linspace(0.1, 0.9, 16, dtype=np.float32), 8)
    assert light_vae._bands(row) == (8, pytest.approx(0.9, abs=0.05))
    fine = np.linspace(0.01, 0.99, 512, dtype=np.float32)
    assert light_vae._bands(fine)[0] <= 3


def test_a_shift_is_found() -> None:
    one = views()[0]
    assert light_vae._shift(one, one) == (0, 0)
    assert light_vae._shift(np.roll(one, (3, -5), (0, 1)), one) == (3, -5)
