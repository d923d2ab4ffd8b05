"""The test chart: every patch has the value that it says, and it says that it is no model."""

from __future__ import annotations

import numpy as np
import pytest

from hdrgen_server.colour.interop import colourspace
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.contracts.operator import Request
from hdrgen_server.image.exr import encode_exr, read_exr_frame
from hdrgen_server.packs.descriptors import load_descriptor
from hdrgen_server.systems.chart.draw import SUN_RADIUS, draw, rows
from hdrgen_server.systems.chart.operator import ChartOperator
from nuke_hdrgen.wire.errors import BadInput, BadParameter

LINEAR = colourspace("lin_rec709_scene")


class Quiet:
    def step(self, done: int, total: int, frame: int = 0) -> None:
        pass


def make(*frames: Frame, seed: int = 0, **given: object) -> Frame:
    operator = ChartOperator(load_descriptor("chart"))
    request = Request("txt2hdr", operator.descriptor.resolve(given), seed=seed, frame_count=len(frames))
    (result,) = operator.run(request, iter(frames), Quiet())
    return result


def middle(chart: np.ndarray, row: str, index: int, seed: int) -> np.ndarray:
    """The pixel in the middle of a patch."""
    (found,) = (r for r in rows(seed) if r.name == row)
    height, width = chart.shape[:2]
    y, x = int((found.top + found.bottom) / 2 * height), int((index + 0.5) / len(found.colours) * width)
    return chart[y, x]


@pytest.mark.parametrize("size", [(64, 64), (640, 360), (1001, 77), (256, 128)])
def test_every_patch_has_its_value(size):
    chart = make(width=size[0], height=size[1], seed=9).pixels
    assert chart.shape == (size[1], size[0], 3)
    for index, stop in enumerate(range(-10, 11)):
        np.testing.assert_allclose(middle(chart, "ramp", index, 9), 0.18 * 2.0**stop, rtol=1e-6)
    assert middle(chart, "ramp", 20, 9)[0] == pytest.approx(184.32)
    for index, colour in enumerate([(1, 0, 0), (0, 1, 0), (0, 0, 1)]):
        np.testing.assert_array_equal(middle(chart, "primaries", index, 9), colour)
    assert chart[size[1] // 4, int(0.75 * size[0])] == pytest.approx([1000.0] * 3)
    assert chart[2, 2] == pytest.approx([0.18] * 3)
    assert chart.max() == 1000.0


def test_the_seed_changes_its_patches_and_nothing_else():
    one, same, other = (make(width=160, height=90, seed=seed).pixels for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    changed = (one != other).any(axis=(1, 2))
    assert not changed[: round(0.85 * 90)].any()
    assert changed[round(0.85 * 90) :].all()
    stops = np.log2(one[-3:] / 0.18)
    assert (np.abs(stops) <= 4.001).all()
    assert np.isfinite(make(width=64, height=64, seed=-5).pixels).all()


def test_the_sun_is_round_in_the_picture_or_on_the_sphere():
    plane = draw(800, 400, 0, panorama=False)[:200, :, 0] == 1000.0
    assert plane.any(axis=0).sum() == pytest.approx(plane.any(axis=1).sum(), abs=1)
    assert plane.any(axis=1).sum() == pytest.approx(2 * SUN_RADIUS * 400, abs=2)
    sphere = draw(800, 400, 0, panorama=True)[:200, :, 0] == 1000.0
    assert sphere.any(axis=1).sum() == pytest.approx(2 * SUN_RADIUS * 400, abs=2)
    assert sphere.any(axis=0).sum() > 1.3 * sphere.any(axis=1).sum()  # at 45 degrees up by 1 / cos 45


def test_it_says_that_it_is_a_diagnostic():
    result = make(prompt="a castle at dawn", width=64, height=64)
    (warning,) = result.metadata["warnings"]
    assert "ignores the prompt" in warning
    np.testing.assert_array_equal(result.pixels, make(prompt="something else", width=64, height=64).pixels)
    assert "ignores the prompt" in load_descriptor("chart").summary
    assert result.colourspace.interop_id == "lin_rec709_scene"
    assert read_exr_frame(encode_exr(result)).pixels.max() == 1000.0


@pytest.mark.parametrize("strength", [0.0, 0.25, 1.0])
def test_a_start_picture_shows_through(strength):
    picture = Frame(np.random.default_rng(1).random((64, 96, 4), np.float32), ("R", "G", "B", "A"), LINEAR, number=7)
    result = make(picture, width=96, height=64, strength=strength)
    chart = make(width=96, height=64).pixels
    np.testing.assert_allclose(result.pixels, picture.rgb * (1 - strength) + chart * strength, rtol=1e-5)
    assert result.channels == ("R", "G", "B")
    assert result.number == 7


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(BadParameter, match="64 to 8192 pixels a side, got 16000 x 64"):
        make(width=16000, height=64)
    with pytest.raises(BadParameter, match="width must be between"):
        make(width=10**9, height=64)
    with pytest.raises(BadParameter, match="twice as wide"):
        make(width=1024, height=1024, projection="panorama")
    assert make(width=256, height=128, projection="panorama").width == 256
    picture = Frame(np.zeros((64, 96, 3), np.float32), ("R", "G", "B"), LINEAR)
    with pytest.raises(BadInput, match="set width and height"):
        make(picture, width=64, height=64)
    with pytest.raises(BadInput, match="one start picture"):
        make(picture, picture, width=96, height=64)


def test_memory_is_known_before_it_is_drawn():
    descriptor = load_descriptor("chart")
    assert descriptor.predict_mib({"width": 1000, "height": 500}, None, 0) == pytest.approx(32 + 0.5 * 48)
    assert descriptor.predict_mib({}, (96, 64), 1) == pytest.approx(32 + 1.048576 * 48)
    assert load_descriptor("merge").predict_mib({}, None, 0) == 0
    assert load_descriptor("merge").made_size({"width": 3, "reference": 1}) is None
    with pytest.raises(BadParameter, match="pixels a side"):
        descriptor.predict_mib({"width": 9000, "height": 64}, None, 0)
