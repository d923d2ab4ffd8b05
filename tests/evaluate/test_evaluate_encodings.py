"""The study of encodings: its figures with round trips that lose nothing, and with ones that do."""

from __future__ import annotations

import numpy as np
import pytest

from hdrgen_server.evaluate.encodings import ENCODINGS, divergence, study, transfer_curves

RNG = np.random.default_rng(3)
PICTURES = [np.exp2(RNG.uniform(-6, 3, (32, 32, 1))).repeat(3, axis=2).astype(np.float32) for _ in range(2)]


def same(codes):
    return codes, codes


def noisy(codes):
    return codes + RNG.normal(0, 0.02, codes.shape), codes


@pytest.mark.parametrize("name", list(ENCODINGS))
def test_every_encoding_comes_back(name):
    light = np.exp2(np.linspace(-8, 1, 50))
    encoding = ENCODINGS[name]
    np.testing.assert_allclose(encoding.decode(encoding.encode(light)), light, rtol=1e-3)


def test_a_vae_that_loses_nothing_leaves_log_codes_whole_and_cuts_what_hlg_cannot_hold():
    log, hlg = (study(ENCODINGS[name], PICTURES, same) for name in ("logc3", "hlg"))
    assert log.pu21_psnr > 60
    assert log.ssim == pytest.approx(1)
    assert log.held == 0
    assert np.nanmax(log.stops) < 1e-3
    assert hlg.kl_latents == pytest.approx(hlg.kl_pixels, abs=0.2)


def test_noise_shows_by_luminance_and_log_codes_spread_it():
    found = {name: study(ENCODINGS[name], PICTURES, noisy) for name in ("logc3", "aces")}
    assert found["logc3"].pu21_psnr > found["aces"].pu21_psnr
    bright = -4  # 4 to 8 times white
    assert found["aces"].stops[bright] > 1.2 * found["logc3"].stops[bright]
    assert 0 < found["logc3"].ssim < 1


def test_divergence_is_nothing_for_the_same_and_more_the_farther():
    values = RNG.normal(0.5, 0.1, 20_000)
    assert divergence(values, values) == 0
    near, far = (divergence(values + shift, values, (0, 1)) for shift in (0.05, 0.2))
    assert 0 < near < far


def test_transfer_curves_rise():
    for codes in transfer_curves(range(-10, 5)).values():
        assert (np.diff(codes) > 0).all()
