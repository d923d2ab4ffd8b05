"""The refiner's training: the published numbers, a short run that lowers the held-out error, resuming, a pack."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
import torch
from safetensors.torch import load_file, save_file

from hdrgen_server.packs.manifest import read_pack
from hdrgen_server.packs.verify import verify
from hdrgen_server.systems.gmodiff import config as regressors
from hdrgen_server.systems.gmodiff.config import RegressorConfig
from hdrgen_server.systems.gmodiff.refine import config as refiners
from hdrgen_server.systems.gmodiff.refine.adversary import Discriminator, deceive, discern
from hdrgen_server.systems.gmodiff.refine.config import LoraRanks, RefinerConfig, UNetConfig, VAEConfig
from hdrgen_server.systems.gmodiff.refine.lora import add_lora
from hdrgen_server.systems.gmodiff.refine.model import Refiner
from hdrgen_server.systems.gmodiff.regressor import Regressor
from hdrgen_server.training import gmodiff, gmodiff_pack, gmodiff_refine
from hdrgen_server.training.gmodiff import BracketSource, parse_group
from hdrgen_server.training.gmodiff_refine import (
    RefineTask,
    RefineWeights,
    freeze,
    load_regressors,
    start,
    train_refiner,
)
from hdrgen_server.training.loop import Schedule, train
from hdrgen_server.training.recipe import Recipe, load_recipe
from nuke_hdrgen.wire.errors import BadInput, BadParameter
from tests.training.panoramas import panorama

torch.set_num_threads(1)
REGRESSOR = RegressorConfig(
    "set", (8, 12), (1, 1), (1, 1), (2,), channel_attention=False, mask_width=8, embedding=8, headroom_stops=3.0
)
VAE = VAEConfig((8, 16), layers_per_block=1, norm_num_groups=4, scaling_factor=1.0, sample_size=32)
UNET = UNetConfig(
    (8, 16), (False, True), layers_per_block=1, heads=(1, 2), cross_attention_dim=16, norm_num_groups=4, sample_size=16
)
TINY = RefinerConfig(
    VAE,
    UNET,
    refiners.Schedule(99),
    regressor="tiny",
    lora=LoraRanks(0, 4, 4, 4),
    token=4,
    merge="masked",
    mask_range=(0.3, 0.5),
)
QUICK = Schedule(steps=24, rate=5e-3, warmup=2, batch=2, average=0.8, validate_every=8, checkpoint_every=100)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("panoramas")
    for seed, name in enumerate(("studio", "harbour", "lebombo")):
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        OpenEXR.File(header, {"RGB": panorama(seed)}).write(str(path / f"{name}.exr"))
    return path


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(regressors.CONFIGS, "tiny", REGRESSOR)
    for module in (refiners, gmodiff_refine, gmodiff_pack):
        monkeypatch.setattr(module, "REFINERS", {**refiners.REFINERS, "tiny": TINY, "s": TINY})
    monkeypatch.setattr(gmodiff, "HELD_OUT_EACH", 1)


def regressor(seed: int = 0) -> Regressor:
    """Another regressor for each seed but 0, which is as built."""
    torch.manual_seed(seed)
    made = Regressor(REGRESSOR)
    with torch.no_grad():
        for parameter in made.parameters() if seed else ():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return made


def task(folder: Path, weights: RefineWeights, count: int = 1) -> RefineTask:
    torch.manual_seed(1)
    refiner = Refiner(TINY)
    torch.nn.init.zeros_(refiner.unet.conv_out.weight)
    add_lora(refiner)
    return RefineTask(refiner, [regressor(i) for i in range(count)], BracketSource(folder, 48), weights)


def test_the_recipe_has_the_published_numbers() -> None:
    recipe, config = load_recipe("gmodiff-refine-sd21"), refiners.SD21_UNET
    schedule = recipe.schedule
    published = (300_000, 5e-5, 1e-10, 12)
    assert (schedule.steps, schedule.rate, schedule.weight_decay, schedule.batch) == published
    assert recipe.weights["adversarial"] == 1e-3
    assert recipe.weights["perceptual"] == 1e-2
    ranks = LoraRanks()
    assert (ranks.unet, ranks.vae, ranks.condition) == (16, 16, 16)
    assert config.cross_attention_dim == 1024
    assert RefineWeights(**recipe.weights).regression.mask == 0
    RefineWeights(**load_recipe("gmodiff-refine-s").weights)


def test_a_short_run_lowers_the_held_out_error(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    refiner = Refiner(TINY)
    torch.nn.init.zeros_(refiner.unet.conv_out.weight)
    trained = RefineTask(refiner, [regressor(5)], BracketSource(folder, 48), RefineWeights(square=10))
    before = trained.draft_figures()["error"]
    told: list[str] = []
    train(trained, replace(QUICK, steps=48, rate=1e-3, validate_every=16), tmp_path, told.append)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [16, 32, 48]
    assert rows[-1]["held_out"]["error"] < before - 0.2
    assert "starting at step 0" in told[0]


def test_a_resumed_run_is_the_unbroken_one(folder: Path, tmp_path: Path) -> None:
    weights = RefineWeights(adversarial=1e-3)
    short = replace(QUICK, steps=4, validate_every=100, warmup=1, final_rate=1.0)
    train(task(folder, weights, 3), short, tmp_path / "whole", lambda _: None)
    train(task(folder, weights, 3), replace(short, steps=2), tmp_path / "broken", lambda _: None)
    train(task(folder, weights, 3), short, tmp_path / "broken", lambda _: None)
    whole, broken = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "broken"))
    assert whole.keys() == broken.keys()
    assert any("discriminator" in name for name in whole)
    assert not any("decoder" in name for name in whole)
    assert all(torch.equal(whole[name], broken[name]) for name in whole)


def test_the_regressor_is_drawn_for_each_batch(folder: Path) -> None:
    drawn = task(folder, RefineWeights(), count=3)
    batch = drawn.source(np.random.default_rng(0), 1)
    losses: set[float] = set()
    for seed in range(8):
        torch.manual_seed(seed)
        losses.add(float(drawn.loss(batch)[0].detach()))
    assert len(losses) == 3


def test_only_what_stage_two_trains_has_gradients() -> None:
    refiner = Refiner(replace(TINY, lora=LoraRanks(4, 4, 4, 4)))
    add_lora(refiner)
    freeze(refiner)
    trained = {name for name, parameter in refiner.named_parameters() if parameter.requires_grad}
    heads = {"unet.conv_in.weight", "unet.conv_in.bias"}
    assert heads <= trained
    assert all("lora_" in n or n.startswith(("prior.", "blocks.")) for n in trained - heads)
    assert not any(n.startswith(("vae.decoder", "vae.post_quant")) for n in trained)
    assert {n.split(".")[0] for n in trained} == {"unet", "vae", "condition", "prior", "blocks"}


def test_the_adversary_moves_only_whom_it_should() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(8)
    made, truth = torch.rand(2, 3, 32, 32, requires_grad=True), torch.rand(2, 3, 32, 32)
    deceive(discriminator, made).backward()
    assert made.grad is not None
    assert made.grad.abs().sum() > 0
    assert all(p.grad is None for p in discriminator.parameters())
    made.grad = None
    before = discern(discriminator, made, truth)
    before.backward()
    assert made.grad is None
    with torch.no_grad():
        for parameter in discriminator.parameters():
            assert parameter.grad is not None
            parameter.sub_(0.01 * parameter.grad)
    assert discern(discriminator, made, truth) < before


def test_groups_part_the_scenes(folder: Path) -> None:
    assert parse_group("") == (1, 1)
    assert parse_group("2/3") == (2, 3)
    for wrong in ("0/3", "4/3", "x", "1/0"):
        with pytest.raises(BadParameter, match="must be K/N"):
            parse_group(wrong)
    rng = np.random.default_rng
    first, second = (BracketSource(folder, 32, group=(k, 2))(rng(0), 1).truth for k in (1, 2))
    assert not torch.equal(first, second)


def test_a_run_becomes_a_pack_and_its_refiner_comes_back(folder: Path, tmp_path: Path) -> None:
    base, weights, run = tmp_path / "vae", tmp_path / "regressor.safetensors", tmp_path / "run"
    torch.manual_seed(3)
    Refiner(TINY).vae.save_pretrained(base)
    save_file(regressor().state_dict(), weights)
    recipe = Recipe("tiny", 32, replace(QUICK, steps=2, validate_every=2), {"adversarial": 1e-3})
    with pytest.raises(BadInput, match="train first"):
        gmodiff_pack.write_refined_pack(recipe, run, base, weights, tmp_path / "none")
    train_refiner(recipe, folder, run, base, [weights], lambda _: None)
    gmodiff_pack.write_refined_pack(recipe, run, base, weights, tmp_path / "gmodiff-tiny")
    pack = read_pack(tmp_path / "gmodiff-tiny")
    assert not verify(pack)
    assert pack.options["refine"] == "tiny"
    assert pack.licence == "Apache-2.0"
    assert pack.descriptor.memory.fixed_mib < 9000  # what the full size takes is for packs of the full size
    names = {file.path for file in pack.files}
    assert {"regressor.safetensors", "refine.safetensors", "lora/vae.safetensors", "lora/condition.safetensors"} < names
    assert {"vae/config.json", "unet/config.json"} < names


def test_wrong_files_are_refused_by_name(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(BadInput, match=r"other\.safetensors.*not those of regressor tiny"):
        load_regressors("tiny", [tmp_path / "other.safetensors"])
    recipe = Recipe("tiny", 32, QUICK, {})
    with pytest.raises(BadInput, match=r"config\.json cannot be read"):
        start(recipe, tmp_path)
