"""The ruler against the protocol's own check values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hdrgen_server.colour.curves import CURVES
from hdrgen_server.evaluate import metrics
from hdrgen_server.evaluate.pu21 import display_nits, pu21_codes
from nuke_hdrgen.wire.errors import BadInput

RNG = np.random.default_rng(3)
TRUTH = np.exp2(RNG.uniform(-6, 3, (48, 40, 3))).astype(np.float32)
CODES = np.rint(CURVES["srgb"].encode(np.clip(TRUTH, 0, 1)) * 255) / 255


def test_pu21_and_pq_have_the_published_values() -> None:
    assert pu21_codes(np.array([100.0, 10000.0])) == pytest.approx([256.4, 595.4], abs=0.05)
    assert CURVES["pq"].encode(np.array([1.0]))[0] == pytest.approx(0.508, abs=1e-3)


def test_the_display_reaches_from_0_005_to_1000_nits() -> None:
    assert display_nits(np.array([-1.0, 0.0, 1.0, 50.0])).tolist() == [0.005, 0.005, 100.0, 1000.0]


def test_identical_images_are_perfect() -> None:
    scores = metrics.score(TRUTH, TRUTH, CODES)
    assert scores.ssim == pytest.approx(1.0)
    assert scores.psnr > 200
    assert scores.delta_e == pytest.approx(0, abs=1e-6)
    assert scores.clip_rmse == pytest.approx(0, abs=1e-6)


def test_psnr_follows_its_definition() -> None:
    one, other = np.full((4, 4, 3), 1.0), np.full((4, 4, 3), 2.0)
    step = float(np.diff(pu21_codes(np.array([100.0, 200.0])))[0])
    assert metrics.pu21_psnr(other, one) == pytest.approx(20 * math.log10(256 / step))
    assert metrics.pu21_psnr(one, one) == math.inf


def test_delta_e_itp_of_two_greys_is_their_pq_distance() -> None:
    one, other = np.full((2, 2, 3), 1.0), np.full((2, 2, 3), 1.1)
    codes = CURVES["pq"].encode(np.array([1.0, 1.1]))
    assert metrics.delta_e_itp(other, one) == pytest.approx(720 * float(codes[1] - codes[0]), rel=1e-3)


def test_scale_is_found_and_ignores_clipped_and_dark_codes() -> None:
    image = TRUTH / 3
    clipped = (CODES >= 250 / 255).any(axis=2)
    image[clipped] = 7.0
    assert metrics.scale_to(image, TRUTH, CODES) == pytest.approx(3.0, rel=1e-5)
    assert metrics.scale_to(image, TRUTH, np.ones_like(CODES)) == 1.0


def test_clipped_error_is_in_stops_and_only_where_clipped() -> None:
    codes = np.zeros_like(TRUTH)
    codes[:10] = 1.0
    image = TRUTH.copy()
    image[:10] *= 0.5
    image[20:] = 99.0
    rmse, bias = metrics.clipped_error(image, TRUTH, codes)
    assert (rmse, bias) == (pytest.approx(1.0, abs=1e-4), pytest.approx(-1.0, abs=1e-4))
    assert math.isnan(metrics.clipped_error(image, TRUTH, np.zeros_like(codes))[0])


def test_ssim_falls_with_structure_not_with_order() -> None:
    noisy = TRUTH * np.exp2(RNG.normal(0, 0.5, TRUTH.shape))
    assert metrics.pu21_ssim(noisy, TRUTH) < 0.98
    assert metrics.pu21_ssim(noisy, TRUTH) == pytest.approx(metrics.pu21_ssim(TRUTH, noisy))


@pytest.mark.parametrize("bad", [TRUTH[:-1], np.where(TRUTH > 4, np.nan, TRUTH)])
def test_what_cannot_be_scored_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(BadInput):
        metrics.score(bad, TRUTH, CODES)


def test_the_border_does_not_count() -> None:
    image = TRUTH.copy()
    image[:4], image[-4:], image[:, :4], image[:, -4:] = 9, 9, 9, 9
    assert metrics.score(image, TRUTH, CODES, border=4).psnr > 200
    assert metrics.score(image, TRUTH, CODES, border=3).psnr < 60
