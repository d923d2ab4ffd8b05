"""Quality `final` through the operator: it changes what the mask doubts and nothing else, reports, cancels, refuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import refine_cases
import torch
from gmodiff_cases import TINY as REGRESSOR
from gmodiff_cases import exposed, randomised, textured
from refine_cases import random_refiner, stirred
from safetensors.torch import save_file

from hdrgen_server.contracts.frame import Frame
from hdrgen_server.contracts.operator import Request
from hdrgen_server.evaluate import knockout
from hdrgen_server.image.tags import SRGB_REC709_SCENE
from hdrgen_server.networks import offload
from hdrgen_server.packs.add import finished_manifest
from hdrgen_server.packs.manifest import Pack, read_pack
from hdrgen_server.systems.gmodiff.config import CONFIGS
from hdrgen_server.systems.gmodiff.operator import GMODiffOperator, create
from hdrgen_server.systems.gmodiff.refine import choice
from hdrgen_server.systems.gmodiff.refine.config import RefinerConfig
from hdrgen_server.systems.gmodiff.refine.loading import LORA_FOLDER, REFINED_FILE, refined_state
from hdrgen_server.systems.gmodiff.refine.lora import add_lora, save_lora
from hdrgen_server.systems.gmodiff.refine.tiling import Tiling
from nuke_hdrgen.wire.errors import BadInput, Cancelled
from tests.systems.steps import Steps

torch.set_num_threads(1)
EVS = (-2.0, 0.0, 2.0)
MANIFEST = """format = 1
name = "gmodiff-tiny"
system = "gmodiff"
licence = "Apache-2.0"

[options]
config = "tiny"
{refine}
"""


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> RefinerConfig:
    """The tiny second stage, whose mask counts from 0.53 on."""
    made = replace(refine_cases.TINY, regressor="tiny", mask_range=(0.53, 0.56))
    monkeypatch.setitem(CONFIGS, "tiny", REGRESSOR)
    monkeypatch.setattr(choice, "REFINERS", {"tiny": made})
    return made


def write_pack(folder: Path, config: RefinerConfig, *, refine: str = "tiny") -> Pack:
    """Both stages with random weights everywhere."""
    folder.mkdir()
    regressor = randomised(REGRESSOR)
    save_file({k: v.contiguous() for k, v in regressor.state_dict().items()}, folder / "regressor.safetensors")
    refiner = random_refiner(config)
    refiner.vae.save_pretrained(folder / "vae")
    refiner.unet.save_pretrained(folder / "unet")
    add_lora(refiner)
    stirred(refiner, amount=0.02)
    save_file(refined_state(refiner), folder / REFINED_FILE)
    save_lora(refiner, folder / LORA_FOLDER)
    (folder / "pack.toml").write_text(MANIFEST.format(refine=f'refine = "{refine}"' if refine else ""))
    (folder / "pack.toml").write_bytes(finished_manifest(folder))
    return read_pack(folder)


def photographs(height: int = 72, width: int = 88) -> list[Frame]:
    scene = textured(height, width)
    return [Frame(exposed(scene, ev, levels=255), ("R", "G", "B"), SRGB_REC709_SCENE, ev=ev) for ev in EVS]


def fuse(
    operator: GMODiffOperator, frames: Sequence[Frame], quality: str, progress: Steps | None = None, **given: int
) -> Frame:
    parameters = operator.descriptor.resolve(given)
    (result,) = operator.run(Request("hdrfuse", parameters, quality=quality, aovs=True), frames, progress or Steps())
    return result


def test_final_changes_what_the_mask_doubts_and_nothing_else(tmp_path: Path, config: RefinerConfig) -> None:
    operator = create(write_pack(tmp_path / "pack", config), "cpu")
    frames = photographs()
    draft, final = (fuse(operator, frames, quality) for quality in ("draft", "final"))
    taken = final.layers["hdrgen.generated"]
    assert 0.05 < (taken == 0).mean() < 0.95
    np.testing.assert_array_equal(taken > 0, 1 - draft.layers["hdrgen.confidence"] > 0.53)
    assert np.array_equal(final.rgb[taken == 0], draft.rgb[taken == 0])
    assert np.abs(np.log2((final.rgb[taken > 0] + 1e-4) / (draft.rgb[taken > 0] + 1e-4))).max() > 0.1
    gain, refined = (np.stack([f.layers[f"hdrgen.gain_{c}"] for c in "rgb"], -1) for f in (draft, final))
    assert np.array_equal(gain[taken == 0], refined[taken == 0])
    assert not np.array_equal(gain, refined)
    assert "hdrgen.generated" not in draft.layers
    assert np.array_equal(final.rgb, fuse(operator, frames, "final").rgb)


def test_without_a_second_stage_final_is_draft(tmp_path: Path, config: RefinerConfig) -> None:
    operator = create(write_pack(tmp_path / "pack", config, refine=""), "cpu")
    frames = photographs()
    draft, final = fuse(operator, frames, "draft"), fuse(operator, frames, "final")
    assert np.array_equal(draft.pixels, final.pixels)
    assert "warnings" not in draft.metadata
    assert final.metadata["warnings"] == ("this pack has no second stage yet: final is what draft is",)


def test_linear_frames_keep_their_own_scale(tmp_path: Path, config: RefinerConfig) -> None:
    operator = create(write_pack(tmp_path / "pack", config), "cpu")
    space = replace(SRGB_REC709_SCENE, name="lin_rec709_scene", interop_id="lin_rec709_scene", range="scene_linear")
    scene = textured(48, 64)
    once, twice = (
        [Frame(k * np.clip(scene * 2.0**ev, 0, 1).astype(np.float32), ("R", "G", "B"), space, ev=ev) for ev in EVS]
        for k in (np.float32(1), np.float32(2))
    )
    np.testing.assert_allclose(fuse(operator, twice, "final").rgb, 2 * fuse(operator, once, "final").rgb, rtol=1e-3)


def test_progress_counts_both_stages_and_cancel_ends_either(tmp_path: Path, config: RefinerConfig) -> None:
    operator = create(write_pack(tmp_path / "pack", config), "cpu")
    frames, steps = photographs(200, 260), Steps()
    fuse(operator, frames, "final", steps, tile=192)
    done = [d for d, _ in steps.seen]
    assert done == list(range(len(done)))
    assert steps.seen[-1][0] == steps.seen[-1][1]
    draft = Steps()
    fuse(operator, frames, "draft", draft, tile=192)
    assert len(done) > len(draft.seen) + 3
    for at in (1, len(draft.seen) + 1):
        cancelled = Steps(cancel_at=at)
        with pytest.raises(Cancelled):
            fuse(operator, frames, "final", cancelled, tile=192)
        assert len(cancelled.seen) == at + 1


def test_each_module_of_the_second_stage_can_be_knocked_out(tmp_path: Path, config: RefinerConfig) -> None:
    operator = create(write_pack(tmp_path / "pack", config), "cpu")
    frames = photographs()
    second = operator.second
    assert second is not None
    draft, final = (fuse(operator, frames, quality).rgb for quality in ("draft", "final"))
    for name in knockout.SECOND:
        with knockout.silenced_second(second.refiner, name):
            assert not np.array_equal(fuse(operator, frames, "final").rgb, final), name
    assert np.array_equal(fuse(operator, frames, "final").rgb, final)
    with (
        knockout.silenced_second(second.refiner, "denoising step"),
        knockout.silenced_second(second.refiner, "decoder's refinement blocks"),
    ):
        np.testing.assert_allclose(fuse(operator, frames, "final").rgb, draft, rtol=2e-3, atol=1e-4)
    names = knockout.knocked_out(operator, lambda _: draft, "final")
    assert len(names) == len(knockout.MODULES) + len(knockout.SECOND)


def test_rungs_and_the_tile_parameter_make_smaller_tiles(tmp_path: Path, config: RefinerConfig) -> None:
    from hdrgen_server.systems.gmodiff.final import SecondStage

    second = SecondStage(random_refiner(config), "cpu")
    assert second.tiling(0, 0) == second.tiling(0, 1) == Tiling()
    assert second.tiling(0, 2) == Tiling().halved(1)
    assert second.tiling(256, 0) == replace(Tiling(), latents=128, pixels=256)  # this VAE halves once
    assert second.tiling(64, 0).pixels == 2 * Tiling().pixel_overlap
    on_cuda = SecondStage(random_refiner(config), "cuda")
    assert on_cuda.tiling(0, 0).pixels > Tiling().pixels


def test_on_the_last_rung_weights_are_fetched_layer_by_layer(
    tmp_path: Path, config: RefinerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU plays the GPU: the same values, and no weight stays on the device between calls."""
    pack, frames = write_pack(tmp_path / "pack", config), photographs()
    expected = fuse(create(pack, "cpu"), frames, "final")
    monkeypatch.setattr(offload, "helps", lambda device, rung: rung == 3)
    operator = create(pack, "cpu")
    operator.set_rung(3)
    found = fuse(operator, frames, "final")
    second = operator.second
    assert second is not None
    weights = [*operator.model.parameters(), *second.refiner.parameters()]
    assert {p.device.type for p in weights} == {"meta"}
    assert np.array_equal(found.rgb, expected.rgb)
    for rung in (0, 3, 0):  # loaded by now, it is moved as the job's rung says
        operator.set_rung(rung)
        assert np.array_equal(fuse(operator, frames, "final").rgb, expected.rgb)
    assert "meta" not in {p.device.type for p in (*operator.model.parameters(), *second.refiner.parameters())}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ("refine", "has refine 'other', which is none of tiny"),
        ("widths", "takes the features of regressor 's'"),
        ("weights", r"refine\.safetensors is missing"),
        ("adapter", r"unet\.safetensors cannot be read"),
    ],
)
def test_a_pack_that_does_not_fit_is_refused(
    tmp_path: Path, config: RefinerConfig, monkeypatch: pytest.MonkeyPatch, spoil: str, says: str
) -> None:
    pack = write_pack(tmp_path / "pack", config, refine="other" if spoil == "refine" else "tiny")
    if spoil == "widths":
        monkeypatch.setattr(choice, "REFINERS", {"tiny": replace(config, regressor="s")})
    if spoil == "weights":
        (pack.path / REFINED_FILE).unlink()
    if spoil == "adapter":
        (pack.path / LORA_FOLDER / "unet.safetensors").unlink()
    with pytest.raises(BadInput, match=says):
        fuse(create(pack, "cpu"), photographs(), "final")


def test_a_draft_never_imports_diffusers() -> None:
    code = "import sys, hdrgen_server.systems.gmodiff.operator; print({'diffusers', 'peft'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
