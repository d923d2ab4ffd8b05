"""Gain maps in stops: what a code means, and what eight bits can hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdrgen_server.colour.log_gain import DARKEST_STOPS, OFFSET, UNIT, LogGain, fitted
from nuke_hdrgen.wire.errors import BadParameter

ENDS = st.floats(-12, 40)


def test_a_gain_by_hand() -> None:
    gain = LogGain((0.0,) * 3, (4.0,) * 3)
    base = np.array([[[0.25, 1.0, 0.0]]], np.float32)
    codes = np.array([[[0.0, 255.0, 127.5]]], np.float32)
    hdr = gain.reconstruct(codes, base)
    assert hdr[0, 0].tolist() == pytest.approx([0.25, (1 + OFFSET) * 16 - OFFSET, OFFSET * 3])
    half = gain.reconstruct(codes, base, weight=0.5)
    assert half[0, 0, 1] == pytest.approx((1 + OFFSET) * 4 - OFFSET)
    bent = LogGain((0.0,) * 3, (4.0,) * 3, gamma=(2.0, 2.0, 2.0))
    assert bent.reconstruct(np.full((1, 1, 3), 255 / 4, np.float32), base)[0, 0, 0] == pytest.approx(
        (0.25 + OFFSET) * 4 - OFFSET
    )


@given(ENDS, ENDS)
def test_a_fitted_map_holds_its_ends_and_zero(first: float, second: float) -> None:
    low, high = sorted((first, second))
    gain = fitted(low, high)
    assert gain.low[0] <= max(min(low, 0), DARKEST_STOPS)
    assert gain.high[0] >= min(max(high, 0), 32)
    assert gain.headroom_low < gain.headroom_high == gain.high[0]
    step = (gain.high[0] - gain.low[0]) / 255
    zero = -gain.low[0] / step
    assert zero == round(zero)
    for number in (gain.low[0], gain.high[0]):
        assert number / UNIT == round(number / UNIT)
    span = min(max(high, 0), 32) - max(min(low, 0), DARKEST_STOPS)
    assert step <= max(span / 255 * (1 + 1 / 127), 2.0**-12) + UNIT


@given(st.integers(0, 2**32 - 1), st.floats(1, 16))
def test_the_error_is_half_a_step(seed: int, brightest: float) -> None:
    rng = np.random.default_rng(seed)
    hdr = np.exp2(rng.uniform(-8, brightest, (8, 8, 3))).astype(np.float32)
    base = np.clip(hdr * rng.uniform(0.5, 1, hdr.shape), 0, 1).astype(np.float32)
    stops = fitted(0, 0).stops(hdr, base)
    gain = fitted(float(stops.min()), float(stops.max()))
    codes, counts = gain.encode(stops)
    assert (counts.below, counts.above) == (0, 0)
    back = gain.reconstruct(codes.astype(np.float32), base)
    error = np.abs(np.log2((back + OFFSET) / (hdr + OFFSET)))
    assert error.max() <= (gain.high[0] - gain.low[0]) / 255 / 2 + 1e-4


def test_an_equal_pixel_comes_back_exactly() -> None:
    base = np.linspace(0, 1, 300, dtype=np.float32).reshape(10, 10, 3)
    gain = fitted(-0.7, 9.3)
    codes, _ = gain.encode(gain.stops(base, base))
    np.testing.assert_allclose(gain.reconstruct(codes.astype(np.float32), base), base, atol=2e-7)


def test_what_is_held_is_counted() -> None:
    gain = LogGain((-1.0,) * 3, (2.0,) * 3)
    codes, counts = gain.encode(np.array([[[-1.5, 0.0, 2.5]], [[-1.0, 2.0, 9.0]]], np.float32))
    assert (counts.below, counts.above, counts.samples) == (1, 2, 6)
    assert codes.ravel().tolist() == [0, 85, 255, 0, 255, 255]


@pytest.mark.parametrize(
    "wrong",
    [
        {"low": (1.0,) * 3, "high": (0.5,) * 3},
        {"low": (0.0,) * 3, "high": (200.0,) * 3},
        {"gamma": (0.0, 1.0, 1.0)},
        {"gamma": (math.nan, 1.0, 1.0)},
        {"base_offset": (-0.1, 0.0, 0.0)},
        {"hdr_offset": (math.inf, 0.0, 0.0)},
        {"headroom_low": 2.0, "headroom_high": 2.0},
        {"headroom_low": math.nan},
    ],
)
def test_numbers_without_a_picture(wrong: dict[str, object]) -> None:
    with pytest.raises(BadParameter):
        LogGain(**{"low": (0.0,) * 3, "high": (3.0,) * 3, **wrong})  # type: ignore[arg-type]
    with pytest.raises(BadParameter):
        fitted(math.nan, 1.0)
