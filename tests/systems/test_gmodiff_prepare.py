"""Alignment, camera curve and preparation: what is known of a bracket is found, what is not there is not invented."""

from __future__ import annotations

import numpy as np
import pytest
from gmodiff_cases import Array, exposed, textured

from hdrgen_server.systems.gmodiff.align import Shift, estimate_shift, shifted_window
from hdrgen_server.systems.gmodiff.prepare import Exposure, plan_bracket, prepare, prepare_window, srgb_codes
from hdrgen_server.systems.gmodiff.response import Response, estimate_response
from hdrgen_server.training.brackets import Camera

EVS = (-2.0, 0.0, 2.0)


def moved_pair(size: tuple[int, int], rows: int, columns: int, seed: int = 0) -> tuple[Array, Array]:
    """Two crops of one scene; the content of the second lies `rows` down and `columns` right of the first's."""
    margin = 64
    wide = textured(size[0] + 2 * margin, size[1] + 2 * margin, seed)
    first = wide[margin : margin + size[0], margin : margin + size[1]]
    top, left = margin - rows, margin - columns
    return first, wide[top : top + size[0], left : left + size[1]]


@pytest.mark.parametrize(("rows", "columns"), [(0, 1), (3, -7), (-12, 9), (14, 14)])
@pytest.mark.parametrize("ev", [-3.0, 2.0])
def test_whole_pixel_shifts_are_found_exactly(rows: int, columns: int, ev: float) -> None:
    rng = np.random.default_rng(1)
    a, b = moved_pair((120, 152), rows, columns, seed=abs(rows))
    reference, other = Camera().shoot(a, 0.0, rng), Camera().shoot(b, ev, rng)
    found = estimate_shift(lambda w: reference[w], lambda w: other[w], ev, (120, 152))
    assert found == Shift(rows, columns)


def test_shifts_of_frames_that_are_looked_at_thinned_are_found_exactly() -> None:
    a, b = moved_pair((300, 1300), 5, -21)
    reference, other = exposed(a, 0.0, levels=255), exposed(b, 2.0, levels=255)
    assert estimate_shift(lambda w: reference[w], lambda w: other[w], 2.0, (300, 1300)) == Shift(5, -21)


@pytest.mark.parametrize("seed", range(4))
def test_a_still_bracket_comes_back_bit_exact(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = textured(97, 131, seed)
    codes = [Camera().shoot(scene, ev, rng) for ev in EVS]
    prepared = prepare(codes, EVS, 1)
    assert prepared.evs == (0.0, -2.0, 2.0)
    assert np.array_equal(prepared.codes_nhwc, np.stack([codes[1], codes[0], codes[2]]))
    assert (prepared.valid_nhw1 == 1).all()


def test_nothing_is_found_in_flat_frames() -> None:
    flat = np.full((64, 64, 3), 0.5, np.float32)
    assert estimate_shift(lambda w: flat[w], lambda w: flat[w], 2.0, (64, 64)) == Shift()
    black = np.zeros((64, 64, 3), np.float32)
    assert estimate_shift(lambda w: black[w], lambda w: black[w], 2.0, (64, 64)) == Shift()


def test_a_shifted_window_says_which_pixels_are_real() -> None:
    pixels = np.arange(6 * 5 * 3, dtype=np.float32).reshape(6, 5, 3)
    moved, real = shifted_window(pixels, Shift(2, -1), (slice(1, 6), slice(0, 4)))
    assert np.array_equal(moved[0, 1], pixels[3, 0])
    assert np.array_equal(moved[-1, -1], pixels[5, 2])
    assert real[:, :, 0].tolist() == [[0, 1, 1, 1]] * 3 + [[0, 0, 0, 0]] * 2


def test_prepared_exposures_agree_after_alignment() -> None:
    a, b = moved_pair((120, 152), 6, -4)
    prepared = prepare([exposed(a, 0.0), exposed(b, -2.0)], (0.0, -2.0), 0)
    seen = (prepared.valid_nhw1[1] > 0) & (prepared.codes_nhwc[0].max(axis=2, keepdims=True) < 0.98)
    difference = np.abs(prepared.scene_linear_nhwc[0] - prepared.scene_linear_nhwc[1]) * seen
    assert seen.mean() > 0.7
    assert difference.max() < 1e-5


def samples_of(camera: Camera, evs: tuple[float, ...], seed: int) -> list[Array]:
    rng = np.random.default_rng(seed)
    scene = textured(96, 128, seed)
    codes = [camera.shoot(scene, ev, rng).reshape(-1, 3) for ev in evs]
    picked = rng.choice(len(codes[0]), 1500, replace=False)
    return [c[picked] for c in codes]


@pytest.mark.parametrize("seed", range(3))
def test_an_s_curve_is_recovered(seed: int) -> None:
    found = estimate_response(samples_of(Camera(s=0.35), EVS, seed), EVS)
    codes = np.linspace(0.1, 0.95, 50, dtype=np.float32)
    stops = np.log2(found.linearise(codes) / Response(0.35).linearise(codes))
    assert found.s == pytest.approx(0.35, abs=0.1)
    assert np.ptp(stops) < 0.35


@pytest.mark.parametrize("evs", [EVS, (-3.0, 0.0, 3.0), (0.0, 2.0)])
@pytest.mark.parametrize("seed", range(3))
def test_a_plain_bracket_stays_srgb(evs: tuple[float, ...], seed: int) -> None:
    assert estimate_response(samples_of(Camera(), evs, seed), evs) == Response()


def test_too_few_usable_samples_stay_srgb() -> None:
    black = [np.zeros((500, 3), np.float32)] * 2
    assert estimate_response(black, (0.0, 2.0)) == Response()


def test_a_response_inverts_its_camera() -> None:
    light = np.linspace(0, 1, 400, dtype=np.float32)
    for s, gamma in ((0.0, 1.0), (0.35, 1.0), (-0.2, 0.9), (0.6, 1.1)):
        codes = Camera(s=s, gamma=gamma).encode(light).astype(np.float32)
        assert np.abs(Response(s, gamma).linearise(codes) - light).max() < 2e-4


def test_linear_exposures_clip_at_their_own_level() -> None:
    scene = textured(40, 48, peak=4.0)
    frames = [np.minimum(scene * np.float32(2.0**ev), np.float32(0.8)) for ev in EVS]
    exposures = [Exposure(f, ev, linear=True, clip_level=0.8) for f, ev in zip(frames, EVS, strict=True)]
    plan = plan_bracket(exposures, 1)
    window = (slice(0, 40), slice(0, 48))
    prepared = prepare_window(exposures, plan, window)
    assert plan.response == Response()
    assert prepared.codes_nhwc.max() == pytest.approx(1.0, abs=1e-6)
    unclipped = frames[1] < 0.79
    assert np.allclose(prepared.scene_linear_nhwc[0][unclipped] * 0.8, frames[1][unclipped], rtol=2e-3, atol=1e-6)


def test_a_window_is_the_same_as_a_part_of_the_whole() -> None:
    a, b = moved_pair((90, 100), 3, -2)
    exposures = [Exposure(exposed(a, 0.0), 0.0), Exposure(exposed(b, 2.0), 2.0)]
    plan = plan_bracket(exposures, 0)
    whole = prepare_window(exposures, plan, (slice(0, 90), slice(0, 100)))
    part = prepare_window(exposures, plan, (slice(20, 70), slice(60, 100)))
    assert np.array_equal(part.scene_linear_nhwc, whole.scene_linear_nhwc[:, 20:70, 60:100])
    assert np.array_equal(part.valid_nhw1, whole.valid_nhw1[:, 20:70, 60:100])


def test_srgb_codes_meet_the_standard() -> None:
    light = np.array([0, 0.0031308, 0.18, 1], np.float32)
    assert srgb_codes(light) == pytest.approx([0, 0.040450, 0.461356, 1], abs=1e-5)
