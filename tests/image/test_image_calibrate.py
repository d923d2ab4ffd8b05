"""Camera curves recovered from simulated brackets: known, unknown, moving, and when a bracket tells too little."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from hdrgen_server.colour.curves import CURVES
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.image.calibrate import calibrate, linearise, srgb_curve
from hdrgen_server.image.tags import LIN_REC709_SCENE, SRGB_REC709_SCENE
from nuke_hdrgen.wire.errors import BadInput

SCORED = slice(20, 246)


def camera(linear: np.ndarray, contrast: float) -> np.ndarray:
    """sRGB, then an S-curve of this strength: the unknown camera of the evaluation protocol."""
    code = np.asarray(CURVES["srgb"].encode(np.clip(linear, 0.0, 1.0)))
    return code + contrast * (code * code * (3.0 - 2.0 * code) - code)


def true_curve(contrast: float) -> np.ndarray:
    linear = np.linspace(0.0, 1.0, 20001)
    return np.interp(np.arange(256) / 255, camera(linear, contrast), linear)


def scene(size: int = 192) -> np.ndarray:
    """Scene-linear (H, W, 3): smooth shapes over ten stops, half of it with texture."""
    rng = np.random.default_rng(5)
    shapes = sum(gaussian_filter(rng.normal(size=(size, size)), s) * s for s in (6, 16, 40))
    texture = rng.normal(size=(size, size)) * (np.arange(size)[:, None] > size // 2) * 0.25
    stops = shapes / shapes.std() * 2.0 + texture - 2.5
    return (2.0**stops)[..., None] * np.array([1.0, 0.9, 0.75])


def bracket(contrast: float, evs: tuple[float, ...], moving: bool = False) -> list[Frame]:
    rng = np.random.default_rng(9)
    base = scene()
    frames = []
    for index, ev in enumerate(evs):
        light = base * 2.0**ev
        if moving and index != 1:
            light = np.roll(light, (3, -5) if index == 0 else (-4, 2), (0, 1))
            light[60:90, 40 + 20 * index : 70 + 20 * index] = base[:30, :30] * 2.0**ev
        light = np.clip(light, 0.0, 1.0)
        light = light + rng.normal(size=light.shape) * np.sqrt(2e-4 * light + 1e-6)
        codes = np.clip(np.round(camera(light, contrast) * 255), 0, 255)
        frames.append(Frame((codes / 255).astype(np.float32), ("R", "G", "B"), SRGB_REC709_SCENE, ev=ev))
    return frames


def error_stops(curve: np.ndarray, contrast: float) -> float:
    """Root mean square error over codes 20..245, up to one scale, in stops; the worst channel."""
    stops = np.log2(curve[SCORED] / true_curve(contrast)[SCORED, None])
    return float(np.sqrt(((stops - np.median(stops, axis=0)) ** 2).mean(axis=0)).max())


@pytest.mark.parametrize("contrast", [0.0, 0.35, -0.2])
@pytest.mark.parametrize("evs", [(-2.0, 0.0, 2.0), (-3.0, 0.0, 3.0)])
def test_a_still_bracket_gives_the_curve(contrast: float, evs: tuple[float, ...]) -> None:
    found = calibrate(bracket(contrast, evs), evs)
    assert not found.assumed
    assert found.curve.shape == (256, 3)
    assert error_stops(found.curve, contrast) < 0.05
    assert found.residual_stops < 0.05


@pytest.mark.parametrize("evs", [(-2.0, 0.0, 2.0), (-3.0, 0.0, 3.0)])
def test_a_moving_bracket_gives_the_curve_nearly(evs: tuple[float, ...]) -> None:
    found = calibrate(bracket(0.35, evs, moving=True), evs)
    assert not found.assumed
    wrong = error_stops(srgb_curve(), 0.35)
    assert error_stops(found.curve, 0.35) < min(0.15, 0.5 * wrong)


def test_the_curve_increases_from_zero_and_meets_srgb_in_the_middle() -> None:
    curve = calibrate(bracket(0.35, (-2.0, 0.0, 2.0)), (-2.0, 0.0, 2.0)).curve
    assert (curve[0] == 0.0).all()
    assert (np.diff(curve, axis=0) > 0.0).all()
    np.testing.assert_allclose(curve[128], srgb_curve()[128], rtol=1e-3)


def test_two_grey_frames_are_enough() -> None:
    frames = [
        Frame(np.ascontiguousarray(f.pixels[..., 1:2]), ("Y",), SRGB_REC709_SCENE) for f in bracket(0.35, (0.0, 2.0))
    ]
    found = calibrate(frames, (0.0, 2.0))
    assert found.curve.shape == (256, 1)
    assert error_stops(found.curve, 0.35) < 0.1


def test_a_bracket_that_tells_too_little_is_taken_as_srgb_and_says_so() -> None:
    flat = [Frame(np.full((32, 32, 3), v, np.float32), ("R", "G", "B"), SRGB_REC709_SCENE) for v in (0.0, 1.0)]
    found = calibrate(flat, (-2.0, 2.0))
    assert found.assumed
    assert np.array_equal(found.curve, srgb_curve())
    tiny = [Frame(f.pixels[:1, :1].copy(), f.channels, f.colourspace) for f in bracket(0.0, (-2.0, 0.0))]
    assert calibrate(tiny, (-2.0, 0.0)).assumed


def test_bad_brackets_are_refused() -> None:
    frames = bracket(0.0, (-2.0, 0.0))
    small = Frame(frames[0].pixels[:10].copy(), ("R", "G", "B"), SRGB_REC709_SCENE)
    linear = Frame(frames[0].pixels, ("R", "G", "B"), LIN_REC709_SCENE)
    for given, evs, what in [
        (frames[:1], (0.0,), "two frames"), (frames, (0.0,), "an EV for each"),
        ([frames[0], small], (0.0, 1.0), "one size"), ([frames[0], linear], (0.0, 1.0), "encoded"),
    ]:  # fmt: skip
        with pytest.raises(BadInput, match=what):
            calibrate(given, evs)


def test_linearise_interpolates_between_codes() -> None:
    encoded = np.array([[[0.0, 0.5, 1.0], [10 / 255, 20.5 / 255, 30 / 255]]], np.float32)
    curve = srgb_curve()
    linear = linearise(encoded, curve)
    assert linear.dtype == np.float32
    np.testing.assert_allclose(linear[0, 0, 2], curve[255, 2])
    np.testing.assert_allclose(linear[0, 1, 1], (curve[20, 1] + curve[21, 1]) / 2, rtol=1e-5)
