"""Simulated brackets and the regressor's training: a short run on generated panoramas lowers the held-out error."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import OpenEXR
import pytest
import torch
from safetensors.torch import load_file

from hdrgen_server.packs.manifest import read_pack
from hdrgen_server.packs.verify import verify
from hdrgen_server.systems.gmodiff.config import CONFIGS, RegressorConfig
from hdrgen_server.systems.gmodiff.losses import Weights
from hdrgen_server.systems.gmodiff.operator import create
from hdrgen_server.systems.gmodiff.regressor import Regressor
from hdrgen_server.training import gmodiff
from hdrgen_server.training.brackets import PROTOCOL_MOTION, STILL, Camera, Motion, simulate
from hdrgen_server.training.gmodiff import BracketSource, RegressorTask, pu21_psnr, train_regressor, write_pack
from hdrgen_server.training.loop import Schedule, save_weights
from hdrgen_server.training.recipe import Recipe, load_recipe
from hdrgen_server.training.scenes import Scene, load_scene, load_scenes, scene_paths
from hdrgen_server.training.views import View, anchor_exposure, perspective
from nuke_hdrgen.wire.errors import BadInput, BadParameter
from tests.training.panoramas import panorama

TINY = RegressorConfig(
    "set", (8, 12), (1, 1), (1, 1), (2,), channel_attention=False, mask_width=8, embedding=8, headroom_stops=3.0
)


def write_exr(path: Path, pixels: npt.NDArray[np.float32]) -> None:
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {"RGB": pixels}).write(str(path))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("panoramas")
    write_exr(path / "studio.exr", panorama(1, 128))
    write_exr(path / "lebombo.exr", panorama(2, 128))
    return path


@pytest.fixture
def scenes() -> list[Scene]:
    return [Scene("studio", panorama(1, 128), 0)]


def test_the_split_keeps_held_out_scenes_apart(folder: Path, tmp_path: Path) -> None:
    assert [p.stem for p in scene_paths(folder, held_out=False)] == ["studio"]
    assert [s.name for s in load_scenes(folder, held_out=True)] == ["lebombo"]
    with pytest.raises(BadInput, match="no training panoramas"):
        scene_paths(tmp_path, held_out=False)


def test_panoramas_of_another_shape_are_refused(tmp_path: Path) -> None:
    write_exr(tmp_path / "square.exr", np.ones((8, 8, 3), np.float32))
    (tmp_path / "text.exr").write_text("no picture")
    with pytest.raises(BadInput, match="twice as wide"):
        load_scene(tmp_path / "square.exr")
    with pytest.raises(BadInput, match="not a readable"):
        load_scene(tmp_path / "text.exr")


def test_negatives_are_counted_and_infinities_held(tmp_path: Path) -> None:
    pixels = np.ones((4, 8, 3), np.float32)
    pixels[0, 0, 0], pixels[1, 1, 1], pixels[2, 2] = -0.5, np.inf, np.nan
    write_exr(tmp_path / "odd.exr", pixels)
    scene = load_scene(tmp_path / "odd.exr")
    assert (scene.negatives, scene.not_finite) == (1, 4)
    assert (scene.scene_linear_hwc.min(), scene.scene_linear_hwc.max()) == (0.0, 65504.0)


def test_a_view_looks_where_it_is_told() -> None:
    columns = np.arange(64, dtype=np.float32)[None, :, None].repeat(32, axis=0).repeat(3, axis=2)
    ahead = perspective(columns, View(0, 0, 0, 60), 9, 9)[4, 4, 0]
    right = perspective(columns, View(90, 0, 0, 60), 9, 9)[4, 4, 0]
    assert ahead == pytest.approx(31.5, abs=0.05)
    assert right == pytest.approx(47.5, abs=0.05)
    rows = np.arange(32, dtype=np.float32)[:, None, None].repeat(64, axis=1).repeat(3, axis=2)
    level, other = (perspective(rows, View(0, p, 0, 60), 9, 9)[4, 4, 0] for p in (0, 30))
    assert level == pytest.approx(15.5, abs=0.05)
    assert abs(other - level) == pytest.approx(30 / 180 * 32, abs=0.1)


def test_the_anchor_puts_the_median_at_mid_grey_unless_that_clips() -> None:
    plain = np.random.default_rng(0).uniform(0.5, 1.5, (20, 20, 3)).astype(np.float32)
    anchored = anchor_exposure(plain)
    assert float(np.median(anchored @ np.array([0.2126, 0.7152, 0.0722]))) == pytest.approx(0.18, rel=1e-3)
    harsh = plain.copy()
    harsh[:10] *= 50
    assert float(np.percentile(anchor_exposure(harsh).max(axis=2), 85)) <= 1.0 + 1e-4


def test_a_still_bracket_is_one_scene_at_three_exposures(scenes: list[Scene]) -> None:
    quiet = Camera(noise=0.0)
    s = simulate(np.random.default_rng(5), scenes, (40, 56), (-2, 0, 2), 1, camera=quiet, motion=STILL)
    assert (s.codes_nhwc.shape, s.evs, s.border) == ((3, 40, 56, 3), (-2.0, 0.0, 2.0), 0)
    for codes, ev in zip(s.codes_nhwc, s.evs, strict=True):
        light = np.clip(s.scene_linear_hwc * 2.0**ev, 0, 1)
        assert np.abs(codes - quiet.encode(light)).max() <= 0.5 / 255 + 1e-5


def test_motion_moves_everything_but_the_reference(scenes: list[Scene]) -> None:
    s = simulate(
        np.random.default_rng(6), scenes, (64, 64), (-2, 0, 2), 1, camera=Camera(noise=0), motion=PROTOCOL_MOTION
    )
    assert np.abs(s.codes_nhwc[1] - Camera().encode(np.clip(s.scene_linear_hwc, 0, 1))).max() <= 0.5 / 255 + 1e-5
    for index in (0, 2):
        still = Camera().encode(np.clip(s.scene_linear_hwc * 2.0 ** s.evs[index], 0, 1))
        assert np.abs(s.codes_nhwc[index] - still).mean() > 0.01
    rolled = Motion(shift=3.0, whole_pixels=False, roll=1.0)
    assert np.isfinite(simulate(np.random.default_rng(7), scenes, (32, 48), (0, 2), 0, motion=rolled).codes_nhwc).all()


def test_the_same_seed_makes_the_same_batch(folder: Path) -> None:
    source = BracketSource(folder, crop=32)
    a, b = (source(np.random.default_rng((1, 7)), 2) for _ in range(2))
    other = source(np.random.default_rng((1, 8)), 2)
    assert torch.equal(a.bracket.codes, b.bracket.codes)
    assert torch.equal(a.truth, b.truth)
    assert not torch.equal(a.truth, other.truth)
    assert a.truth.shape == (2, 3, 32, 32)
    assert (a.bracket.ev[:, 0] == 0).all()


def test_pu21_psnr_knows_equal_and_unequal() -> None:
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert pu21_psnr(x, x) > 100
    assert 20 < pu21_psnr(x * 1.2, x) < pu21_psnr(x * 1.02, x) < 60


def test_twenty_steps_lower_the_held_out_error(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONFIGS, "tiny", TINY)
    monkeypatch.setattr(gmodiff, "HELD_OUT_EACH", 1)
    torch.manual_seed(1)
    task = RegressorTask(TINY, folder)
    with torch.inference_mode():
        before = task.validate(task.model)["error"]
    lines: list[str] = []
    schedule = Schedule(steps=20, batch=2, rate=5e-3, warmup=2, average=0.8, validate_every=20, checkpoint_every=20)
    recipe = Recipe("tiny", 48, schedule, {"gain": 1.0, "tone": 1.0})
    position = train_regressor(recipe, folder, tmp_path / "run", lines.append)
    assert position.step == 20
    assert position.best < before - 0.1, f"{before} then {position.best}"
    row = json.loads((tmp_path / "run" / "log.jsonl").read_text())
    assert set(row["held_out"]) == {"error", "still 2", "still 3", "moving 2", "moving 3"}
    assert {"gain", "tone", "stops", "mask"} <= set(row)
    Regressor(TINY).load_state_dict(load_file(tmp_path / "run" / "best.safetensors"))
    assert "plain merge" in lines[0]


def test_a_run_becomes_a_pack_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONFIGS, "tiny", TINY)
    recipe = Recipe("tiny", 48, Schedule(), {})
    with pytest.raises(BadInput, match="train first"):
        write_pack(recipe, tmp_path, tmp_path / "gmodiff-tiny")
    torch.manual_seed(0)
    model = Regressor(TINY)
    save_weights(model, tmp_path / "best.safetensors")
    write_pack(recipe, tmp_path, tmp_path / "gmodiff-tiny")
    pack = read_pack(tmp_path / "gmodiff-tiny")
    assert (pack.name, pack.system, pack.preview) == ("gmodiff-tiny", "gmodiff", False)
    assert verify(pack) == ()
    loaded = create(pack, "cpu")._model.state_dict()
    assert all(torch.equal(loaded[name], tensor.half().float()) for name, tensor in model.state_dict().items())


def test_every_weight_gets_a_gradient(folder: Path) -> None:
    torch.manual_seed(0)
    task = RegressorTask(TINY, folder, Weights())
    with torch.no_grad():
        for parameter in task.model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    loss, _ = task.loss(BracketSource(folder, crop=32)(np.random.default_rng(2), 2))
    loss.backward()
    silent = {n for n, p in task.model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert {name for name in silent if not name.startswith("mask.embed.")} == set()


def test_every_recipe_fits_its_configuration_and_loss() -> None:
    for name in ("gmodiff-regressor-s", "gmodiff-regressor-set", "gmodiff-regressor-published"):
        recipe = load_recipe(name)
        assert recipe.config in CONFIGS
        Weights(**recipe.weights)
    published = load_recipe("gmodiff-regressor-published")
    assert (published.schedule.rate, published.schedule.batch, published.schedule.steps) == (2e-4, 16, 200_000)
    assert (published.crop, published.weights["perceptual"], published.weights["stops"]) == (256, 1e-2, 0.0)
    with pytest.raises(BadParameter, match="gmodiff-regressor-s"):
        load_recipe("nothing")
