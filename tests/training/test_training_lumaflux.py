"""LumaFlux's training: pairs, the losses, both stages in a few steps, resume, leaving parts out, and the pack."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import OpenEXR
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from panoramas import panorama
from safetensors.torch import load_file

from hdrgen_server.colour.curves import CURVES
from hdrgen_server.packs.manifest import read_pack
from hdrgen_server.systems.gmodiff.refine.config import VAEConfig
from hdrgen_server.systems.lumaflux import operator, physical
from hdrgen_server.systems.lumaflux.config import CONFIGS, AdapterConfig, EncoderConfig, FluxConfig, LumaFluxConfig
from hdrgen_server.training import lumaflux, lumaflux_pack, pairs
from hdrgen_server.training.loop import Schedule
from hdrgen_server.training.lumaflux import Choice, LumaFluxTask, Weights, light_terms, start, train_lumaflux
from hdrgen_server.training.recipe import Recipe, load_recipe
from hdrgen_server.training.tone_mapping import OPERATORS
from nuke_hdrgen.wire.errors import BadInput, BadParameter

TINY = LumaFluxConfig(
    FluxConfig(16, 1, 1, 2, 16, 24, 12, guidance_embeds=False, axes_dims_rope=(4, 6, 6)),
    VAEConfig((8, 16), layers_per_block=1, norm_num_groups=4, sample_size=32),
    EncoderConfig(16, 32, 1, 2, 16, 8),
    AdapterConfig(bottleneck=6),
    peak_nits=10_000.0,
)
WEIGHTS = {"velocity": 1.0, "luma": 1.0, "rgb": 0.5, "smooth": 0.1, "stops": 0.1, "every": 1.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("panoramas")
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    for seed, name in enumerate(("studio", "lebombo")):
        OpenEXR.File(header, {"RGB": panorama(seed)}).write(str(path / f"{name}.exr"))
    return path


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("base") / "vae-s"
    AutoencoderKL(**TINY.vae_arguments()).save_pretrained(path)
    return path


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, same_process: None) -> None:
    for module in (lumaflux, operator):
        monkeypatch.setattr(module, "CONFIGS", MappingProxyType({"s": TINY}))
    monkeypatch.setattr(pairs, "HELD_OUT_SIDE", 32)
    monkeypatch.setattr(lumaflux, "HELD_OUT_STEPS", 2)


def recipe(steps: int, **weights: float) -> Recipe:
    schedule = Schedule(steps=steps, batch=2, warmup=1, rate=3e-3, average=0.5, validate_every=3, checkpoint_every=3)
    return Recipe("s", 32, schedule, {**WEIGHTS, **weights})


def silent(text: str) -> None:
    del text


def run(stage: str, folder: Path, target: Path, base: Path, steps: int = 3, **chosen: Any) -> dict[str, torch.Tensor]:
    train_lumaflux(recipe(steps), folder, target, base, silent, choice=Choice(stage, **chosen))
    return load_file(target / "average.safetensors")


@pytest.fixture(scope="module")
def backbone(folder: Path, vae: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of a few steps of the backbone stage, which the adapters' stage starts from."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (lumaflux, operator):
            patch.setattr(module, "CONFIGS", MappingProxyType({"s": TINY}))
        patch.setattr(pairs, "HELD_OUT_SIDE", 32)
        target = tmp_path_factory.mktemp("run")
        task = recipe(3)
        torch.manual_seed(task.schedule.seed)
        model = start(task, "backbone", vae)
        loop_task = LumaFluxTask(model, pairs.PairSource(folder, 32, TINY.peak_nits), Weights(**WEIGHTS), "backbone")
        before = {name: tensor.clone() for name, tensor in loop_task.model.state_dict().items()}
        patch.setattr("hdrgen_server.training.loop._batches", batches)
        train_lumaflux(task, folder, target, vae, silent, choice=Choice("backbone"))
        after = load_file(target / "average.safetensors")
        trained = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
        assert {name.split(".")[0] for name in trained} == {"transformer", "encoder", "adapters"}
        assert {n.split(".")[1] for n in trained if n.startswith("adapters.")} <= {
            "ctx_connector", "null_context", "null_pooled", "pooled_from_stats",
        }  # fmt: skip
        pack = tmp_path_factory.mktemp("packs") / "backbone"
        lumaflux_pack.write_pack(task, Choice("backbone"), target, vae, pack)
    return pack


def batches(draw: Any, first: int) -> Any:
    step = first
    while True:
        yield draw(step)
        step += 1


def test_pairs_are_the_same_light_in_two_codings(folder: Path) -> None:
    source = pairs.PairSource(folder, 48, 10_000.0, operators=("hard_clip_gm",), crfs=(1,))
    batch = source(np.random.default_rng(1), 3)
    assert batch.sdr.shape == batch.hdr.shape == (3, 3, 48, 48)
    again = source(np.random.default_rng(1), 3)
    assert torch.equal(batch.sdr, again.sdr)
    assert torch.equal(batch.hdr, again.hdr)
    light = CURVES["pq"].decode(batch.hdr).mean(dim=1).numpy()
    codes = batch.sdr.mean(dim=1).numpy()
    order = np.corrcoef(np.argsort(np.argsort(light.flatten())), np.argsort(np.argsort(codes.flatten())))[0, 1]
    assert order > 0.95
    assert 0 <= float(batch.sdr.min()) <= float(batch.sdr.max()) <= 1


def test_a_panoramas_light_is_brought_to_where_its_sdr_shows_mid_grey(folder: Path) -> None:
    light = np.random.default_rng(4).uniform(0.02, 0.9, (32, 32, 3)).astype(np.float32)
    codes = light ** np.float32(1 / 2.4)
    assert pairs.as_shown(3 * light, codes) == pytest.approx(light, rel=2e-2)
    source = pairs.PairSource(folder, 48, 10_000.0, operators=("hard_clip_gm",), crfs=(1,))
    batch = source(np.random.default_rng(6), 2)
    known = batch.sdr.amax(dim=1) < 0.9
    shown = physical.luma_of(physical.display_light(batch.sdr))[:, 0][known]
    found = physical.luma_of(CURVES["pq"].decode(batch.hdr))[:, 0][known]
    near = (shown > 0.09) & (shown < 0.36)
    assert near.any()
    assert float((found[near] / shown[near]).log2().mean()) == pytest.approx(0, abs=0.05)


def test_varied_light_keeps_mid_grey_and_differs_in_contrast_and_balance() -> None:
    grey = np.full((2, 2, 3), 0.18, np.float32)
    ratios = [float(np.log2(pairs.varied(grey * 4, np.random.default_rng(seed)) / grey).mean()) for seed in range(40)]
    assert np.mean(ratios) == pytest.approx(2, abs=0.25)
    assert np.std(ratios) > 0.2
    made = pairs.varied(grey, np.random.default_rng(1))
    assert made == pytest.approx(grey, rel=0.5)
    assert np.ptp(made[0, 0]) > 0.001
    black = np.zeros((1, 1, 3), np.float32)
    assert np.array_equal(pairs.varied(black, np.random.default_rng(2)), black)


def test_held_out_pairs_are_made_as_training_is(folder: Path) -> None:
    found = pairs.held_out_pairs(folder, 1000.0, curves=True)
    assert len(found) == pairs.HELD_OUT_EACH  # one of the two panoramas is held out
    plain = pairs.held_out_pairs(folder, 1000.0)
    same = [torch.equal(a.sdr, b.sdr) for a, b in zip(found, plain, strict=True)]
    assert not any(same[1::2])


def test_a_share_of_pictures_comes_by_random_curves(folder: Path) -> None:
    source = pairs.PairSource(folder, 32, 10_000.0, operators=("youtube_logc",), curves=1.0)
    flat = pairs.PairSource(folder, 32, 10_000.0, operators=("youtube_logc",))
    assert float(source(np.random.default_rng(3), 2).sdr.std()) > float(flat(np.random.default_rng(3), 2).sdr.std())


def test_what_a_peak_cannot_hold_is_counted() -> None:
    light = np.array([[[0.5, 0.5, 0.5], [20, 20, 20], [-1, 0.5, 0.5]]], np.float32)
    codes, held = pairs.pq_codes(light, 1000.0)
    assert held == 4  # three of the bright pixel, and red of the one outside BT.2020
    assert codes.max() == pytest.approx(0.7518, abs=1e-4)
    assert codes[0, 0] == pytest.approx(float(CURVES["pq"].encode(0.5)), abs=1e-5)


def test_frames_of_a_corpus_are_cropped_and_small_ones_reflected(tmp_path: Path) -> None:
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    light = panorama(3)[:40, :70]
    OpenEXR.File(header, {"RGB": np.ascontiguousarray(light)}).write(str(tmp_path / "a.exr"))
    for side in (32, 64):
        batch = pairs.PairSource(tmp_path, side, 10_000.0, "stills")(np.random.default_rng(2), 2)
        assert batch.hdr.shape == (2, 3, side, side)
    with pytest.raises(BadParameter, match="there is no layout"):
        pairs.PairSource(tmp_path, 32, 1000.0, "nowhere")(np.random.default_rng(0), 1)


def test_losses_are_those_of_the_document_by_hand() -> None:
    made, truth = (torch.full((1, 3, 2, 2), float(CURVES["pq"].encode(light))) for light in (2.0, 1.0))
    made[:, 2] = truth[:, 2]
    terms = light_terms(made, truth, replace(TINY, peak_nits=1000.0))
    assert float(terms["rgb"]) == pytest.approx(2 / 3 / 10, rel=1e-3)
    assert float(terms["luma"]) == pytest.approx((0.2627 + 0.6780) / 10, rel=1e-3)
    assert float(terms["stops"]) == pytest.approx(2 / 3 * np.log2(2.002 / 1.002), rel=1e-3)


def test_adapters_learn_on_a_frozen_backbone_and_resume_bit_for_bit(folder: Path, backbone: Path, tmp_path: Path):
    frozen = load_file(backbone / "transformer" / "diffusion_pytorch_model.safetensors")
    whole = run("adapters", folder, tmp_path / "whole", backbone, steps=6)
    run("adapters", folder, tmp_path / "parts", backbone, steps=3)
    train_lumaflux(recipe(6), folder, tmp_path / "parts", backbone, silent, choice=Choice("adapters"))
    parts = load_file(tmp_path / "parts" / "average.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in whole.values())
    assert parts.keys() == whole.keys() == lumaflux.Adapters(TINY).state_dict().keys()
    moved = [name for name in whole if "pga.up" in name or "coupler.w_p.2" in name or name == "rqs.head.4.weight"]
    assert all(whole[name].abs().sum() > 0 for name in moved)
    model = lumaflux.best_model(recipe(6), "adapters", tmp_path / "whole", backbone)
    for name, tensor in model.steered.transformer.state_dict().items():
        assert torch.equal(tensor, frozen[name].float()), name


def test_a_frozen_backbone_in_bfloat16_trains_adapters_in_float32(folder: Path, backbone: Path) -> None:
    """As the published training does, in mixed precision, with blocks made again in the backward pass."""
    torch.manual_seed(1)
    model = start(recipe(1), "adapters", backbone, dtype=torch.bfloat16)
    model.steered.transformer.enable_gradient_checkpointing()
    source = pairs.PairSource(folder, 32, TINY.peak_nits)
    task = LumaFluxTask(model, source, Weights(**WEIGHTS))
    task.to(torch.device("cpu"))
    with torch.autocast("cpu", torch.bfloat16):
        loss, figures = task.loss(source(np.random.default_rng(0), 2))
    loss.backward()
    assert loss.isfinite()
    assert set(figures) == {"velocity", "luma", "rgb", "stops", "smooth", "held"}
    moved = {name: p.grad for name, p in model.adapters.named_parameters() if p.grad is not None and p.grad.any()}
    assert {"transformer.transformer_blocks.0.pga.up.weight", "rqs.head.4.bias", "modulation.head.weight"} <= set(moved)
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in moved.values())


def test_parts_and_operators_can_be_left_out(folder: Path, backbone: Path, tmp_path: Path) -> None:
    without = lumaflux.modules_without("pcm,rqs")
    operators = lumaflux.operators_without("reinhard")
    state = run("adapters", folder, tmp_path / "run", backbone, without=without, operators=operators)
    assert not any(tensor.abs().any() for name, tensor in state.items() if "pcm.mlp.2" in name)
    assert not state["rqs.head.4.weight"].any()
    assert any(tensor.abs().any() for name, tensor in state.items() if "coupler.w_p.2" in name)
    assert len(operators) == 7
    alone = pairs.held_out_pairs(folder, 1000.0, operators=("reinhard",))
    seven, every = (pairs.held_out_pairs(folder, 1000.0, names) for names in (operators, tuple(OPERATORS)))
    assert all(torch.equal(one.sdr, other.sdr) for one, other in zip(seven, every, strict=True))  # the first in turn
    assert not any(torch.equal(one.sdr, other.sdr) for one, other in zip(seven, alone, strict=True))
    choice = Choice(without=without, operators=operators)
    lumaflux_pack.write_pack(recipe(3), choice, tmp_path / "run", backbone, tmp_path / "pack")
    pack = read_pack(tmp_path / "pack")
    assert pack.options == {"config": "s", "without": ["pcm", "rqs"], "without_operators": ["reinhard"]}
    assert operator.create(pack, "cpu").model.adapters.without == without
    for wrong in (lambda: lumaflux.modules_without("lora"), lambda: lumaflux.operators_without("lora")):
        with pytest.raises(BadParameter, match=r"there is no .* 'lora'"):
            wrong()


def test_a_run_becomes_a_pack_that_runs(folder: Path, backbone: Path, tmp_path: Path) -> None:
    run("adapters", folder, tmp_path / "run", backbone)
    lumaflux_pack.write_pack(recipe(3), Choice(), tmp_path / "run", backbone, tmp_path / "lumaflux-tiny")
    pack = read_pack(tmp_path / "lumaflux-tiny")
    assert (pack.name, pack.system, pack.preview, pack.must_accept) == ("lumaflux-tiny", "lumaflux", True, False)
    loaded = operator.create(pack, "cpu").model
    best = load_file(tmp_path / "run" / "best.safetensors")
    for name, tensor in loaded.adapters.state_dict().items():
        assert torch.equal(tensor, best[name].half().float()), name
    with pytest.raises(BadInput, match=r"is missing; train first"):
        lumaflux_pack.write_pack(recipe(3), Choice(), tmp_path / "none", backbone, tmp_path / "x")


def test_the_published_recipe_has_the_released_numbers() -> None:
    """configs/train/main.yaml of the released code, commit c292787."""
    published = load_recipe("lumaflux-adapters-published")
    schedule = published.schedule
    assert (published.config, published.crop) == ("published", 512)
    assert (schedule.steps, schedule.batch, schedule.rate, schedule.warmup) == (100_000, 16, 2e-4, 5000)
    assert (schedule.weight_decay, schedule.clip_norm, schedule.final_rate) == (0.01, 1.0, 0.0)
    assert Weights(**published.weights) == Weights(1.0, 1.0, 0.5, 0.1, 0.0, 4.0)
    for name in ("lumaflux-backbone-s", "lumaflux-adapters-s"):
        small = load_recipe(name)
        assert small.config in CONFIGS
        Weights(**small.weights)
        assert set(small.pictures) <= {"curves"}


def test_size_s_fits_its_pack() -> None:
    """16 MB in half precision, the autoencoder included."""
    config = CONFIGS["s"]
    with torch.device("meta"):
        networks = [
            lumaflux.FluxTransformer2DModel(**config.flux.arguments()),
            AutoencoderKL(**config.vae_arguments()),
            lumaflux.SiglipVisionModel(lumaflux.SiglipVisionConfig(**config.encoder.arguments())),
            lumaflux.Adapters(config),
        ]
    assert 2 * sum(p.numel() for network in networks for p in network.parameters()) < 16e6
