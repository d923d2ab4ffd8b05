"""Preserve plate and the ceiling: exact where they must be, smooth where they may be, and refusing what is broken."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hdrgen_server.contracts.frame import Frame
from hdrgen_server.image.finish import clipped_pixels, plate_clip_level, preserve_plate, result_weight, roll_off
from hdrgen_server.image.tags import LIN_REC709_SCENE, SRGB_REC709_SCENE
from nuke_hdrgen.wire.errors import BadInput, BadParameter

SHAPES = st.tuples(st.integers(1, 7), st.integers(1, 7), st.just(3))
LIGHT = st.floats(-8, 60000, width=32)


def linear(pixels: np.ndarray, ev: float = 0.0, **metadata: float) -> Frame:
    return Frame(pixels.astype(np.float32), ("R", "G", "B"), LIN_REC709_SCENE, ev=ev, metadata=metadata)


@settings(max_examples=60, deadline=None)
@given(st.data(), SHAPES)
def test_what_is_not_clipped_is_the_plate_bit_for_bit(data: st.DataObject, shape: tuple[int, int, int]) -> None:
    plate, result = (data.draw(arrays.arrays(np.float32, shape, elements=LIGHT)) for _ in range(2))
    clipped = data.draw(arrays.arrays(np.bool_, shape[:2]))
    before = plate.copy(), result.copy()
    kept = preserve_plate(result, plate, clipped)
    assert kept[~clipped].tobytes() == plate[~clipped].tobytes()
    whole = result_weight(clipped) == 1
    assert kept[whole].tobytes() == result[whole].tobytes()
    mixed = clipped & ~whole
    low, high = np.minimum(plate, result)[mixed], np.maximum(plate, result)[mixed]
    slack = 1e-6 * (np.abs(low) + np.abs(high)) + np.finfo(np.float32).tiny
    assert ((kept[mixed] >= low - slack) & (kept[mixed] <= high + slack)).all()
    assert np.array_equal(plate, before[0])
    assert np.array_equal(result, before[1])


def test_the_transition_lies_inside_what_is_clipped() -> None:
    clipped = np.zeros((9, 9), bool)
    clipped[2:7, 2:7] = True
    weight = result_weight(clipped)
    assert not weight[~clipped].any()
    assert (weight[3:6, 3:6] == 1).all()
    assert (weight[2, 2:7] == 0.5).all()
    notch = np.ones((5, 5), bool)
    notch[0, 0] = False
    assert result_weight(notch)[1, 1] == pytest.approx(3 / 2 - 2 / 2**1.5, abs=1e-6)
    assert (result_weight(np.ones((3, 4), bool)) == 1).all()


def test_encoded_plates_clip_at_code_250_in_any_channel() -> None:
    codes = np.full((1, 5, 3), 100 / 255, np.float32)
    codes[0, 1, 2], codes[0, 2, 0], codes[0, 3, 1] = 250 / 255, 249 / 255, 1.0
    plate = Frame(codes, ("R", "G", "B"), SRGB_REC709_SCENE)
    assert clipped_pixels(plate, plate_clip_level([plate])).tolist() == [[False, True, False, True, False]]
    grey = Frame(np.ascontiguousarray(codes[..., :1]), ("Y",), SRGB_REC709_SCENE)
    assert clipped_pixels(grey, plate_clip_level([grey])).tolist() == [[False] * 5]


def test_linear_plates_clip_at_the_level_that_is_found() -> None:
    light = np.exp2(np.random.default_rng(0).uniform(-6, 3, (64, 64, 3)))
    bracket = [linear(np.minimum(light * 2.0**ev, 0.93), ev) for ev in (-2, 0, 2)]
    level = plate_clip_level(bracket)
    assert level == pytest.approx(0.93, rel=1e-3)
    assert np.array_equal(clipped_pixels(bracket[1], level), (light >= 0.93).any(axis=2))


def test_a_stated_level_wins_and_none_means_nothing_is_clipped() -> None:
    light = np.random.default_rng(0).uniform(0, 1, (16, 16, 3))
    assert plate_clip_level([linear(light, ev, clip_level=0.8) for ev in (0, 1)]) == 0.8
    open_ended = [linear(light * 2.0**ev, ev) for ev in (0, 1)]
    assert plate_clip_level(open_ended) is None
    assert not clipped_pixels(open_ended[0], None).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_inf(bad: float) -> None:
    plate = np.full((5, 5, 3), 0.5, np.float32)
    plate[2, 2, 1] = bad
    result = np.full((5, 5, 3), 2, np.float32)
    clipped = clipped_pixels(linear(plate), None)
    assert np.argwhere(clipped).tolist() == [[2, 2]]
    kept = preserve_plate(result, plate, clipped)
    assert (kept[2, 2] == 2).all()
    assert (np.delete(kept.reshape(25, 3), 12, axis=0) == 0.5).all()
    result[0, 0, 0] = bad
    with pytest.raises(BadInput, match="1 samples"):
        preserve_plate(result, plate, clipped)
    with pytest.raises(BadInput, match="1 samples"):
        roll_off(result, 4.0)


def test_sizes_must_agree() -> None:
    plate = np.zeros((4, 6, 3), np.float32)
    for result, clipped in ((np.zeros((4, 5, 3), np.float32), (4, 6)), (plate, (6, 4))):
        with pytest.raises(BadParameter, match="one size"):
            preserve_plate(result, plate, np.zeros(clipped, bool))


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.float32, SHAPES, elements=LIGHT), st.floats(0.01, 1e5))
def test_below_the_knee_bit_for_bit_and_nothing_above_the_ceiling(light: np.ndarray, ceiling: float) -> None:
    rolled = roll_off(light, ceiling)
    low = light.max(axis=2) <= ceiling / 2
    assert rolled[low].tobytes() == light[low].tobytes()
    assert rolled.max(initial=-8) <= np.float32(ceiling) * (1 + 1e-6)
    assert rolled.shape == light.shape
    assert rolled.dtype == np.float32


@pytest.mark.parametrize("ceiling", [0.5, 1.0, 4.0, 1000.0])
def test_the_roll_off_is_monotone_smooth_and_never_flat(ceiling: float) -> None:
    ramp = np.exp2(np.linspace(-4, 8, 20001)) * ceiling
    light = np.repeat(ramp[None, :, None], 3, axis=2).astype(np.float32)
    rolled = roll_off(light, ceiling)[0, :, 0].astype(np.float64)
    assert (np.diff(rolled) > 0).all()
    assert rolled[-1] < ceiling
    slope = np.diff(rolled) / np.diff(light[0, :, 0].astype(np.float64))
    assert slope.max() < 1.001
    assert np.abs(np.diff(slope)).max() < 2e-3  # no corner, at the knee or elsewhere


def test_the_roll_off_keeps_the_colour() -> None:
    light = np.array([[[8.0, 4.0, -1.0], [0.0, 3.0, 6.0]]], np.float32)
    rolled = roll_off(light, 4.0)
    assert rolled[0, 0] == pytest.approx(light[0, 0] * 3.5 / 8)
    assert rolled[0, 1] == pytest.approx(light[0, 1] * (4 - 16 / 24) / 6)


@pytest.mark.parametrize("ceiling", [0.0, -1.0, np.nan, np.inf])
def test_a_ceiling_is_above_nothing(ceiling: float) -> None:
    with pytest.raises(BadParameter, match="above 0"):
        roll_off(np.ones((1, 1, 3), np.float32), ceiling)
