"""Figures of shots over time: what a frozen, a flickering and a true shot get."""

from __future__ import annotations

import numpy as np
import pytest

from hdrgen_server.evaluate.temporal import against, figures
from nuke_hdrgen.wire.errors import BadInput

RNG = np.random.default_rng(5)
WIDE = np.exp2(RNG.uniform(-4, 3, (32, 64, 1))).astype(np.float32).repeat(3, axis=2)
TRUTH = [np.ascontiguousarray(WIDE[:, i : i + 40]) for i in range(8)]
CODES = [np.clip(frame, 0, 1) for frame in TRUTH]


def test_the_truth_against_itself_is_perfect_at_any_scale():
    found = against("x", (frame * 3 for frame in TRUTH), TRUTH, CODES)
    assert found.psnr > 90
    assert found.result.peak == pytest.approx(found.truth.peak, rel=1e-3)
    assert found.result.flicker == pytest.approx(found.truth.flicker, rel=1e-3)
    assert found.scene == "x"


def test_a_frozen_picture_is_far_from_the_truth():
    found = against("x", (TRUTH[0] for _ in TRUTH), TRUTH, CODES)
    assert found.result.flicker == 0
    assert found.result.frame_to_frame == np.inf
    assert np.isfinite(found.truth.frame_to_frame)
    assert found.psnr < 30


def test_a_shot_that_flickers_has_more_of_it():
    shaken = [frame * (1.2 if i % 2 else 1.0) for i, frame in enumerate(TRUTH)]
    found = against("x", iter(shaken), TRUTH, CODES)
    assert found.result.flicker > found.truth.flicker
    assert found.result.flutter > found.truth.flutter


def test_range_and_peak_are_those_of_the_light():
    made = figures([np.full((16, 16, 3), 1.0, np.float32) * np.linspace(1, 8, 16)[:, None, None]] * 3)
    assert made.peak == pytest.approx(8)
    assert made.range_stops == pytest.approx(3, abs=0.02)
    assert made.flutter == 0


def test_a_shot_keeps_its_length():
    with pytest.raises(BadInput, match="made 2 frames of 8"):
        against("x", iter(TRUTH[:2]), TRUTH, CODES)
