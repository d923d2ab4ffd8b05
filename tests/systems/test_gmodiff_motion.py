"""What moves by itself between exposures is found, brought back and, where nothing moves, left untouched."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from gmodiff_cases import exposed, textured

from hdrgen_server.systems.gmodiff.align import Shift, shifted_window
from hdrgen_server.systems.gmodiff.motion import Flow, Light, estimate_flow, moved_window
from hdrgen_server.systems.gmodiff.prepare import Exposure, plan_bracket, prepare, prepare_window

Array = npt.NDArray[np.float32]
SIZE = (128, 160)
THERE, HERE, SIDE = (48, 56), (52, 66), 40


def light_of(scene_linear_hwc: Array) -> Light:
    return lambda rows, columns: scene_linear_hwc[rows[:, None], columns[None]]


def with_patch(place: tuple[int, int]) -> Array:
    """A textured scene with a bright square in it, whose middle is three stops above the reference's clip point."""
    scene = textured(*SIZE, 1) * np.float32(0.3)
    patch = textured(SIDE, SIDE, 2) * np.float32(0.5)
    patch[12:28, 12:28] = 8.0
    scene[place[0] : place[0] + SIDE, place[1] : place[1] + SIDE] = patch
    return scene


def test_a_moved_highlight_is_found_where_it_went() -> None:
    here, there = with_patch(HERE), with_patch(THERE)
    flow = estimate_flow(light_of(here), light_of(there), -4.0, SIZE, Shift())
    assert flow is not None
    offsets = flow.offsets((slice(HERE[0] + 14, HERE[0] + 26), slice(HERE[1] + 14, HERE[1] + 26)))
    found = np.median(offsets, axis=(0, 1))
    assert found == pytest.approx([THERE[1] - HERE[1], THERE[0] - HERE[0]], abs=1.5)


def test_a_bracket_gets_its_moved_highlight_back() -> None:
    codes = [exposed(with_patch(HERE), 0.0), exposed(with_patch(THERE), -4.0)]
    prepared = prepare(codes, (0.0, -4.0), 0)
    middle = prepared.scene_linear_nhwc[1, HERE[0] + 15 : HERE[0] + 25, HERE[1] + 15 : HERE[1] + 25]
    assert np.median(middle) == pytest.approx(8.0, rel=0.05)


def test_what_stands_still_comes_back_bit_for_bit() -> None:
    scene = with_patch(HERE)
    assert estimate_flow(light_of(scene), light_of(scene), -2.0, SIZE, Shift()) is None
    exposures = [Exposure(exposed(scene, ev), ev) for ev in (0.0, -3.0)]
    plan = plan_bracket(exposures, 0)
    window = (slice(0, SIZE[0]), slice(0, SIZE[1]))
    still = prepare_window(exposures, plan_bracket(exposures, 0, align=False), window)
    assert np.array_equal(prepare_window(exposures, plan, window).codes_nhwc, still.codes_nhwc)


def test_no_offset_is_a_plain_shift() -> None:
    pixels, window, shift = textured(30, 40, 3), (slice(4, 28), slice(0, 33)), Shift(2, -3)
    moved, real = moved_window(pixels, shift, np.zeros((24, 33, 2), np.float32), window)
    expected, expected_real = shifted_window(pixels, shift, window)
    assert np.array_equal(moved, expected)
    assert np.array_equal(real, expected_real)


def test_half_a_pixel_is_the_mean_of_two() -> None:
    pixels = textured(20, 20, 4)
    offsets = np.full((10, 10, 2), (0.5, 0.0), np.float32)
    moved, _ = moved_window(pixels, Shift(), offsets, (slice(5, 15), slice(5, 15)))
    assert np.allclose(moved, (pixels[5:15, 5:15] + pixels[5:15, 6:16]) / 2, atol=1e-6)


@pytest.mark.parametrize("step", [1, 2, 4])
def test_a_tile_agrees_with_its_frame(step: int) -> None:
    rng = np.random.default_rng(5)
    offsets = np.rint(rng.uniform(-6, 6, (-(-64 // step), -(-80 // step), 2)) * 32).astype(np.float32) / 32
    flow, pixels, shift = Flow(offsets, step), textured(64, 80, 5), Shift(1, 2)
    frame, tile = (slice(0, 64), slice(0, 80)), (slice(16, 48), slice(24, 80))
    assert np.array_equal(flow.offsets(tile), flow.offsets(frame)[tile])
    whole, real = moved_window(pixels, shift, flow.offsets(frame), frame)
    part, part_real = moved_window(pixels, shift, flow.offsets(tile), tile)
    assert np.array_equal(part, whole[tile])
    assert np.array_equal(part_real, real[tile])


def test_what_comes_from_outside_the_frame_is_not_real() -> None:
    offsets = np.full((8, 8, 2), (-6.0, 0.0), np.float32)
    moved, real = moved_window(textured(8, 8, 6), Shift(), offsets, (slice(0, 8), slice(0, 8)))
    assert real[0, :, 0].tolist() == [0] * 6 + [1] * 2
    assert np.isfinite(moved).all()


def test_frames_that_are_large_are_looked_at_in_fewer_pixels() -> None:
    here = np.kron(with_patch(HERE), np.ones((1, 16, 1), np.float32))
    there = np.roll(here, 24, axis=1)
    flow = estimate_flow(light_of(here), light_of(there), 0.0, (here.shape[0], here.shape[1]), Shift())
    assert flow is not None
    assert flow.step == 2
    assert np.median(flow.offsets((slice(60, 70), slice(1100, 1600)))[..., 0]) == pytest.approx(24, abs=2)


@pytest.mark.parametrize("size", [(8, 40), (15, 15)])
def test_frames_too_small_to_follow_stay(size: tuple[int, int]) -> None:
    here, there = textured(*size, 7), textured(*size, 8)
    assert estimate_flow(light_of(here), light_of(there), 0.0, size, Shift()) is None
