"""Clip levels: found where sensors clip, in noise and in half floats, and not invented where nothing does."""

from __future__ import annotations

import numpy as np
import pytest

from hdrgen_server.contracts.frame import Frame
from hdrgen_server.image.clip import bracket_clip_level, channel_clip_levels, frame_clip_level
from hdrgen_server.image.tags import LIN_REC709_SCENE


def scene(seed: int = 0, size: int = 96) -> np.ndarray:
    """Scene-linear (H, W, 3) with a smooth sky, texture, and a sun three stops above white."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:size, 0:size] / size
    sky = 0.3 + 0.9 * rows + 8.0 * np.exp(-((rows - 0.6) ** 2 + (columns - 0.4) ** 2) / 0.01)
    return (sky[..., None] * rng.uniform(0.8, 1.2, (size, size, 1)) * [1.0, 0.9, 0.7]).astype(np.float32)


def bracket(level: float, evs: tuple[float, ...], seed: int = 0, noise: float = 1e-4) -> list[Frame]:
    """What a sensor that clips at `level` gives at these exposures, as half floats."""
    rng = np.random.default_rng(seed)
    frames = []
    for ev in evs:
        light = scene(seed) * 2.0**ev
        light = light + rng.normal(size=light.shape) * np.sqrt(noise * light)
        pixels = np.minimum(light, level).astype(np.float16).astype(np.float32)
        frames.append(Frame(pixels, ("R", "G", "B"), LIN_REC709_SCENE, ev=ev))
    return frames


@pytest.mark.parametrize("level", [0.25, 0.93, 1.0, 3.7])
@pytest.mark.parametrize("evs", [(-2.0, 0.0, 2.0), (-3.0, 0.0, 3.0), (0.0, 4.0)])
def test_the_level_of_a_bracket_is_found(level: float, evs: tuple[float, ...]) -> None:
    scaled = tuple(ev + float(np.log2(level)) for ev in evs)
    assert bracket_clip_level(bracket(level, scaled)) == pytest.approx(level, rel=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_a_bracket_that_clips_nowhere_gives_none(seed: int) -> None:
    assert bracket_clip_level(bracket(1e4, (-2.0, 0.0, 2.0), seed)) is None


def test_channels_clip_each_at_their_own_level() -> None:
    pixels = np.minimum(scene(), np.array([1.8, 1.0, 1.4], np.float32)).astype(np.float32)
    frame = Frame(pixels, ("R", "G", "B"), LIN_REC709_SCENE)
    assert channel_clip_levels(frame) == pytest.approx((1.8, 1.0, 1.4))
    assert frame_clip_level(frame) == pytest.approx(1.0)


def test_one_exposure_that_clips_is_confirmed_by_a_shorter_one() -> None:
    frames = bracket(1.0, (-5.0, 0.0))
    assert frame_clip_level(frames[0]) is None
    assert bracket_clip_level(frames) == pytest.approx(1.0, rel=1e-3)


def test_a_bright_flat_surface_is_not_a_clip() -> None:
    frames = []
    for ev in (-2.0, 0.0):
        light = np.minimum(scene(), 0.9) * np.float32(2.0**ev)
        light[:24, :24] = 1.5 * 2.0**ev
        frames.append(Frame(light.astype(np.float32), ("R", "G", "B"), LIN_REC709_SCENE, ev=ev))
    assert frame_clip_level(frames[1]) == pytest.approx(1.5)
    assert bracket_clip_level(frames) is None


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, np.nan, np.inf])
def test_constant_frames_tell_nothing(value: float) -> None:
    frame = Frame(np.full((16, 16, 3), value, np.float32), ("R", "G", "B"), LIN_REC709_SCENE)
    assert frame_clip_level(frame) is None
    assert bracket_clip_level([frame]) is None


def test_nan_and_infinity_do_not_hide_the_level() -> None:
    frame = bracket(1.0, (0.0,))[0]
    pixels = frame.pixels.copy()
    pixels[0, :5], pixels[1, :5] = np.inf, np.nan
    assert frame_clip_level(frame.with_pixels(pixels)) == pytest.approx(1.0)


def test_a_single_frame_is_taken_at_its_word() -> None:
    assert bracket_clip_level(bracket(0.5, (0.0,))) == pytest.approx(0.5)
