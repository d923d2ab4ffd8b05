"""Exposures to light: exact where they are, the nearest where none shows a pixel, whatever a decoder's noise says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hdrgen_server.systems.latenthdr.exposure import code_of, light_of, picture_of
from hdrgen_server.systems.latenthdr.merge import Merged, Merger

EVS = tuple(float(ev) for ev in range(-7, 6))
RNG = np.random.default_rng(3)


def merged(light: np.ndarray, noise: float = 0.0, evs: tuple[float, ...] = EVS) -> Merged:
    merger = Merger(*light.shape[:2])
    for ev in evs:
        codes = code_of(light, ev) + noise * RNG.standard_normal(light.shape)
        merger.add(ev, codes.astype(np.float32))
    return merger.result()


def test_mid_grey_of_ev_0_is_the_same_code_in_every_scene() -> None:
    assert float(code_of(np.float64(0.18), 0.0)) == pytest.approx(0.18 ** (1 / 2.2))
    assert float(code_of(np.float64(0.18 * 8), -3.0)) == pytest.approx(0.18 ** (1 / 2.2))
    light = torch.rand(2, 3, 4, 4) * 4
    np.testing.assert_allclose(picture_of(light, -1.0).numpy(), picture_of(light.numpy(), -1.0), atol=1e-6)
    inside = light.clamp(max=1.9)
    torch.testing.assert_close(light_of(code_of(inside, -1.0), -1.0), inside, atol=1e-5, rtol=1e-4)


def test_an_exact_stack_gives_its_light_back_over_20_stops() -> None:
    grey = np.exp2(RNG.uniform(-12, 6.5, (40, 40, 1))).astype(np.float32)
    light = grey * RNG.uniform(0.5, 1.0, (40, 40, 3)).astype(np.float32)
    found = merged(light)
    np.testing.assert_allclose(found.scene_linear_hwc, light, rtol=1e-4)
    assert not found.fallen_back_hw.any()
    assert not found.clipped_hw.any()


def test_a_decoders_noise_averages_out_and_does_not_darken_what_clips() -> None:
    light = np.full((64, 64, 3), 20.0, np.float32)
    found = merged(light, noise=0.01)
    error = np.log2(found.scene_linear_hwc / light)
    assert abs(float(error.mean())) < 0.02
    assert float(error.std()) < 0.06


@pytest.mark.parametrize(
    ("light", "expected", "clipped"),
    [
        ((500.0, 500.0, 500.0), (128.0, 128.0, 128.0), True),  # beyond the darkest exposure: its white
        ((1e-7, 1e-7, 1e-7), (1e-7, 1e-7, 1e-7), False),  # below the brightest one's least code
        ((3.0, 0.0, 0.0), (3.0, 0.0, 0.0), False),  # a channel that is nowhere valid
        ((300.0, 0.01, 0.01), (128.0, 0.01, 0.01), True),
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), False),
    ],
)
def test_what_no_exposure_shows_validly_takes_the_nearest(light, expected, clipped) -> None:
    found = merged(np.full((2, 2, 3), light, np.float32))
    assert found.fallen_back_hw.all()
    assert found.clipped_hw.all() == clipped
    np.testing.assert_allclose(found.scene_linear_hwc[0, 0], expected, rtol=1e-3, atol=1e-9)


def test_noise_in_a_bright_exposure_of_a_clipped_pixel_is_not_believed() -> None:
    light = np.full((1, 1, 3), 1000.0, np.float32)
    merger = Merger(1, 1)
    for ev in EVS:
        codes = code_of(light, ev)
        merger.add(ev, codes * np.float32(0.95) if ev == 5 else codes)
    assert merger.result().scene_linear_hwc.max() == pytest.approx(128.0)


def test_codes_outside_their_range_are_taken_as_its_ends() -> None:
    merger = Merger(1, 2)
    merger.add(0.0, np.array([[[-0.1, 0.5, 0.5], [1.2, 1.1, 1.3]]], np.float32))
    found = merger.result()
    np.testing.assert_allclose(found.scene_linear_hwc[0, 1], 1.0)
    assert found.scene_linear_hwc[0, 0, 0] == 0


def test_a_stack_comes_from_the_darkest_and_has_an_exposure() -> None:
    merger = Merger(1, 1)
    with pytest.raises(ValueError, match="no exposure to merge"):
        merger.result()
    merger.add(0.0, np.zeros((1, 1, 3), np.float32))
    with pytest.raises(ValueError, match=r"got EV -1\.0 after 0\.0"):
        merger.add(-1.0, np.zeros((1, 1, 3), np.float32))
