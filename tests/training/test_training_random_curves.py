"""Random curves for SDR: they rise, put white where they say, keep chromaticity where asked, and come out as codes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panoramas import panorama

from hdrgen_server.training.random_curves import MOST_GAIN, Curve, through_curve
from hdrgen_server.training.views import LUMINANCE

STRAIGHT = Curve(low=1.0, high=1.0, knee=0.0, width=1.0, toe=1.0, gain=0.0, white=0.0, in_channels=True)


def grey(light: np.ndarray) -> np.ndarray:
    return np.asarray(light, np.float32)[None, :, None].repeat(3, 2)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_every_curve_rises_and_is_finite(seed: int) -> None:
    found = Curve.random(np.random.default_rng(seed))(grey(np.geomspace(1e-3, 4000, 300)))[0, :, 1]
    assert np.isfinite(found).all()
    assert np.diff(found).min() > 0


def test_one_contrast_without_a_white_is_the_light_itself() -> None:
    light = np.geomspace(1e-3, 30, 50)
    assert STRAIGHT(grey(light))[0, :, 0] == pytest.approx(light, rel=1e-4)


def test_gain_contrast_and_knee_are_what_they_say() -> None:
    raised = Curve(1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, in_channels=True)
    assert raised(grey([0.18]))[0, 0, 0] == pytest.approx(0.36, rel=1e-3)
    bent = Curve(1.2, 0.5, 0.0, 0.3, 1.0, 0.0, 0.0, in_channels=True)
    stops = np.log2(bent(grey(2.0 ** np.array([-4.0, -3.0, 4.0, 5.0])))[0, :, 0])
    assert stops[1] - stops[0] == pytest.approx(1.2, rel=1e-2)
    assert stops[3] - stops[2] == pytest.approx(0.5, rel=1e-2)


def test_white_is_a_quantile_of_the_picture_or_a_fixed_light() -> None:
    light = grey(np.linspace(0.01, 8, 1001))
    by_picture = Curve(1.0, 0.6, 0.0, 0.5, 1.0, 0.0, 0.99, in_channels=True)(light)
    assert np.quantile(by_picture, 0.99) == pytest.approx(1.0, rel=1e-2)
    fixed = Curve(1.0, 0.6, 0.0, 0.5, 1.0, 0.0, 4.0, in_channels=True)(light)
    assert np.interp(4.0, light[0, :, 0], fixed[0, :, 0]) == pytest.approx(1.0, rel=1e-2)
    dark = Curve(1.0, 1.0, 0.0, 0.5, 1.0, 0.0, 0.99, in_channels=True)(light / 100)
    assert dark.max() == pytest.approx(MOST_GAIN * 0.08, rel=1e-3)  # a dark picture is not blown up to white


def test_on_luminance_chromaticity_stays() -> None:
    light = panorama(2)[:32, :32]
    made = Curve(1.1, 0.4, -1.0, 0.5, 1.0, 0.3, 0.98, in_channels=False)(light)
    ratio = made / (made @ LUMINANCE)[..., None]
    assert ratio == pytest.approx(light / (light @ LUMINANCE)[..., None], rel=1e-3)


def test_codes_are_seeded_and_eight_bits() -> None:
    light = panorama(1)[:48, :64]
    for seed in range(6):
        codes = through_curve(light, np.random.default_rng(seed))
        assert (codes.dtype, codes.shape) == (np.float32, (48, 64, 3))
        assert 0 <= codes.min() < codes.max() <= 1
        assert codes * 255 == pytest.approx(np.round(codes * 255), abs=1e-3)
        assert np.array_equal(codes, through_curve(light, np.random.default_rng(seed)))
