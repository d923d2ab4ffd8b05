"""The losses of GMODiff, Eq. 3 to 5, against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from hdrgen_server.systems.gmodiff.losses import DEGRADED, Weights, degradation_mask, regression_loss
from hdrgen_server.systems.gmodiff.regressor import Regression, gain_of, inverse_mu_law

ONE = torch.ones(1, 1, 1, 1)


def regression(gain: float, scale: float = 1.0, logit: float = 0.0) -> Regression:
    return Regression(torch.full((1, 3, 1, 1), gain), scale * ONE, torch.full((1, 1, 1, 1), logit), (), torch.tensor(0))


def test_gain_tone_stops_and_mask_by_hand() -> None:
    codes, truth = torch.full((1, 3, 1, 1), 0.5), torch.full((1, 3, 1, 1), 0.25)
    base = 0.5 + 1 / 64
    estimate = base * (101**0.5 - 1) / 100
    true_gain = math.log1p(100 * 0.25 / base) / math.log(101)
    total, parts = regression_loss(regression(0.5, logit=0.7), codes, truth, Weights())

    def tone(x: float) -> float:
        return math.log1p(5000 * x) / math.log(5001)

    assert parts["gain"] == pytest.approx(abs(0.5 - true_gain), rel=1e-5)
    assert parts["tone"] == pytest.approx(abs(tone(0.25) - tone(estimate)), rel=1e-4)
    assert parts["stops"] == pytest.approx(abs(math.log2(0.25) - math.log2(estimate)), rel=1e-5)
    assert parts["mask"] == pytest.approx(math.log1p(math.exp(-0.7)), rel=1e-5)
    expected = parts["gain"] + parts["tone"] + 0.05 * parts["stops"] + 0.01 * parts["mask"]
    assert float(total) == pytest.approx(expected, rel=1e-5)


def test_the_scale_divides_before_the_tone_curve() -> None:
    codes, truth = torch.full((1, 3, 1, 1), 0.5), torch.full((1, 3, 1, 1), 8.0)
    estimate = 32 * (0.5 + 1 / 64) * (101**0.25 - 1) / 100
    _, parts = regression_loss(regression(0.25, scale=32.0), codes, truth, Weights())
    difference = math.log1p(5000 * 8 / 32) - math.log1p(5000 * estimate / 32)
    assert parts["tone"] == pytest.approx(abs(difference) / math.log(5001), rel=1e-4)


def test_a_perfect_gain_map_costs_only_its_mask() -> None:
    codes, truth = torch.full((1, 3, 1, 1), 0.5), torch.full((1, 3, 1, 1), 0.25)
    gain = float(gain_of(truth, codes, ONE).mean())
    _, parts = regression_loss(regression(gain, logit=-9.0), codes, truth, Weights())
    assert max(parts.values()) < 2e-4


def test_what_no_map_can_show_is_held_at_its_end() -> None:
    codes, truth = torch.zeros(1, 3, 1, 1), torch.full((1, 3, 1, 1), 100.0)
    _, parts = regression_loss(regression(1.0), codes, truth, Weights())
    assert parts["gain"] == 0.0


def test_the_mask_is_set_above_four_codes_of_mean_difference() -> None:
    assert pytest.approx(4 / 255) == DEGRADED
    zero = torch.zeros(1, 3, 1, 2)
    below, above = inverse_mu_law(torch.tensor(DEGRADED * 0.999)), inverse_mu_law(torch.tensor(DEGRADED * 1.001))
    estimate = torch.stack([below.expand(3), above.expand(3)], dim=-1)[None, :, None, :]
    assert degradation_mask(zero, estimate).tolist() == [[[[0.0, 1.0]]]]


def test_the_mask_averages_over_the_channels() -> None:
    estimate = torch.zeros(1, 3, 1, 2)
    estimate[0, 0, 0] = inverse_mu_law(torch.tensor([2.9, 3.1]) * DEGRADED)
    assert degradation_mask(torch.zeros(1, 3, 1, 2), estimate).tolist() == [[[[0.0, 1.0]]]]


def test_the_loss_has_a_finite_gradient_at_black_and_at_the_ends() -> None:
    gain = torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1).requires_grad_()
    result = Regression(gain, 8 * ONE, torch.zeros(1, 1, 1, 1, requires_grad=True), (), torch.tensor(0))
    total, _ = regression_loss(result, torch.zeros(1, 3, 1, 1), torch.zeros(1, 3, 1, 1), Weights())
    total.backward()
    assert gain.grad is not None
    assert torch.isfinite(gain.grad).all()
