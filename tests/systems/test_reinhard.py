"""The inverse of Reinhard's curve: cited values, shapes, ranges, NaN and Inf, and plates through the operator."""

from __future__ import annotations

import numpy as np
import pytest
from steps import Steps

from hdrgen_server.colour.interop import colourspace
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.contracts.operator import Request
from hdrgen_server.packs.descriptors import load_descriptor
from hdrgen_server.systems.reinhard.expand import expand, inverse_curve, tone_curve
from hdrgen_server.systems.reinhard.operator import ReinhardOperator
from nuke_hdrgen.wire.errors import BadInput

LINEAR, SRGB = colourspace("lin_rec709_scene"), colourspace("srgb_rec709_scene")


@pytest.mark.parametrize(
    ("scene", "white", "shown"),
    [
        (0.18, 1e9, 0.1525424),
        (1.0, 1e9, 0.5),
        (1.0, 2.0, 0.625),
        (2.0, 2.0, 1.0),
        (4.0, 4.0, 1.0),
        (3.0, 4.0, 0.890625),
    ],
)
def test_equation_4_and_its_inverse_by_hand(scene, white, shown):
    """Reinhard et al. 2002: L / (1 + L) for an endless white (equation 3), L (1 + L / white^2) / (1 + L) otherwise."""
    assert tone_curve(scene, white) == pytest.approx(shown, rel=1e-6)
    assert inverse_curve(shown, white) == pytest.approx(scene, rel=1e-6)


@pytest.mark.parametrize("white", [1.0, 1.5, 10.0, 1000.0])
def test_there_and_back_over_twenty_stops_and_beyond_white(white):
    scene = np.exp2(np.linspace(-20, np.log2(white) + 1, 4001))
    np.testing.assert_allclose(inverse_curve(tone_curve(scene, white), white), scene, rtol=1e-9)


@pytest.mark.parametrize("white", [1.0, 10.0, 1000.0])
def test_it_rises_without_a_step_through_black_and_white(white):
    shown = np.linspace(-0.5, 1.5, 20001)
    found = inverse_curve(shown, white)
    assert (np.diff(found) > 0).all()
    assert np.abs(np.diff(found, 2)).max() < 1e-3 * white**2
    assert inverse_curve(1.0, white) == pytest.approx(white)
    assert inverse_curve(0.0, white) == 0.0
    near = 1e-6
    assert inverse_curve(near, white) / near == pytest.approx(1, rel=1e-5)
    assert inverse_curve(-near, white) == -near


@pytest.mark.parametrize("shape", [(3,), (1, 3), (4, 5, 3), (2, 1, 4, 3)])
def test_any_shape_keeps_chromaticity(shape):
    light = np.random.default_rng(1).uniform(0.01, 1, shape)
    found = expand(light, 10.0)
    assert found.shape == shape
    assert found.dtype == np.float64
    np.testing.assert_allclose(found / found[..., :1], light / light[..., :1])
    assert (found >= light).all()


def test_negative_huge_and_missing_light():
    assert expand(np.array([-0.1, -0.1, -0.1]), 10.0) == pytest.approx(-0.1)
    mixed = expand(np.array([[-0.01, 0.5, 0.2], [0.0, 0.0, 0.0], [1e6, 1e6, 1e6]]), 10.0)
    assert np.isfinite(mixed).all()
    assert mixed[0, 0] < 0
    assert (mixed[1] == 0).all()
    with np.errstate(invalid="ignore"):
        bad = expand(np.array([[np.nan, 0.5, 0.5], [np.inf, np.inf, np.inf], [0.5, 0.5, 0.5]]), 10.0)
    assert np.isnan(bad[0]).all()
    assert not np.isfinite(bad[1]).any()
    assert np.isfinite(bad[2]).all()


def run(frame: Frame, **given: object) -> Frame:
    operator = ReinhardOperator(load_descriptor("reinhard"))
    request = Request("sdr2hdr", operator.descriptor.resolve(given), aovs=True)
    return next(iter(operator.run(request, iter([frame]), Steps())))


@pytest.mark.parametrize(("given", "white"), [({}, 8.2189), ({"peak_nits": 200.0}, 1.8), ({"peak_nits": 1e5}, 820.0)])
def test_plates_keep_mid_grey_and_white_opens(given, white):
    ramp = np.array([0.18, 1.0], np.float32)[:, None, None] * np.ones((2, 4, 3), np.float32)
    result = run(Frame(ramp, ("R", "G", "B"), LINEAR), **given)
    np.testing.assert_allclose(result.rgb[0], 0.18, rtol=1e-5)
    scale = 0.18 / float(inverse_curve(0.18, float(given.get("peak_nits", 1000.0)) / 100))
    np.testing.assert_allclose(result.rgb[1], scale * float(given.get("peak_nits", 1000.0)) / 100, rtol=1e-5)
    assert result.rgb[1, 0, 0] == pytest.approx(white, rel=0.1)
    assert result.colourspace.interop_id == "lin_rec709_scene"


def test_a_plate_that_reinhard_made_comes_back():
    scene = np.random.default_rng(2).uniform(0, 9, (16, 20, 1)) * np.ones(3)
    shown = tone_curve(scene, 10.0).astype(np.float32)
    result = run(Frame(shown, ("R", "G", "B"), LINEAR))
    ratio = result.rgb / scene
    np.testing.assert_allclose(ratio, np.median(ratio), rtol=1e-4)


def test_codes_are_counted_and_marked_and_nan_is_refused():
    codes = np.full((8, 8, 3), 0.5, np.float32)
    codes[2:5, 2:5] = 1
    result = run(Frame(codes, ("R", "G", "B"), SRGB))
    assert result.metadata["counts"]["clipped"] == 27
    assert result.layers["hdrgen.generated"].sum() == 9
    codes[0, 0, 0] = np.nan
    with pytest.raises(BadInput):
        run(Frame(codes, ("R", "G", "B"), SRGB))
