"""Panoramas, views and simulated brackets do what the protocol says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import OpenEXR
import pytest

from hdrgen_server.colour.curves import CURVES
from hdrgen_server.training import brackets, scenes, views
from nuke_hdrgen.wire.errors import BadInput

RNG = np.random.default_rng(1)
SCENE = scenes.Scene("noise", np.exp2(RNG.uniform(-5, 4, (64, 128, 3))).astype(np.float32), 0)


def write(path: Path, pixels: np.ndarray) -> None:
    OpenEXR.File({"type": OpenEXR.scanlineimage}, {"RGB": pixels}).write(str(path))


def test_scenes_are_split_and_negatives_counted(tmp_path: Path) -> None:
    pixels = np.full((4, 8, 3), 0.5, np.float32)
    pixels[0, 0] = -1
    write(tmp_path / "lebombo.exr", pixels)
    write(tmp_path / "other.exr", pixels)
    (held,) = scenes.load_scenes(tmp_path, held_out=True)
    (trained,) = scenes.load_scenes(tmp_path, held_out=False)
    assert (held.name, trained.name) == ("lebombo", "other")
    assert held.negatives == 3
    assert held.scene_linear_hwc.min() == 0


def test_folders_and_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="held-out"):
        scenes.load_scenes(tmp_path, held_out=True)
    (tmp_path / "broken.exr").write_bytes(b"no exr")
    with pytest.raises(BadInput, match="broken"):
        scenes.load_scene(tmp_path / "broken.exr")
    write(tmp_path / "square.exr", np.zeros((4, 4, 3), np.float32))
    with pytest.raises(BadInput, match="equirectangular"):
        scenes.load_scene(tmp_path / "square.exr")


def test_a_view_looks_where_it_is_told() -> None:
    y, x = np.mgrid[0:64, 0:128].astype(np.float32)
    panorama = np.stack([x, y, np.ones_like(x)], axis=2)
    ahead = views.perspective(panorama, views.View(0, 0, 0, 60), 33, 33)[16, 16]
    right = views.perspective(panorama, views.View(90, 0, 0, 60), 33, 33)[16, 16]
    assert ahead[:2] == pytest.approx([63.5, 31.5], abs=0.05)
    assert right[:2] == pytest.approx([95.5, 31.5], abs=0.05)


def test_a_view_across_the_wrap_has_no_seam() -> None:
    x = np.arange(128, dtype=np.float32)
    panorama = np.repeat((2 + np.sin(x / 128 * 2 * np.pi))[None, :, None], 64, 0).repeat(3, 2).astype(np.float32)
    view = views.perspective(panorama, views.View(180, 0, 0, 80), 32, 64)
    assert np.abs(np.diff(view[16, :, 0])).max() < 0.05


def test_the_exposure_anchor() -> None:
    image = np.exp2(RNG.uniform(-6, -2, (40, 40, 3))).astype(np.float32)
    anchored = views.anchor_exposure(image)
    assert np.median(anchored @ views.LUMINANCE) == pytest.approx(0.18, rel=1e-4)
    image[:20] = 1e3
    assert (views.anchor_exposure(image).max(axis=2) > 1.0001).mean() <= 0.15


@pytest.mark.parametrize("evs", [(-2, 0), (-3, 0, 3), (-4, -2, 0, 1, 2, 3, 4)])
def test_brackets_are_seeded_quantised_and_exposed(evs: tuple[float, ...]) -> None:
    one, other = (brackets.simulate(np.random.default_rng(4), [SCENE], (32, 48), evs, 1) for _ in range(2))
    assert np.array_equal(one.codes_nhwc, other.codes_nhwc)
    assert one.codes_nhwc.shape == (len(evs), 32, 48, 3)
    assert one.evs == tuple(ev - evs[1] for ev in evs)
    steps = one.codes_nhwc * 255
    assert np.abs(steps - np.rint(steps)).max() < 1e-4
    light = CURVES["srgb"].decode(one.codes_nhwc[0]) * 2.0 ** -one.evs[0]
    seen = (one.codes_nhwc[0] > 0.3) & (one.codes_nhwc[0] < 0.95)
    assert np.median(light[seen] / one.scene_linear_hwc[seen]) == pytest.approx(1, abs=0.01)


def test_noise_has_the_protocol_variance() -> None:
    flat = np.full((300, 300, 3), 0.25, np.float32)
    codes = brackets.Camera().shoot(flat, 0.0, np.random.default_rng(0))
    variance = float(np.var(CURVES["srgb"].decode(codes.astype(np.float64))))
    assert variance == pytest.approx(2e-4 * 0.25 + 1e-6, rel=0.1)


def test_the_camera_curve_is_srgb_times_an_s() -> None:
    x = np.linspace(0, 1, 11, dtype=np.float32)
    plain, curved = brackets.Camera().encode(x), brackets.Camera(s=0.35).encode(x)
    assert plain == pytest.approx(CURVES["srgb"].encode(x), abs=1e-6)
    assert curved == pytest.approx(plain + 0.35 * (plain**2 * (3 - 2 * plain) - plain), abs=1e-6)
    assert (np.diff(curved) > 0).all()


def test_only_the_others_move_and_the_truth_is_the_reference() -> None:
    sample = brackets.simulate(
        np.random.default_rng(2), [SCENE], (96, 96), (-2, 0, 2), 1, motion=brackets.PROTOCOL_MOTION
    )
    light = CURVES["srgb"].decode(sample.codes_nhwc) * 2.0 ** -np.array(sample.evs)[:, None, None, None]
    seen = (sample.codes_nhwc > 0.2) & (sample.codes_nhwc < 0.95)
    off = [float(np.median(np.abs(np.log2(light[i][seen[i]] / sample.scene_linear_hwc[seen[i]])))) for i in range(3)]
    assert off[1] < 0.1 < min(off[0], off[2])
    assert sample.border == brackets.BORDER
