"""LatentHDR's training: what a batch holds, a head that learns on two backbones, resume, and packs of both kinds."""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType

import numpy as np
import OpenEXR
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from panoramas import panorama
from safetensors.torch import load_file

from hdrgen_server.packs.manifest import read_pack
from hdrgen_server.systems.gmodiff.refine.config import VAEConfig
from hdrgen_server.systems.latenthdr import loading
from hdrgen_server.systems.latenthdr.config import HeadConfig
from hdrgen_server.systems.latenthdr.exposure import code_of, picture_of
from hdrgen_server.systems.latenthdr.head import ExposureHead
from hdrgen_server.systems.qwenlog.config import VAEConfig as QwenVAEConfig
from hdrgen_server.training import latenthdr
from hdrgen_server.training.exposures import GAIN_EV, STEEPER_STOPS, ExposureSource, clipped_errors
from hdrgen_server.training.latenthdr import Backbone, best_head, start, train_head
from hdrgen_server.training.latenthdr_pack import write_pack
from hdrgen_server.training.loop import Schedule
from hdrgen_server.training.pairs import steepened
from hdrgen_server.training.recipe import Recipe, load_recipe
from hdrgen_server.training.views import LUMINANCE
from nuke_hdrgen.wire.errors import BadInput, BadParameter

TINY = HeadConfig((8, 12), middle=1, bands=4, condition=8)
KL = VAEConfig((8, 16), layers_per_block=1, norm_num_groups=4, scaling_factor=12.0, sample_size=32)
QWEN = QwenVAEConfig(8, 4, (1, 2, 2, 2), 1, (0.0,) * 4, (0.05,) * 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("panoramas")
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    for seed, name in enumerate(("studio", "lebombo")):
        OpenEXR.File(header, {"RGB": panorama(seed)}).write(str(path / f"{name}.exr"))
    return path


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An AutoencoderKL, and a VAE of Qwen-Image's with its curve, with random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("bases")
    AutoencoderKL(**KL.arguments()).save_pretrained(path / "kl")
    AutoencoderKLQwenImage(**QWEN.arguments()).save_pretrained(path / "qwen" / "vae")
    (path / "qwen" / "vae" / "curve.json").write_text(json.dumps({"curve": "logc3"}))
    return {name: path / name for name in ("kl", "qwen")}


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, same_process: None) -> None:
    for module in (latenthdr, loading):
        monkeypatch.setattr(module, "CONFIGS", MappingProxyType({"s": TINY}))
    monkeypatch.setattr("hdrgen_server.training.exposures.HELD_OUT_EACH", 1)


def recipe(steps: int, **pictures: float) -> Recipe:
    schedule = Schedule(steps=steps, batch=2, warmup=1, rate=5e-3, average=0.5, validate_every=10, checkpoint_every=4)
    return Recipe("s", 32, schedule, {"clipped": 3.0}, {"evs": 3.0, **pictures})


def silent(text: str) -> None:
    del text


def test_a_batch_is_light_its_plate_and_evs_of_the_whole_stack(folder: Path) -> None:
    batch = ExposureSource(folder, 48, evs=40)(np.random.default_rng(1), 3)
    assert batch.light.shape == batch.shown.shape == (3, 3, 48, 48)
    assert batch.evs.shape == (3, 40)
    assert batch.evs.min() < -6
    assert batch.evs.max() > 4
    inside = batch.light < 0.95
    torch.testing.assert_close(batch.shown[inside], batch.light[inside], atol=0.01, rtol=0.1)
    assert (batch.shown[batch.light >= 1] > 0.99).all()
    assert (batch.light.amax(dim=(1, 2, 3)) > 1).all(), "views have light above white"
    curved = ExposureSource(folder, 48, curves=1.0)(np.random.default_rng(1), 3)
    assert not torch.allclose(curved.shown, curved.light.clamp(0, 1), atol=0.05)


def test_a_pool_is_drawn_by_number_and_encoded_once(folder: Path, bases: dict[str, Path]) -> None:
    task = start(recipe(1, pool=2.0), folder, bases["kl"])
    numbers = {task.source(np.random.default_rng(seed), 2).number for seed in range(20)}
    assert numbers == {0, 1}
    ticket = task.source(np.random.default_rng(0), 2)
    assert ticket.light.numel() == 0
    first = task._encoded(ticket)
    assert task._encoded(ticket) is first
    again = start(recipe(1, pool=2.0), folder, bases["kl"])._encoded(ticket)
    torch.testing.assert_close(first.exposures, again.exposures)
    plain = start(recipe(1), folder, bases["kl"])
    assert plain._encoded(plain.source(np.random.default_rng(0), 2)).base.shape == first.base.shape


def test_latents_are_posterior_means_of_the_exposures(folder: Path, bases: dict[str, Path]) -> None:
    task = start(recipe(1), folder, bases["kl"])
    batch = task.source(np.random.default_rng(2), 2)
    encoded = task.encode(batch)
    space = task.backbone.space
    one = space.encode(picture_of(batch.light[1:], batch.evs[1, 2]))
    torch.testing.assert_close(encoded.exposures[1, 2], one[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(encoded.base, space.encode(2 * code_of(batch.shown, 0.0) - 1))
    assert float(encoded.weight.mean()) == pytest.approx(1)
    assert float(encoded.weight.max() / encoded.weight.min()) == pytest.approx(4)


def test_highlights_are_steeper_or_flatter_and_all_else_stays() -> None:
    light_hwc = panorama(3)
    found_hwc = steepened(light_hwc, np.random.default_rng(4), STEEPER_STOPS)
    luminance = light_hwc @ LUMINANCE
    below = luminance <= 1
    np.testing.assert_array_equal(found_hwc[below], light_hwc[below])
    power = np.log((found_hwc @ LUMINANCE)[~below]) / np.log(luminance[~below])
    assert power.size > 10
    np.testing.assert_allclose(power, power.mean(), rtol=1e-3)
    assert 2**-STEEPER_STOPS <= power.mean() <= 2**STEEPER_STOPS
    assert abs(power.mean() - 1) > 0.01


def test_a_head_that_sees_noise_changes_the_base_without_it(folder: Path, bases: dict[str, Path]) -> None:
    task = start(recipe(1), folder, bases["kl"])
    assert isinstance(task.model, ExposureHead)
    encoded = task.encode(task.held_out[0])
    plain = latenthdr.weighed_error(task.model, encoded.base, encoded)
    assert latenthdr.weighed_error(task.model, encoded.base, encoded, noise=0.5) == plain, "f is still 0"
    torch.nn.init.normal_(task.model.leave.weight, std=0.1)
    first, second = (latenthdr.weighed_error(task.model.eval(), encoded.base, encoded, noise=0.5) for _ in range(2))
    assert first != second


@pytest.mark.parametrize("name", ["kl", "qwen"])
def test_the_same_head_learns_on_either_backbone(
    name: str, folder: Path, bases: dict[str, Path], tmp_path: Path
) -> None:
    train_head(recipe(90, pool=2.0), folder, tmp_path / "run", bases[name], silent)
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    figures = [row["held_out"] for row in rows]
    assert min(row["means"] for row in figures) < 0.9 * figures[0]["means"]
    assert all(np.isfinite(row["gain_db"]) and 0 < row["error"] < 1 for row in figures)
    backbone = Backbone(bases[name])
    assert backbone.plates == (name == "kl")
    assert backbone.curve == ("" if name == "kl" else "logc3")
    head = best_head(recipe(1), tmp_path / "run", backbone)
    assert head.channels == backbone.space.channels


def test_a_run_goes_on_where_it_stopped(folder: Path, bases: dict[str, Path], tmp_path: Path) -> None:
    said: list[str] = []
    assert train_head(recipe(4), folder, tmp_path, bases["kl"], silent).step == 4
    before = load_file(tmp_path / "average.safetensors")
    assert train_head(recipe(6), folder, tmp_path, bases["kl"], said.append).step == 6
    assert said[0].startswith("resuming at step 4")
    after = load_file(tmp_path / "average.safetensors")
    assert {name for name in after if not torch.equal(after[name], before[name])} == set(before)


def test_packs_hold_the_vae_or_name_a_base(folder: Path, bases: dict[str, Path], tmp_path: Path) -> None:
    for name, base_pack in (("kl", ""), ("kl", "gmodiff-s"), ("qwen", "qwenlog-s")):
        run, pack = tmp_path / f"run-{name}", tmp_path / f"latent-{name}-{base_pack or 'alone'}"
        train_head(recipe(4), folder, run, bases[name], silent)
        write_pack(recipe(4), run, bases[name], pack, base_pack)
        found = read_pack(pack)
        assert found.base_name == base_pack
        assert found.preview
        assert found.descriptor.operations == (("sdr2hdr",) if name == "kl" else ("txt2hdr",))
        assert any(file.path.startswith("vae/") for file in found.files) == (not base_pack)
        if not base_pack:
            assert loading.load_latenthdr(found).head.channels == 4
    assert read_pack(tmp_path / "latent-qwen-qwenlog-s").descriptor.resolve({})["width"] == 128
    with pytest.raises(BadParameter, match="draws with a pack of qwenlog; name it with --base-pack"):
        write_pack(recipe(4), tmp_path / "run-qwen", bases["qwen"], tmp_path / "x")


def test_what_cannot_be_trained_or_written_is_refused(folder: Path, bases: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is missing; train first"):
        write_pack(recipe(1), tmp_path / "none", bases["kl"], tmp_path / "x")
    with pytest.raises(BadParameter, match="no configuration 'huge'; there are: s"):
        start(Recipe("huge", 32, Schedule(), {}), folder, bases["kl"])
    train_head(recipe(4), folder, tmp_path / "run", bases["kl"], silent)
    (tmp_path / "run" / "best.safetensors").write_bytes((tmp_path / "run" / "checkpoint.safetensors").read_bytes())
    with pytest.raises(BadInput, match="is no head for this base"):
        best_head(recipe(1), tmp_path / "run", Backbone(bases["kl"]))


def test_the_gain_is_of_clipped_samples_alone() -> None:
    light = torch.full((1, 3, 2, 2), 0.1)
    light[..., 1] = 4.0
    plate = code_of(light.clamp(0, 1), 0.0)
    perfect, worse = code_of(light, GAIN_EV), code_of(light, GAIN_EV) + 0.01
    errors = clipped_errors(worse, plate, light, light.clamp(0, 1))
    assert errors.samples == 6
    own = float((code_of(torch.tensor(1.0), GAIN_EV) - code_of(torch.tensor(4.0), GAIN_EV)) ** 2)
    assert errors.gain_db == pytest.approx(10 * np.log10(own / 1e-4), abs=0.01)
    assert clipped_errors(perfect, plate, light, light.clamp(0, 1)).gain_db > 60
    assert np.isnan(clipped_errors(perfect, plate, light, torch.zeros_like(light)).gain_db)


def test_recipes_load_and_small_packs_stay_small() -> None:
    for size in ("s", "published"):
        assert load_recipe(f"latenthdr-head-{size}").config == size
