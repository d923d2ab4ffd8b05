"""Training of both Qwen systems: sources, every stage in a few steps, resume, what is trained, and the packs."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import OpenEXR
import pytest
import torch
from panoramas import panorama
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn import functional as F

from hdrgen_server.packs.manifest import read_pack
from hdrgen_server.systems.qwenlinear import operator as linear_operator
from hdrgen_server.systems.qwenlinear.config import CONFIGS as LINEAR_CONFIGS
from hdrgen_server.systems.qwenlinear.config import LinearConfig
from hdrgen_server.systems.qwenlog import operator as log_operator
from hdrgen_server.systems.qwenlog import stills, text
from hdrgen_server.systems.qwenlog.config import CONFIGS, S_FLOW, QwenConfig, TransformerConfig, VAEConfig, widened
from hdrgen_server.training import captioned, captions, drawn, qwen, qwen_pack, qwen_vae
from hdrgen_server.training.captioned import CaptionSource
from hdrgen_server.training.devices import Devices
from hdrgen_server.training.drawn import KINDS, Place
from hdrgen_server.training.loop import Schedule
from hdrgen_server.training.recipe import Recipe, load_recipe
from nuke_hdrgen.wire.errors import BadInput, BadParameter

WORDS = 8
TINY = QwenConfig(
    TransformerConfig(4, 2, 2, 16, WORDS, (4, 6, 6)),
    VAEConfig(12, 4, (1, 2, 2, 2), 1, (0.0,) * 4, (1.0,) * 4),
    replace(CONFIGS["s"].text, width=WORDS),
    S_FLOW,
    128,
)
WIDE = LinearConfig(widened(TINY, 8, 6), TINY, 0.05)
VAE_WEIGHTS = {"code": 1.0, "stops": 0.5, "gradient": 0.5, "divergence": 1e-5}
SYSTEMS = ("qwenlog", "qwenlinear")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("panoramas")
    for seed, name in enumerate(("studio_small_03", "lebombo")):
        write_exr(path / f"{name}.exr", panorama(seed))
    return path


def write_exr(path: Path, light: np.ndarray) -> None:
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {"RGB": np.ascontiguousarray(light, np.float32)}).write(str(path))


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, same_process: None) -> None:
    """Tiny networks, and a table of random vectors in the place of the text encoder's."""
    vocabulary = Tokenizer(models.WordLevel({"?": 0, "sunset": 1, "night": 2, "room": 3}, unk_token="?"))
    vocabulary.pre_tokenizer = pre_tokenizers.Whitespace()
    table = torch.randn(4, WORDS, generator=torch.Generator().manual_seed(1))

    class Words(text.StaticText):
        def encode(self, prompt: str) -> torch.Tensor:
            return super().encode(prompt.strip() or "?")

    encoder = Words(TINY.text, table, vocabulary)
    for module in (qwen_vae, log_operator):
        monkeypatch.setattr(module, "CONFIGS", MappingProxyType({"s": TINY}))
    monkeypatch.setattr(qwen_vae, "LINEAR_CONFIGS", MappingProxyType({"s": WIDE}))
    monkeypatch.setattr(qwen, "LINEAR_CONFIGS", MappingProxyType({"s": WIDE}))
    monkeypatch.setattr(linear_operator, "CONFIGS", MappingProxyType({"s": WIDE}))
    for module in ("training.qwen", "systems.qwenlog.loading", "systems.qwenlinear.loading"):
        monkeypatch.setattr(f"hdrgen_server.{module}.load_text", lambda config, folder, dtype: encoder)


def recipe(steps: int, weights: dict[str, float], rate: float = 3e-3) -> Recipe:
    schedule = Schedule(
        steps=steps, batch=4, warmup=2, rate=rate, average=0.5, validate_every=max(1, steps // 2), checkpoint_every=3
    )
    return Recipe("s", 32, schedule, weights)


def silent(said: str) -> None:
    del said


@pytest.fixture
def bases(folder: Path, tmp_path: Path) -> dict[str, Path]:
    """What stage vae leaves after a step, of both systems."""
    source = CaptionSource(folder, 32)
    for system in SYSTEMS:
        qwen_vae.train_vae(system, recipe(1, VAE_WEIGHTS), source, tmp_path / system, silent)
        target = tmp_path / f"{system}-vae"
        qwen_pack.write_vae(system, recipe(1, VAE_WEIGHTS), tmp_path / system, None, "logc3", source, target)
    return {system: tmp_path / f"{system}-vae" for system in SYSTEMS}


def test_drawn_places_have_the_light_that_their_words_promise():
    peaks: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for kind in KINDS:
        for seed in range(6):
            light = drawn.draw(Place.random(np.random.default_rng(seed), kind), drawn.equirectangular(64))
            assert light.shape == (64, 128, 3)
            assert np.isfinite(light).all()
            assert light.min() >= 0
            peaks[kind].append(float(light.max()))
    assert min(peaks["sunset"] + peaks["noon"]) > 100
    assert max(peaks["overcast"]) < 8 * 0.18
    for kind in ("night", "interior", "studio"):
        assert min(peaks[kind]) > 20 * 0.18, kind
        assert max(peaks[kind]) < 120, "no lamp lights another"
    assert len({round(p, 3) for p in peaks["street"]}) == 6


def test_a_drawn_panorama_has_no_seam_and_a_view_is_part_of_it():
    place = Place.random(np.random.default_rng(3), "forest")
    wide = drawn.draw(place, drawn.equirectangular(96))
    inside = np.abs(np.diff(wide, axis=1)).mean()
    assert np.abs(wide[:, 0] - wide[:, -1]).mean() < 2 * inside
    middle = drawn.perspective(33, 0.0, 0.0, 0.02)
    np.testing.assert_allclose(middle[16, 16], [0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(
        drawn.perspective(3, np.pi / 2, 0.3, 1.0)[1, 1], [np.cos(0.3), np.sin(0.3), 0], atol=1e-6
    )


def test_sentences_say_the_kind_and_some_words_are_never_trained():
    rng = np.random.default_rng(1)
    said: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for _ in range(800):
        place = Place.random(rng)
        said[place.kind].add(captions.sentence(place, rng))
    assert all(len(sentences) > 8 for sentences in said.values())
    assert len(set.union(*said.values())) == sum(map(len, said.values())), "no sentence stands for two kinds"
    assert any("water" in sentence for sentence in said["sunset"])
    held = [captions.is_held_out(Place.random(rng)) for _ in range(2000)]
    assert 0.05 < np.mean(held) < 0.25
    assert captions.called("venice_sunset") == "a sunset over water"
    assert captions.called("my_own_place") == "my own place"


def test_batches_are_light_with_sentences(folder):
    source = pickle.loads(pickle.dumps(CaptionSource(folder, 32)))
    shapes = set()
    for seed in range(12):
        batch = source(np.random.default_rng(seed), 4)
        shapes.add((tuple(batch.light.shape), batch.panorama))
        assert len(batch.prompts) == len(batch.light)
        assert batch.light.max() <= captioned.PEAK
    assert shapes == {((4, 3, 32, 32), False), ((2, 3, 32, 64), True)}
    first, second = (source(np.random.default_rng(5), 4) for _ in range(2))
    assert torch.equal(first.light, second.light)
    assert first.prompts == second.prompts
    kept = captioned.held_out(source)
    assert sum(len(batch.light) for batch in kept) == 18
    assert "an interior with windows" in kept[0].prompts


def test_a_view_mostly_shows_what_its_words_say():
    rng = np.random.default_rng(4)
    for kind, peak in (("sunset", 100), ("noon", 100), ("interior", 20 * 0.18), ("studio", 20 * 0.18)):
        views = [captioned.seen(rng, Place.random(rng, kind), 48, panorama=False) for _ in range(30)]
        assert np.mean([view.max() > peak for view in views]) > 0.6, kind


def test_a_folder_of_exrs_with_sentences_is_a_source(tmp_path):
    for number, shape in enumerate(((40, 60, 3), (40, 60, 3), (32, 64, 3))):
        light = np.random.default_rng(number).uniform(0, 9, shape)
        light[0, 0] = (np.nan, -1, 5000)
        write_exr(tmp_path / f"{number}.exr", light)
        (tmp_path / f"{number}.txt").write_text(f"picture {number}\n", encoding="utf-8")
    source = CaptionSource(tmp_path, 32, "captioned")
    batches = [source(np.random.default_rng(seed), 2) for seed in range(8)]
    assert {(batch.panorama, batch.prompts[0]) for batch in batches} == {(False, "picture 1"), (True, "picture 2")}
    assert any(batch.held for batch in batches), "what is brought down is counted"
    assert all(batch.light.isfinite().all() and batch.light.min() >= 0 for batch in batches)
    kept = captioned.held_out(source)
    assert [batch.prompts for batch in kept] == [("picture 0",)], "no training sees it"
    (tmp_path / "1.txt").unlink()
    other = tmp_path.rename(tmp_path.with_name("other"))
    with pytest.raises(BadInput, match=r"1.exr has no readable 1.txt beside it"):
        CaptionSource(other, 32, "captioned")(np.random.default_rng(0), 2)
    with pytest.raises(BadInput, match="has 0 EXRs, training needs two or more"):
        CaptionSource(tmp_path / "none", 32, "captioned")(np.random.default_rng(0), 2)
    with pytest.raises(BadParameter, match="no layout 'x'"):
        CaptionSource(tmp_path, 32, "x")


def test_a_vae_starts_as_block_means():
    config = WIDE.qwen
    torch.manual_seed(0)
    vae = qwen_vae._new(config, (0, 1, 2, 4, 5, 6))
    picture = torch.rand(1, 6, 32, 32).sub(0.5).mul(3)
    smooth = F.interpolate(F.avg_pool2d(picture, 16), (32, 32), mode="bilinear")
    with torch.inference_mode():
        mean, log_variance = stills.encode(vae, smooth)
        found = stills.decode(vae, mean)
    torch.testing.assert_close(mean[:, :3], F.avg_pool2d(smooth, 8)[:, :3], rtol=0, atol=0.15)
    torch.testing.assert_close(mean[:, 4:7], F.avg_pool2d(smooth, 8)[:, 3:], rtol=0, atol=0.15)
    torch.testing.assert_close(log_variance, torch.full_like(mean, -5.0))
    assert (found - smooth).abs().mean() < 0.25 * smooth.std()


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_short_run_of_the_vae_lowers_the_held_out_error(system, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(qwen_vae, "start_linear", lambda vae, latents: None)  # the start is better than a short run
    source = CaptionSource(folder, 32)
    task = qwen_vae.VAETask(
        qwen_vae.start_vae(system, recipe(1, VAE_WEIGHTS), None, "logc4", source),
        source,
        qwen_vae.Weights(**VAE_WEIGHTS),
    )
    with torch.inference_mode():
        before = task.validate(task.model)
    position = qwen_vae.train_vae(system, recipe(40, VAE_WEIGHTS), source, tmp_path, silent)
    assert position.best < 0.9 * before["error"], (position.best, before)
    assert ("cut" in before) == (system == "qwenlinear")


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_short_run_of_the_backbone_lowers_it_and_the_pack_draws(system, folder, bases, tmp_path):
    source = CaptionSource(folder, 32)
    small = recipe(30, {"bright": 0.2}, rate=1e-2)
    task = qwen.start(system, small, "backbone", bases[system], source)
    with torch.inference_mode():
        before = task.validate(task.model)["error"]
    run = tmp_path / "backbone"
    position = qwen.train_qwen(system, small, "backbone", source, run, bases[system], silent)
    assert position.best < 0.9 * before
    pack = tmp_path / "tiny-pack"
    qwen_pack.write_pack(system, small, "backbone", run, bases[system], source, pack)
    found = read_pack(pack)
    assert found.system == system
    assert found.preview
    assert found.descriptor.resolve({})["width"] == 32
    assert not any(path.is_symlink() for path in pack.rglob("*"))
    if system == "qwenlog":
        assert found.options == {"config": "s", "curve": "logc3", "primaries": "rec709"}
    operator = (log_operator if system == "qwenlog" else linear_operator).create(found, "cpu")
    assert operator.model.config.transformer.layers == 2


@pytest.mark.parametrize("system", SYSTEMS)
def test_an_adapter_trains_alone_and_is_linked_to_its_base(system, folder, bases, tmp_path):
    source, steps = CaptionSource(folder, 32), recipe(3, {"rank": 2})
    whole = tmp_path / "whole"
    qwen.train_qwen(system, recipe(2, {}), "backbone", source, tmp_path / "b", bases[system], silent)
    qwen_pack.write_pack(system, recipe(2, {}), "backbone", tmp_path / "b", bases[system], source, whole)
    task = qwen.start(system, steps, "lora", whole, source)
    names = set(task.model.named())
    adapted = {name.split(".")[3] for name in names if ".lora_" in name}
    assert adapted == set(qwen.QKV)
    rest = {name for name in names if ".lora_" not in name}
    assert rest == (
        {"img_in.weight", "img_in.bias", "proj_out.weight", "proj_out.bias"} if system == "qwenlinear" else set()
    )
    run = tmp_path / "lora"
    qwen.train_qwen(system, steps, "lora", source, run, whole, silent)
    pack = tmp_path / "adapted"
    qwen_pack.write_pack(system, steps, "lora", run, whole, source, pack)
    state = load_file(pack / "lora.safetensors")
    assert all(name.startswith("transformer.transformer_blocks.") for name in state)
    assert any(tensor.any() for name, tensor in state.items() if "lora_B" in name)
    assert (pack / "transformer" / "config.json").is_symlink()
    assert (pack / "widened.safetensors").exists() == (system == "qwenlinear")
    operator = (log_operator if system == "qwenlog" else linear_operator).create(read_pack(pack), "cpu")
    if system == "qwenlinear":
        assert operator.model.transformer.img_in.weight.shape[1] == 32
    trained = qwen.best_task(system, steps, "lora", run, whole, source).qwen
    latents = torch.randn(1, operator.model.config.vae.latent_channels, 4, 4)
    with torch.inference_mode():
        found, wanted = (
            m.velocity(latents, torch.tensor([0.5]), torch.ones(1, 2, WORDS)) for m in (operator.model, trained)
        )
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def test_a_base_transformer_is_widened_to_train_on(folder, bases, tmp_path):
    source = CaptionSource(folder, 32)
    qwen.train_qwen("qwenlog", recipe(1, {}), "backbone", source, tmp_path / "b", bases["qwenlog"], silent)
    qwen_pack.write_pack("qwenlog", recipe(1, {}), "backbone", tmp_path / "b", bases["qwenlog"], source, tmp_path / "p")
    qwen_pack.link(tmp_path / "p", bases["qwenlinear"])
    for way, silent_rows in (("halved", False), ("zero", True)):
        task = qwen.start("qwenlinear", recipe(1, {"rank": 2}), "lora", bases["qwenlinear"], source, way=way)
        network = task.qwen.transformer
        assert network.img_in.weight.shape == (32, 32)
        assert bool(network.proj_out.weight[16:].any()) != silent_rows
    with pytest.raises(BadParameter, match="no way 'x' of widening"):
        qwen.start("qwenlinear", recipe(1, {}), "lora", bases["qwenlinear"], source, way="x")


@pytest.mark.parametrize("system", SYSTEMS)
def test_an_adapter_of_half_precision_weights_stays_whole(system, folder, bases, tmp_path):
    source, steps = CaptionSource(folder, 32), recipe(2, {"rank": 2})
    qwen.train_qwen(system, recipe(1, {}), "backbone", source, tmp_path / "b", bases[system], silent)
    whole = tmp_path / "whole"
    qwen_pack.write_pack(system, recipe(1, {}), "backbone", tmp_path / "b", bases[system], source, whole)
    task = qwen.start(system, steps, "lora", whole, source, torch.bfloat16)
    assert {parameter.dtype for parameter in task.model.parameters()} == {torch.float32}
    assert torch.bfloat16 in {parameter.dtype for parameter in task.qwen.transformer.parameters()}
    half = Devices(torch.device("cpu"), "bf16")
    position = qwen.train_qwen(system, steps, "lora", source, tmp_path / "lora", whole, silent, half)
    assert position.step == 2
    assert np.isfinite(position.best)


def test_a_run_that_was_interrupted_goes_on_where_it_stopped(folder, bases, tmp_path):
    source = CaptionSource(folder, 32)

    def weights(run: Path, *stops: int) -> dict[str, torch.Tensor]:
        for steps in stops:
            whole = replace(recipe(4, {}), schedule=replace(recipe(4, {}).schedule, steps=steps, final_rate=1.0))
            qwen.train_qwen("qwenlog", whole, "backbone", source, run, bases["qwenlog"], silent)
        return load_file(run / "average.safetensors")

    once, twice = weights(tmp_path / "once", 4), weights(tmp_path / "twice", 2, 4)
    for name, tensor in once.items():
        torch.testing.assert_close(twice[name], tensor, rtol=1e-5, atol=1e-6)


def test_a_pool_of_batches_is_encoded_once(folder, bases, monkeypatch):
    pooled = replace(recipe(1, {}), pictures={"pool": 3})
    task = qwen.start("qwenlog", pooled, "backbone", bases["qwenlog"], CaptionSource(folder, 32))
    encode, seen = task.qwen.encode, list[torch.Tensor]()
    monkeypatch.setattr(task.qwen, "encode", lambda picture: seen.append(picture) or encode(picture))
    batches = [task.source(np.random.default_rng(seed), 2) for seed in range(12)]
    assert {batch.number for batch in batches} == {0, 1, 2}
    for batch in batches:
        torch.testing.assert_close(task._latents(batch)[0], task._encode(replace(batch))[0])
    assert len(seen) == 3 + len(batches)
    assert all(batch.number == -1 for batch in task.held_out)


def test_bright_light_counts_more(folder, bases):
    source = CaptionSource(folder, 32)
    task = qwen.start("qwenlinear", recipe(1, {"bright": 0.5}), "backbone", bases["qwenlinear"], source)
    light = torch.full((1, 3, 32, 32), 0.2)
    light[..., :8, :8] = 64.0
    _, weight = task._latents(captioned.Captioned(light, ("a",), panorama=False))
    assert weight.mean() == pytest.approx(1)
    assert weight[0, 0, 0, 0] / weight[0, 0, 1, 1] == pytest.approx(1 + 0.5 * 6, rel=0.02)


def test_recipes_have_the_documents_numbers():
    found = load_recipe("qwenlinear-lora-published")
    assert found.weights["rank"] == 64
    assert found.weights["bright"] > 0
    for name in ("vae", "backbone", "lora"):
        for system in SYSTEMS:
            assert load_recipe(f"{system}-{name}-s").config == "s"
    assert set(qwen.QKV) == {"to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj"}
    assert LINEAR_CONFIGS["published"].qwen.vae.latent_channels == 32


def test_refusals_name_what_to_do(folder, bases, tmp_path):
    source = CaptionSource(folder, 32)
    with pytest.raises(BadInput, match=r"best.safetensors is missing; train first"):
        qwen_vae.best_vae("qwenlog", recipe(1, {}), tmp_path, "logc4")
    with pytest.raises(BadInput, match=r"best.safetensors is missing; train first"):
        qwen.best_task("qwenlog", recipe(1, {}), "backbone", tmp_path, bases["qwenlog"], source)
    with pytest.raises(BadParameter, match="no stage 'x'"):
        qwen.start("qwenlog", recipe(1, {}), "x", bases["qwenlog"], source)
    with pytest.raises(BadParameter, match="no curve 'log' for log codes"):
        qwen_vae.start_vae("qwenlog", recipe(1, {}), None, "log", source)
    with pytest.raises(BadParameter, match="no configuration 'huge'"):
        qwen_vae.config_of("qwenlog", replace(recipe(1, {}), config="huge"))
