"""LumiVid's training: cameras, degradations, levels, and every stage on tiny networks."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import OpenEXR
import pytest
import torch
from panoramas import panorama
from safetensors.torch import save_file

from hdrgen_server.networks import weight_files
from hdrgen_server.packs.manifest import read_pack
from hdrgen_server.systems.lumivid import loading
from hdrgen_server.systems.lumivid.codes import TRANSFORMS
from hdrgen_server.training import clips, lumivid
from hdrgen_server.training.camera import TABLE_5, Degradations, blurred_ends, contrasted, degraded
from hdrgen_server.training.clips import ClipSource, batch_of, cropped, held_out_clips, path, turned
from hdrgen_server.training.degradations import clip_through_x264, through_x264
from hdrgen_server.training.hdr_sources import hdr_files, shots
from hdrgen_server.training.loop import Schedule
from hdrgen_server.training.lumivid_pack import write_pack, write_vae
from hdrgen_server.training.recipe import Recipe, load_recipe
from hdrgen_server.training.scenes import HELD_OUT, Scene
from hdrgen_server.training.views import View
from nuke_hdrgen.wire.errors import BadInput, BadParameter

sys.path.append(str(Path(__file__).parents[1] / "systems"))
from lumivid_cases import FROM_PLATE, TINY, random_contexts, random_transformer, random_vae

SCHEDULE = Schedule(steps=2, batch=2, warmup=1, validate_every=2, checkpoint_every=2, average=0.5)
RECIPE = Recipe("tiny", 32, SCHEDULE, {"rank": 2.0})
SCENE = Scene("x", panorama(1), 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hdri")
    for seed, name in enumerate(("one", "two", HELD_OUT[0])):
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        OpenEXR.File(header, {"RGB": panorama(seed)}).write(str(folder / f"{name}.exr"))
    return folder


@pytest.fixture(autouse=True)
def tiny(monkeypatch, same_process):
    monkeypatch.setattr(lumivid, "CONFIGS", MappingProxyType({"tiny": TINY}))
    monkeypatch.setattr(clips, "HELD_OUT_SIDE", 32)
    monkeypatch.setattr(clips, "HELD_OUT_EACH", 1)
    monkeypatch.setattr(lumivid, "START_CLIPS", 4)


def test_a_camera_turns_evenly_or_not_at_all():
    start = View(10, 0, 0, 60)
    drawn = [path(np.random.default_rng(seed), start, 9) for seed in range(40)]
    still = [views for views in drawn if len(set(views)) == 1]
    assert 1 <= len(still) <= 12
    for views in drawn:
        assert views[0].fov == 60
        steps = np.abs(np.diff([view.yaw for view in views]))
        assert steps.max() < 60 * (clips.FASTEST + 0.1)
    assert path(np.random.default_rng(3), start, 9) == drawn[3]


def test_a_clip_moves_and_its_frames_belong_together():
    light = turned(np.random.default_rng(2), SCENE, 48, 9)
    assert light.shape == (9, 48, 48, 3)
    assert (light >= 0).all()
    near, far = (np.abs(np.log2(light[0] + 0.01) - np.log2(light[i] + 0.01)).mean() for i in (1, 8))
    assert 0 < near < far


def test_x264_of_a_clip_predicts_frames_from_each_other_and_keeps_their_order():
    wide = np.clip(turned(np.random.default_rng(2), SCENE, 96, 1)[0] / 4, 0, 1)
    light = [np.ascontiguousarray(wide[24:72, 4 * i : 4 * i + 48]) for i in range(9)]
    found = clip_through_x264(light, 23)
    assert len(found) == 9
    assert [int(np.argmin([np.abs(f - frame).mean() for frame in light])) for f in found] == list(range(9))
    errors = [np.abs(f - frame).mean() for f, frame in zip(found, light, strict=True)]
    assert 0 < max(errors) < 0.06
    np.testing.assert_array_equal(through_x264(light[0], 31), clip_through_x264([light[0]], 31)[0])
    assert clip_through_x264([light[0][:47, :33]], 31)[0].shape == (47, 33, 3)


def test_degradations_hit_the_ends_and_leave_the_middle():
    ramp = np.linspace(0, 1, 101, dtype=np.float32)
    strong = contrasted(ramp, 1.5)
    assert strong[50] == pytest.approx(0.5)
    assert (strong[:16] == 0).all()
    assert (strong[-16:] == 1).all()
    noisy = np.random.default_rng(0).uniform(0.4, 0.6, (2, 24, 24, 3)).astype(np.float32)
    noisy[:, :8] += 0.35
    blurred = blurred_ends(noisy, 2.0, 0.1, 0.7)
    np.testing.assert_array_equal(blurred[:, 12:], noisy[:, 12:])
    assert blurred[:, :4].std() < 0.6 * noisy[:, :4].std()


def test_without_degradations_sdr_is_its_tone_curve_alone():
    light = turned(np.random.default_rng(2), SCENE, 32, 3)
    clean, codes = degraded(light, np.random.default_rng(0), TABLE_5["none"])
    np.testing.assert_array_equal(clean, codes)
    clean, codes = degraded(light, np.random.default_rng(0), Degradations(1, 1, 1))
    assert np.abs(clean - codes).max() > 0.01
    assert ((codes >= 0) & (codes <= 1)).all()


def test_batches_are_pairs_of_codes_and_the_same_for_the_same_numbers(folder):
    source = ClipSource(folder, 32)
    one, same = (source(np.random.default_rng(4), 2) for _ in range(2))
    assert one.sdr.shape == one.hdr.shape == (2, 3, 9, 32, 32)
    torch.testing.assert_close(one.hdr, same.hdr)
    for codes in (one.sdr, one.hdr):
        assert 0 <= codes.min() < codes.max() <= 1
    pool = replace(source, pool=3)
    numbers = {pool(np.random.default_rng(seed), 2).number for seed in range(20)}
    assert numbers == {0, 1, 2}
    torch.testing.assert_close(pool.made(1, 2).hdr, pool.made(1, 2).hdr)
    (held_out,) = held_out_clips(source)
    assert held_out.sdr.shape == (1, 3, 9, 32, 32)
    assert batch_of([(np.zeros((9, 4, 4, 3), np.float32), np.full((9, 4, 4, 3), 99, np.float32))]).held == 1


def test_light_of_two_cameras_and_steeper_highlights_are_other_clips_of_the_same_kind(folder):
    plain = ClipSource(folder, 32)
    changed = [replace(plain, mixed=1.0), replace(plain, steeper=0.6)]
    before = plain(np.random.default_rng(4), 2)
    for source in changed:
        found, same = (source(np.random.default_rng(4), 2) for _ in range(2))
        torch.testing.assert_close(found.hdr, same.hdr)
        assert 0 <= found.hdr.min() < found.hdr.max() <= 1
        assert not torch.equal(found.hdr, before.hdr)


def test_folders_of_exrs_are_shots(tmp_path):
    for name, count in (("a", 10), ("b", 4)):
        (tmp_path / name).mkdir()
        for index in range(count):
            pixels = np.full((24, 40, 3), index + 1.0, np.float32)
            OpenEXR.File({}, {"RGB": pixels}).write(str(tmp_path / name / f"f.{index:04d}.exr"))
    found = list(shots(hdr_files(tmp_path, "shots")).values())
    levels = cropped(np.random.default_rng(1), found, 32, 9)[:, 0, 0, 0]
    assert levels.shape == (9,)
    assert set(np.diff(levels)) <= {1.0, -1.0}
    assert cropped(np.random.default_rng(1), found, 32, 9).shape == (9, 32, 32, 3)
    batch = ClipSource(tmp_path, 32, "shots")(np.random.default_rng(0), 1)
    assert batch.sdr.shape == (1, 3, 9, 32, 32)
    assert len(held_out_clips(ClipSource(tmp_path, 32, "shots", frames=4))) == 1
    with pytest.raises(BadInput, match="shot of 11 EXRs or more"):
        cropped(np.random.default_rng(1), found, 32, 11)
    OpenEXR.File({}, {"RGB": np.ones((9, 9, 3), np.float32)}).write(str(tmp_path / "b" / "f.0001.exr"))
    with pytest.raises(BadInput, match="frames of several sizes"):
        cropped(np.random.default_rng(1), list(shots(hdr_files(tmp_path / "b", "shots")).values()), 8, 4)


def test_levels_lean_to_noise_the_more_tokens_there_are():
    torch.manual_seed(0)
    few, many = (lumivid.shifted_levels(4000, tokens) for tokens in (1024, 4096))
    for levels in (few, many):
        assert lumivid.LEAST <= levels.min() < levels.max() <= 1
    assert torch.quantile(few, 0.5) == pytest.approx(torch.sigmoid(torch.tensor(0.95)).item(), abs=0.08)  # stretched
    assert torch.quantile(many, 0.5) > torch.quantile(few, 0.5) + 0.1


@pytest.fixture
def base(tmp_path) -> Path:
    random_vae().save_pretrained(tmp_path / "base" / "vae")
    random_transformer().save_pretrained(tmp_path / "base" / "transformer")
    save_file(random_contexts(), tmp_path / "base" / "scene.safetensors")
    return tmp_path / "base"


def flow_task(folder, base, **weights) -> lumivid.FlowTask:
    torch.manual_seed(0)
    model = lumivid.start(RECIPE, "backbone", base)
    return lumivid.FlowTask(model, ClipSource(folder, 32), lumivid.Weights(**weights), torch.float32)


def test_clipped_places_are_those_of_each_latent_and_count_more(folder, base):
    batch = ClipSource(folder, 32)(np.random.default_rng(4), 2)
    dark = replace(batch, sdr=batch.sdr.clamp(0, 0.9))
    dark.sdr[:, :, 0, :16] = 1.0
    task = flow_task(folder, base, clipped=8.0)
    encoded = task._encode(dark)
    clipped = encoded.clipped
    assert encoded.latents.shape == encoded.reference.shape
    assert clipped.shape == (2, *encoded.latents.shape[2:])
    assert (clipped[:, 0, 0] == 1).all()
    assert (clipped[:, 0, 1:] == 0).all()
    assert (clipped[:, 1:] == 0).all()
    losses = []
    for other in (task, flow_task(folder, base)):
        torch.manual_seed(1)
        losses.append(other.loss(dark)[0].item())
    assert losses[0] != losses[1]


def test_channels_count_by_what_they_change_in_codes(folder, base):
    plain, weighed = (flow_task(folder, base, decoded=power) for power in (0.0, 1.0))
    for task in (plain, weighed):
        task.lumivid.vae.latents_std[3] = 8.0
    assert (plain._channels == 1).all()
    found = weighed._channels.flatten()
    assert found.mean().item() == pytest.approx(1, rel=1e-5)
    assert found.argmax() == 3
    resumed = flow_task(folder, base, decoded=1.0)
    resumed.lumivid.vae.latents_std[3] = 8.0
    resumed.loss(ClipSource(folder, 32)(np.random.default_rng(7), 2))
    torch.testing.assert_close(resumed._channels, weighed._channels)


def test_clips_that_are_nothing_but_noise_hide_the_hdr(folder, base):
    batch = ClipSource(folder, 32)(np.random.default_rng(4), 2)
    task, seen = flow_task(folder, base, whole=1.0), []
    velocity = task.lumivid.velocity

    def spy(point, levels, reference, fps):
        seen.append(levels)
        return velocity(point, levels, reference, fps)

    task.lumivid.velocity = spy
    task.loss(batch)
    assert set(seen[0][:, 1:].flatten().tolist()) == {1.0}


def test_a_flow_from_the_plate_starts_as_good_as_the_plate(folder, base, monkeypatch):
    monkeypatch.setattr(lumivid, "CONFIGS", MappingProxyType({"tiny": FROM_PLATE}))
    task = flow_task(folder, base)
    (clip,) = task.held_out
    encoded = task._encode(clip)
    torch.testing.assert_close(encoded.start(), encoded.plate)
    assert not torch.allclose(encoded.plate, encoded.reference)
    wanted = lumivid._stops(TRANSFORMS["logc3"].decode(clip.hdr)) - lumivid._stops(clip.sdr**2.4)
    figures = task.validate(task.model)
    assert figures["error"] == pytest.approx((figures["gain"] + figures.get("clipped", figures["gain"])) / 2)
    assert figures["gain"] == pytest.approx(wanted.abs().mean().item(), rel=1e-4)
    plain = flow_task(folder, base, whole=1.0).loss(clip)[1]["velocity"]
    assert plain == pytest.approx((encoded.plate - encoded.latents).square().mean().item(), rel=0.5)


def run_stage(stage, folder, run, base=None, steps=2, **pictures):
    recipe = replace(RECIPE, schedule=replace(SCHEDULE, steps=steps), pictures=pictures)
    source = ClipSource(folder, 32, pool=int(pictures.get("pool", 0)))
    return recipe, source, lumivid.train_lumivid(recipe, stage, source, run, base, lambda _text: None)


def test_the_vae_learns_and_is_written_with_its_latents_measured(folder, tmp_path):
    recipe, source, position = run_stage("vae", folder, tmp_path / "run")
    assert position.step == 2
    again = run_stage("vae", folder, tmp_path / "run", steps=3)[2]
    assert again.step == 3
    row = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert set(row["held_out"]) == {"error", "sdr", "hdr"}
    write_vae(recipe, tmp_path / "run", source, tmp_path / "base")
    vae = loading.load_vae(TINY, tmp_path / "base")
    assert (vae.latents_std > 0).all()
    assert not torch.equal(vae.latents_std, torch.ones_like(vae.latents_std))


def test_a_backbone_is_trained_resumed_and_runs_as_a_pack(folder, tmp_path, base):
    whole = tmp_path / "whole"
    recipe, _, _ = run_stage("backbone", folder, whole, base, steps=4, pool=2)
    run_stage("backbone", folder, tmp_path / "parts", base, steps=2, pool=2)
    average = whole / "average.safetensors"
    loaded = weight_files.read(average)
    assert any("video_context" in name for name in loaded)
    _, _, position = run_stage("backbone", folder, tmp_path / "parts", base, steps=4, pool=2)
    assert position.step == 4
    (tmp_path / "lumivid-x").mkdir()
    write_pack(recipe, "backbone", whole, base, "logc3", tmp_path / "lumivid-x")
    pack = read_pack(tmp_path / "lumivid-x")
    assert pack.preview is False
    assert pack.options["transform"] == "logc3"
    model = loading.load_lumivid(TINY, pack.path, torch.float32)
    assert model.video_context.shape == (1, lumivid.CONTEXT_TOKENS, TINY.transformer.width)


def test_an_adapter_is_written_in_the_published_spelling(folder, tmp_path, base):
    before = random_transformer()
    recipe, _, _ = run_stage("lora", folder, tmp_path / "run", base)
    (tmp_path / "lumivid-lora").mkdir()
    write_pack(recipe, "lora", tmp_path / "run", base, "logc3", tmp_path / "lumivid-lora")
    state = weight_files.read(tmp_path / "lumivid-lora" / "lora.safetensors")
    assert len(state) == 2 * 10 * TINY.transformer.layers
    assert all(name.startswith("diffusion_model.transformer_blocks.") for name in state)
    model = loading.load_lumivid(TINY, tmp_path / "lumivid-lora", torch.float32)
    plain = {k.replace(".base_layer", ""): v for k, v in model.transformer.state_dict().items() if "lora" not in k}
    torch.testing.assert_close(plain, dict(before.state_dict()))


def test_what_cannot_be_trained_is_refused(folder, tmp_path):
    with pytest.raises(BadParameter, match="start from a --base"):
        run_stage("backbone", folder, tmp_path / "run")
    with pytest.raises(BadParameter, match="has no configuration 'huge'"):
        lumivid.config_of(replace(RECIPE, config="huge"))
    with pytest.raises(BadInput, match="train first"):
        lumivid.best_vae(RECIPE, tmp_path)


@pytest.mark.parametrize("name", ["vae-s", "backbone-s", "lora-s", "lora-published"])
def test_recipes_name_what_there_is(name):
    recipe = load_recipe(f"lumivid-{name}")
    lumivid.Weights(**recipe.weights)
    assert recipe.config in {"s", "published"}


def test_the_published_recipe_has_the_published_numbers():
    recipe = load_recipe("lumivid-lora-published")
    numbers = recipe.weights["rank"], recipe.schedule.rate, recipe.schedule.steps, recipe.pictures["frames"]
    assert numbers == (32.0, 2e-4, 10_000, 49.0)
    assert lumivid.FIRST_FRAME == 0.2
    assert (*lumivid.SHIFTS, lumivid.UNIFORM, lumivid.LEAST) == ((1024, 0.95), (4096, 2.05), 0.1, 1e-3)
