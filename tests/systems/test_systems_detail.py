"""The plate's own detail: what a VAE loses cancels, what clips is generated, mid-grey stays."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from hdrgen_server.systems import detail as d
from hdrgen_server.systems.detail import Belief

RNG = np.random.default_rng(5)


def plate(height: int = 96, width: int = 128) -> np.ndarray:
    """A ramp from dark to white with fine texture, (H, W, 3)."""
    ramp = np.exp2(np.linspace(-6, -0.1, width))[None, :, None] * np.ones((height, 1, 3))
    return (ramp * np.exp2(RNG.uniform(-0.3, 0, (height, width, 3)))).astype(np.float32)


def blurred(light: np.ndarray, sigma: float = 2.0) -> np.ndarray:
    return gaussian_filter(light, (sigma, sigma, 0), mode="nearest").astype(np.float32)


def none(light: np.ndarray) -> np.ndarray:
    return np.zeros_like(light)


def test_what_the_vae_loses_cancels():
    light = plate()
    lossy = blurred(light)
    kept = d.keep_detail(light, lossy, lossy, none(light), 8)
    np.testing.assert_allclose(kept.scene_linear_hwc, light, rtol=1e-5)
    assert np.abs(kept.gain_hwc).max() < 1e-5


@pytest.mark.parametrize("power", [0.8, 1.25])
def test_a_tone_curve_reaches_the_plates_pixels_with_their_detail(power):
    """The model opens the picture by a power and blurs it: the result has the power of each pixel's surroundings."""
    light = plate()
    lossy = blurred(light)
    found = (0.18 * (lossy / 0.18) ** power).astype(np.float32)
    kept = d.keep_detail(light, found, lossy, none(light), 8)
    expected = light * (lossy / 0.18) ** (power - 1)
    inside = (slice(8, -8), slice(20, -20))
    error = np.log2(kept.scene_linear_hwc / expected)[inside]
    assert np.abs(error).mean() < 0.1
    detail = np.log2(kept.scene_linear_hwc / blurred(kept.scene_linear_hwc))[inside]
    own = np.log2(light / lossy)[inside]
    assert np.corrcoef(detail.ravel(), own.ravel())[0, 1] > 0.97


def test_generated_light_is_taken_whole_and_is_never_below_the_plate():
    light, found = np.full((40, 40, 3), 0.9, np.float32), RNG.uniform(0.5, 30, (40, 40, 3)).astype(np.float32)
    kept = d.keep_detail(light, found, light, np.ones_like(light), 8)
    np.testing.assert_allclose(kept.scene_linear_hwc, np.maximum(found, 0.9), rtol=1e-6)


def test_generated_pixels_do_not_bleed_into_the_gain_of_known_ones():
    light, generated = np.full((60, 90, 3), 0.4, np.float32), np.zeros((60, 90, 3), np.float32)
    generated[:, 45:] = 1
    light[:, 45:] = 1
    found = light.copy()
    found[:, 45:] = 50
    kept = d.keep_detail(light, found, light, generated, 8)
    np.testing.assert_allclose(kept.scene_linear_hwc[:, :45], 0.4, rtol=0.02)
    np.testing.assert_allclose(kept.scene_linear_hwc[:, 45:], 50, rtol=1e-5)


def test_one_channel_can_be_generated_while_the_others_keep_the_plate():
    light = np.broadcast_to(np.array([1, 0.5, 0.2], np.float32), (32, 32, 3)).copy()
    generated = np.zeros_like(light)
    generated[..., 0] = 1
    found = light * np.array([4, 1, 1], np.float32)
    kept = d.keep_detail(light, found, light, generated, 4)
    np.testing.assert_allclose(kept.scene_linear_hwc, found, rtol=1e-4)


def test_black_stays_black_whatever_the_model_made_of_it():
    light = np.zeros((16, 16, 3), np.float32)
    kept = d.keep_detail(light, light + 1, light, none(light), 4)
    assert np.abs(kept.scene_linear_hwc).max() == 0


@pytest.mark.parametrize("radius", [1, 16])
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 40, 3), (7, 13, 3)])
def test_small_pictures_come_back_finite_in_their_shape(shape, radius):
    light = RNG.uniform(0, 1, shape).astype(np.float32)
    kept = d.keep_detail(light, light * 3, light, (light > 0.9).astype(np.float32), radius)
    assert kept.scene_linear_hwc.shape == shape
    assert kept.scene_linear_hwc.dtype == np.float32
    assert np.isfinite(kept.scene_linear_hwc).all()


def test_the_anchor_finds_an_exposure_and_puts_mid_grey_back():
    light = plate()
    known = np.ones(light.shape[:2], np.float32)
    assert d.anchor_stops(light, light * 4, light, known) == pytest.approx(-2, abs=0.02)
    opened = (0.18 * (light / 0.18) ** 1.3 / 2).astype(np.float32)
    raised = opened * 2 ** d.anchor_stops(light, opened, light, known)
    near = np.abs(np.log2(light.mean(axis=2) / 0.18)) < 0.2
    assert np.log2(raised[near] / light[near]).mean() == pytest.approx(0, abs=0.05)


def test_without_mid_grey_all_that_is_known_anchors_and_without_that_nothing_moves():
    bright = np.full((20, 20, 3), 0.9, np.float32)
    half = np.ones((20, 20), np.float32)
    half[10:] = 0
    other = bright * 2
    other[10:] *= 100
    assert d.anchor_stops(bright, other, bright, half) == pytest.approx(-1, abs=0.01)
    assert d.anchor_stops(bright, other, bright, half * 0) == 0.0


def test_a_guided_average_of_a_flat_guide_is_a_box_and_across_an_edge_it_does_not_mix():
    values = RNG.uniform(-1, 1, (50, 50)).astype(np.float32)
    known = np.ones_like(values)
    flat = d.guided(values, np.zeros_like(values), known, 4)
    np.testing.assert_allclose(flat, d.box(d.box(values, 9), 9), atol=1e-5)
    guide = np.zeros_like(values)
    guide[:, 25:] = 4
    step = np.where(guide > 0, 2, -1).astype(np.float32)
    np.testing.assert_allclose(d.guided(step, guide, known, 4), step, atol=0.05)


def test_without_belief_in_places_or_colour_one_curve_is_left_of_the_gain():
    light = plate()
    rows = np.linspace(0.7, 1.4, light.shape[0], dtype=np.float32)[:, None, None]
    found = light**1.2 * rows * np.array([1.3, 1.0, 0.8], np.float32)
    kept = d.keep_detail(light, found, light, none(light), 8, Belief(local=0.0, colour=0.0))
    np.testing.assert_array_equal(kept.gain_hwc[..., 0], kept.gain_hwc[..., 2])
    order = d.log_luminance(light).ravel().argsort()
    along = kept.gain_hwc[..., 0].ravel()[order]
    assert np.diff(along).min() > -1e-3  # the power opens the highlights, whatever the place
    whole = d.keep_detail(light, found, light, none(light), 8)
    nearly = d.keep_detail(light, found, light, none(light), 8, Belief(local=1.0, colour=0.999_999))
    np.testing.assert_allclose(nearly.gain_hwc, whole.gain_hwc, atol=1e-4)


def test_a_tone_gain_with_nothing_known_is_none():
    flat = np.zeros((8, 8), np.float32)
    np.testing.assert_array_equal(d.tone_gain(flat + 3, flat, flat), flat)
    np.testing.assert_allclose(d.tone_gain(flat + 3, flat, flat + 1), 3)


def test_with_less_belief_a_pixel_is_generated_whole_and_smooth():
    light = np.broadcast_to(np.array([1, 0.5, 0.2], np.float32), (48, 48, 3)).copy()
    light[:, :24] *= 0.4
    generated = np.zeros_like(light)
    generated[:, 24:, 0] = 1  # red alone clips
    found = light.copy()
    found[:, 24:] = RNG.uniform(3, 5, (48, 24, 3))
    kept = d.keep_detail(light, found, light, generated, 4, Belief(local=0.5, colour=0.0))
    made = kept.scene_linear_hwc[:, 28:]
    assert made.min() > 3  # green and blue are generated with red: no fringe
    assert np.log2(made).std() < 0.7 * np.log2(found[:, 28:]).std()
    np.testing.assert_allclose(kept.scene_linear_hwc[:, :20], light[:, :20], rtol=0.02)
