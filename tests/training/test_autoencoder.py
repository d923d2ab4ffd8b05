"""The small autoencoder: named encodings, a short run that learns, resume bit for bit, and the exported folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import OpenEXR
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file

from hdrgen_server.systems.gmodiff.config import CONFIGS
from hdrgen_server.systems.gmodiff.refine.config import REFINERS, VAEConfig
from hdrgen_server.systems.gmodiff.regressor import gain_scale, reconstruct
from hdrgen_server.training import autoencoder, pictures
from hdrgen_server.training.autoencoder import (
    AutoencoderTask,
    Weights,
    export,
    gradient_distance,
    psnrs,
    train_autoencoder,
)
from hdrgen_server.training.brackets import BracketSample, simulate
from hdrgen_server.training.loop import Schedule
from hdrgen_server.training.pictures import ENCODINGS, PictureSource, gain_map, held_out_pictures, sdr
from hdrgen_server.training.recipe import Recipe, load_recipe
from hdrgen_server.training.scenes import Scene
from nuke_hdrgen.wire.errors import BadInput

TINY = VAEConfig((12, 24), layers_per_block=1, norm_num_groups=4, sample_size=32)
WEIGHTS = {"l1": 1.0, "gradient": 0.5, "divergence": 1e-4}


def panorama(seed: int) -> npt.NDArray[np.float32]:
    """Equirectangular (96, 192, 3): sky over ground with soft blobs and a few lamps."""
    rng = np.random.default_rng(seed)
    stops = np.linspace(1.5, -3.0, 96, dtype=np.float32)[:, None].repeat(192, axis=1)
    stops += np.kron(rng.standard_normal((6, 12)).astype(np.float32), np.ones((16, 16), np.float32))
    light = np.exp2(stops)
    for row, column in rng.integers((20, 0), (70, 180), (12, 2)):
        light[row : row + 10, column : column + 10] = rng.uniform(8, 60)
    return (light[..., None] * np.array([1.0, 0.9, 0.75], np.float32)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("panoramas")
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    for seed, name in enumerate(("studio", "lebombo")):
        OpenEXR.File(header, {"RGB": panorama(seed)}).write(str(path / f"{name}.exr"))
    return path


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoencoder, "REFINERS", {"tiny": replace(REFINERS["s"], vae=TINY)})
    monkeypatch.setattr(autoencoder, "LATENT_BATCHES", 6)
    monkeypatch.setattr(pictures, "HELD_OUT_SIDE", 64)


def silent(text: str) -> None:
    del text


def recipe(steps: int, **changes: Any) -> Recipe:
    schedule = Schedule(steps=steps, batch=2, warmup=2, rate=3e-3, average=0.9, validate_every=6, checkpoint_every=6)
    return Recipe("tiny", 32, replace(schedule, **changes), WEIGHTS)


def bracket(reference: int = 1) -> BracketSample:
    rng = np.random.default_rng(0)  # a view whose highlights the map can hold
    return simulate(rng, [Scene("studio", panorama(0), 0)], (40, 48), (-2.0, 0.0, 2.0), reference, bright=True)


def test_sdr_is_one_exposure_and_the_gain_map_inverts_to_the_truth() -> None:
    sample = bracket(reference=0)
    for index, codes in enumerate(sample.codes_nhwc):
        assert np.array_equal(sdr(sample, index).picture_hwc, 2 * codes - 1)
    picture = gain_map(sample, 2)
    assert picture.held == 0
    assert -1 <= picture.picture_hwc.min() < picture.picture_hwc.max() <= 1
    gain = torch.from_numpy((picture.picture_hwc + 1) / 2).permute(2, 0, 1)[None]
    codes = torch.from_numpy(sample.codes_nhwc[0]).permute(2, 0, 1)[None]
    scale = gain_scale(CONFIGS["s"], torch.tensor([sample.evs]))
    again = reconstruct(gain, codes, scale)[0].permute(1, 2, 0).numpy()
    assert again == pytest.approx(sample.scene_linear_hwc, rel=1e-3, abs=1e-4)


def test_what_a_gain_map_cannot_hold_is_counted() -> None:
    sample = bracket()
    harsh = replace(sample, scene_linear_hwc=sample.scene_linear_hwc.copy())
    harsh.scene_linear_hwc[:3, :5] = 1e4
    picture = gain_map(harsh, 0)
    assert picture.held == 3 * 5 * 3
    assert picture.picture_hwc.max() == 1.0


def test_a_batch_takes_encodings_in_turn_and_follows_its_seed(folder: Path) -> None:
    both, plain = PictureSource(folder, 32), PictureSource(folder, 32, ("sdr",))
    a, b = (both(np.random.default_rng((1, 7)), 4) for _ in range(2))
    other, only = both(np.random.default_rng((1, 8)), 4), plain(np.random.default_rng((1, 7)), 4)
    assert a.pictures.shape == (4, 3, 32, 32)
    assert float(a.pictures.abs().max()) <= 1
    assert torch.equal(a.pictures, b.pictures)
    assert not torch.equal(a.pictures, other.pictures)
    assert torch.equal(a.pictures[0], only.pictures[0])
    assert not torch.equal(a.pictures[1], only.pictures[1])


def test_held_out_pictures_are_the_same_every_time(folder: Path) -> None:
    for name in ENCODINGS:
        first, second = (held_out_pictures(folder, name) for _ in range(2))
        assert len(first) == 4
        assert all(p.shape == (1, 3, 64, 64) for p in first)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_gradient_term_sees_edges_and_no_offset() -> None:
    torch.manual_seed(0)
    picture = torch.rand(1, 3, 16, 16)
    assert float(gradient_distance(picture + 0.3, picture)) == pytest.approx(0, abs=1e-6)
    step = torch.zeros(1, 3, 16, 16)
    step[..., 8:] = 1.0
    # One column of 15 (then of 7 and 3) differs by 1, at three scales.
    assert float(gradient_distance(step, torch.zeros_like(step))) == pytest.approx((1 / 15 + 1 / 7 + 1 / 3) / 3)


def test_the_tone_term_is_of_local_means(folder: Path) -> None:
    class Offset(AutoencoderKL):
        def decode(self, z: Any, return_dict: bool = True, generator: Any = None) -> Any:
            decoded = super().decode(z)
            rows = torch.arange(32) % 2
            decoded.sample = batch.pictures + 0.1 + 0.4 * (rows[:, None] - 0.5)
            return decoded

    batch = PictureSource(folder, 32)(np.random.default_rng(3), 2)
    task = AutoencoderTask(TINY, folder, Weights(**WEIGHTS), 32)
    task.vae = Offset(**TINY.arguments())
    _, parts = task.loss(batch)
    assert parts["tone"] == pytest.approx(0.1, abs=1e-5)
    assert parts["l1"] == pytest.approx(0.2, abs=1e-5)
    assert parts["gradient"] == pytest.approx(0.4 / 3, abs=1e-5)


def test_the_perceptual_term_looks_at_codes(folder: Path) -> None:
    torch.manual_seed(0)
    seen: list[torch.Tensor] = []

    def distance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        seen.append(second)
        return (first - second).abs().mean()

    batch = PictureSource(folder, 72)(np.random.default_rng(3), 2)
    plain = AutoencoderTask(TINY, folder, Weights(**WEIGHTS), 72)
    task = AutoencoderTask(TINY, folder, Weights(**WEIGHTS, perceptual=10.0), 72, distance)
    task.vae.load_state_dict(plain.vae.state_dict())
    torch.manual_seed(1)
    without, _ = plain.loss(batch)
    torch.manual_seed(1)
    loss, parts = task.loss(batch)
    assert seen[0].shape == (1, 3, 48, 48)
    assert any(torch.allclose(seen[0][0], (p[:, 12:60, 12:60] + 1) / 2) for p in batch.pictures)
    assert float(loss.detach()) == pytest.approx(float(without.detach()) + 10 * parts["perceptual"], rel=1e-4)


@pytest.mark.usefixtures("same_process")
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    train_autoencoder(recipe(12), folder, tmp_path / "whole", silent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AutoencoderTask, "loss", interrupted_at(8))
        with pytest.raises(KeyboardInterrupt):
            train_autoencoder(recipe(12), folder, tmp_path / "parts", silent)
    lines: list[str] = []
    assert train_autoencoder(recipe(12), folder, tmp_path / "parts", lines.append).step == 12
    assert lines[0].startswith("resuming at step 7")
    for name in ("checkpoint.safetensors", "average.safetensors", "best.safetensors"):
        whole, parts = (load_file(tmp_path / run / name) for run in ("whole", "parts"))
        assert set(whole) == set(parts)
        assert all(torch.equal(tensor, parts[key]) for key, tensor in whole.items()), name
    curves = [json.loads((tmp_path / run / "curve.json").read_text()) for run in ("whole", "parts")]
    assert [[row["error"] for row in curve] for curve in curves] == [[curves[0][0]["error"], curves[0][1]["error"]]] * 2


def interrupted_at(call: int) -> Any:
    calls = iter(range(1, 100))
    original = AutoencoderTask.loss

    def loss(self: AutoencoderTask, batch: Any) -> Any:
        if next(calls) == call:
            raise KeyboardInterrupt
        return original(self, batch)

    return loss


@pytest.mark.usefixtures("same_process")
def test_a_short_run_learns_and_its_export_is_what_was_scored(folder: Path, tmp_path: Path) -> None:
    run, target = tmp_path / "run", tmp_path / "vae-tiny"
    short = recipe(80, batch=4, validate_every=40, rate=6e-4, warmup=20)
    with pytest.raises(BadInput, match="train first"):
        export(short, folder, run, target)
    train_autoencoder(short, folder, run, silent)
    curve = json.loads((run / "curve.json").read_text())
    assert [row["step"] for row in curve] == [40, 80]
    torch.manual_seed(short.schedule.seed)
    untrained = AutoencoderTask(TINY, folder, Weights(**WEIGHTS), short.crop)
    with torch.inference_mode():
        before = untrained.validate(untrained.vae.eval())["error"]
    assert curve[1]["error"] < before - 0.3, (before, curve)
    figures = export(short, folder, run, target)
    assert sorted(p.name for p in target.iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]
    assert figures["sdr"] == pytest.approx(max(row["sdr"] for row in curve), abs=0.1)
    model = AutoencoderKL.from_pretrained(target).eval()
    assert model.config.scaling_factor == figures["scaling_factor"]
    assert tuple(model.config.block_out_channels) == TINY.block_out_channels
    state, best = load_file(target / "diffusion_pytorch_model.safetensors"), load_file(run / "best.safetensors")
    assert set(state) == set(best)
    assert {t.dtype for t in state.values()} == {torch.float16}
    assert all(torch.equal(tensor, best[name].half()) for name, tensor in state.items())
    with torch.inference_mode():
        latents = [
            model.float().encode(PictureSource(folder, 32)(np.random.default_rng(i), 8).pictures).latent_dist.mode()
            for i in range(6)
        ]
    assert float(torch.cat(latents).std()) * figures["scaling_factor"] == pytest.approx(1, abs=0.15)


def test_psnr_is_of_codes() -> None:
    class Shifted(AutoencoderKL):
        def decode(self, z: Any, return_dict: bool = True, generator: Any = None) -> Any:
            decoded = super().decode(z)
            decoded.sample = torch.full_like(decoded.sample, 0.2)
            return decoded

    model = Shifted(**TINY.arguments()).eval()
    with torch.inference_mode():
        assert psnrs(model, [torch.zeros(1, 3, 16, 16)]) == pytest.approx([20.0])


def test_the_recipe_fits_its_configuration_and_the_size_that_ships() -> None:
    shipped = load_recipe("autoencoder-s")
    Weights(**shipped.weights)
    model = AutoencoderKL(**REFINERS[shipped.config].vae.arguments())
    assert 2 * sum(p.numel() for p in model.parameters()) <= 6e6
    assert shipped.crop % REFINERS[shipped.config].vae.factor == 0
