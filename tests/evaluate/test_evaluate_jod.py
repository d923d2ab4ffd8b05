"""JOD without torchvision, where the optional package is installed."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from hdrgen_server.evaluate import jod

pytestmark = pytest.mark.skipif(not jod.available(), reason="cvvdp is not installed")


def test_identical_is_10_and_damage_is_less() -> None:
    y, x = np.mgrid[0:96, 0:96] / 96
    truth = np.stack([0.1 + x, 0.1 + y, 0.3 + 0.2 * np.sin(20 * x)], axis=2)
    assert jod.jod(truth, truth) == pytest.approx(10.0)
    slightly, badly = jod.jod(truth * [1, 1.03, 1], truth), jod.jod(truth[::-1], truth)
    assert badly < slightly < 10.0


def test_nothing_stands_in_for_torchvision_afterwards() -> None:
    flat = np.full((64, 64, 3), 0.5)
    jod.jod(flat, flat)
    assert not hasattr(sys.modules.get("torchvision.transforms"), "GaussianBlur") or hasattr(
        sys.modules["torchvision"], "__file__"
    )


def test_a_shot_that_flickers_is_worse_than_a_steady_one_whose_frames_are_as_wrong() -> None:
    y, x = np.mgrid[0:64, 0:64] / 64
    still = np.stack([0.1 + x, 0.1 + y, 0.3 + 0.2 * np.sin(20 * x)], axis=2)
    truth = [still] * 12
    steady = [frame * 1.1 for frame in truth]
    flickering = [frame * 1.1 ** (-1) ** index for index, frame in enumerate(truth)]
    images = [np.mean([jod.jod(*pair) for pair in zip(shot, truth, strict=True)]) for shot in (steady, flickering)]
    assert images[0] == pytest.approx(images[1], abs=0.01)
    assert jod.shot_jod(truth, truth, 24.0) == pytest.approx(10.0)
    assert jod.shot_jod(flickering, truth, 24.0) < jod.shot_jod(steady, truth, 24.0) - 1
