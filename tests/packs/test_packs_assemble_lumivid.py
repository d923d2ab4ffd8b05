"""LTX-2.3, the published IC-LoRA and its scene embeddings become a pack, through the command line and the real loaders:
random networks in the published layout, of a tiny size.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from hdrgen_server.cli.main import run
from hdrgen_server.colour.interop import colourspace
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.contracts.operator import Request
from hdrgen_server.packs import licence
from hdrgen_server.packs.manifest import Pack
from hdrgen_server.packs.registry import load_registry
from hdrgen_server.settings import load_settings
from hdrgen_server.systems.lumivid import operator as o
from nuke_hdrgen.wire.errors import LicenceNotAccepted

sys.path.append(str(Path(__file__).parents[1] / "systems"))
from lumivid_cases import TINY, TWO_STAGES, lora_state, pack_of, random_contexts, write_networks, write_pack
from steps import Steps

NAME = "ltx-2.3-22b-ic-lora-hdr-0.9"
SAYS = {"hdr_transform": "logc3", "reference_downscale_factor": "1"}


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDRGEN_DATA_FOLDER", str(tmp_path / "data"))


@dataclass(frozen=True)
class Release:
    """The three things that are published."""

    lora: Path
    base: Path
    scene: Path

    def add(self, *more: object) -> int:
        return hdrgen("packs", "add", self.lora, "--base", self.base, "--scene", self.scene, *more)


@pytest.fixture
def release(tmp_path: Path) -> Release:
    base = write_networks(tmp_path / "LTX-2.3-Distilled-Diffusers", TWO_STAGES)
    (base / "text_encoder").mkdir()
    lora, scene = tmp_path / f"{NAME}.safetensors", tmp_path / "ltx-2.3-22b-ic-lora-hdr-scene-emb.safetensors"
    save_file(lora_state(TWO_STAGES), lora, metadata=SAYS)
    save_file(random_contexts(TWO_STAGES), scene)
    return Release(lora, base, scene)


def hdrgen(*arguments: object) -> int:
    return run([str(argument) for argument in arguments])


def converted(pack: Pack) -> list[np.ndarray]:
    codes = np.random.default_rng(1).uniform(0, 1, (32, 40, 3)).astype(np.float32)
    shot = [Frame(codes, ("R", "G", "B"), colourspace("srgb_rec709_scene"), number=number) for number in (1, 2)]
    operator = o.create(pack, "cpu")
    request = Request("sdr2hdr", operator.descriptor.resolve({"window": 9, "overlap": 4}), quality="final")
    return [frame.pixels for frame in operator.run(request, iter(shot), Steps())]


def test_what_is_published_becomes_a_pack_that_runs(release, tmp_path, monkeypatch, capsys):
    assert release.add("--link") == 0
    pack = load_registry(load_settings()).get(NAME)
    assert {f.path for f in pack.files} == {
        "lora.safetensors", "scene.safetensors", "transformer/config.json", "vae/config.json",
        "latent_upsampler/config.json", "transformer/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors", "latent_upsampler/diffusion_pytorch_model.safetensors",
    }  # fmt: skip
    assert pack.file("lora.safetensors").resolve() == release.lora
    assert (pack.system, pack.size, pack.preview) == ("lumivid", "published", False)
    assert dict(pack.options) == {"config": "published", "transform": "logc3"}
    assert pack.descriptor.memory.fixed_mib > 40_000
    monkeypatch.setattr(o, "CONFIGS", MappingProxyType({"published": TWO_STAGES, "tiny": TWO_STAGES}))
    by_hand = pack_of(write_pack(tmp_path / "hand", TWO_STAGES, lora=True))
    for found, wanted in zip(converted(pack), converted(by_hand), strict=True):
        np.testing.assert_array_equal(found, wanted)
    capsys.readouterr()
    assert hdrgen("packs", "list") == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(NAME))
    assert "sdr2hdr" in line
    assert "LTX-2-Community (not accepted)" in line
    assert hdrgen("packs", "show", NAME, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["licence"], shown["licence_ok"], shown["size"]) == ("LTX-2-Community", False, "published")
    assert "window" in {parameter["name"] for parameter in shown["parameters"]}
    assert hdrgen("packs", "verify", NAME) == 0


def test_the_gate_is_shut_until_someone_accepts(release):
    assert release.add() == 0
    pack = load_registry(load_settings()).get(NAME)
    assert not pack.file("vae/config.json").is_symlink()
    with pytest.raises(LicenceNotAccepted, match=f"hdrgen packs accept {NAME}"):
        licence.require(pack, load_settings())
    assert hdrgen("packs", "accept", NAME) == 0
    licence.require(pack, load_settings())
    record = json.loads(licence.record_path(load_settings()).read_text())
    assert record[NAME]["licence"] == "LTX-2-Community"


def test_the_curve_may_be_said_as_older_files_do(release, monkeypatch):
    tensors = load_file(release.lora)
    monkeypatch.setattr(o, "CONFIGS", MappingProxyType({"published": TWO_STAGES}))
    for index, said in enumerate(({"use_hdr_transform": "true"}, {"hdr_transform": "true"})):
        lora = release.lora.with_name(f"older-{index}.safetensors")
        save_file(tensors, lora, metadata=said)
        assert Release(lora, release.base, release.scene).add("--link") == 0
        o.create(load_registry(load_settings()).get(lora.stem), "cpu")


def says(release: Release, **metadata: str) -> None:
    save_file(load_file(release.lora), release.lora, metadata=metadata)


def adapts(release: Release, name: str, shape: tuple[int, int]) -> None:
    state = lora_state(TWO_STAGES)
    save_file(state | {name: state[next(iter(state))].new_zeros(shape)}, release.lora, metadata=SAYS)


def configured(release: Release, part: str, **given: object) -> None:
    path = release.base / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | given))


def sharded(release: Release) -> None:
    index = {"weight_map": {"a": "diffusion_pytorch_model.safetensors", "b": "other-00002-of-00002.safetensors"}}
    (release.base / "transformer" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


WRONG: dict[str, tuple[Callable[[Release], object], str]] = {
    "another IC-LoRA": (lambda r: says(r, reference_downscale_factor="1"), "does not say in its metadata"),
    "another curve": (lambda r: says(r, hdr_transform="pq"), "makes pq codes; LumiVid decodes logc3 alone"),
    "another depth": (
        lambda r: adapts(r, "diffusion_model.transformer_blocks.7.attn1.to_q.lora_A.weight", (2, 24)),
        "it adapts transformer_blocks.7.attn1.to_q by (2, 24), which is not there",
    ),
    "another width": (
        lambda r: adapts(r, "diffusion_model.transformer_blocks.0.attn1.to_q.lora_A.weight", (2, 32)),
        "it adapts transformer_blocks.0.attn1.to_q by (2, 32), which is (24, 24) there",
    ),
    "no upsampler": (lambda r: shutil.rmtree(r.base / "latent_upsampler"), "has no folder latent_upsampler/"),
    "no weights": (
        lambda r: (r.base / "vae" / "diffusion_pytorch_model.safetensors").unlink(), "has no config.json with",
    ),
    "half a transformer": (sharded, "has no other-00002-of-00002.safetensors, which"),
    "no config": (lambda r: (r.base / "vae" / "config.json").unlink(), "vae/config.json cannot be read"),
    "a list for a config": (lambda r: (r.base / "vae" / "config.json").write_text("[]"), "is no table of settings"),
    "another VAE": (
        lambda r: configured(r, "vae", _class_name="AutoencoderKLWan"), "holds AutoencoderKLWan, not AutoencoderKLLTX2",
    ),
    "LTX-2": (lambda r: configured(r, "transformer", gated_attn=False), "is LTX-2's; the IC-LoRA is for LTX-2.3"),
    "other embeddings": (
        lambda r: save_file({"prompt": random_contexts()["video_context"]}, r.scene), "has no tensor video_context",
    ),
    "embeddings of another width": (
        lambda r: save_file({n: t[..., :5].contiguous() for n, t in random_contexts().items()}, r.scene),
        "video_context is (1, 3, 5), and",
    ),
    "pickled embeddings": (lambda r: r.scene.write_bytes(b"\x80\x02}q\x00."), "cannot be read as safetensors"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_belong_together_is_named(case, release, capsys):
    spoil, said = WRONG[case]
    spoil(release)
    assert release.add() == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert NAME not in load_registry(load_settings()).packs


def test_what_is_missing_is_asked_for(release, tmp_path, capsys):
    qwen = tmp_path / "qwen.safetensors"
    save_file({"transformer_blocks.0.attn.to_q.lora_A.weight": random_contexts(TINY)["video_context"]}, qwen)
    cases = [
        ((release.lora, "--scene", release.scene), "name its diffusers folder with --base"),
        ((release.lora, "--base", release.base), "with --scene"),
        (
            (release.lora, "--base", release.base, "--scene", release.scene, "--licence", "MIT"),
            "--licence is for a LoRA of Qwen-Image",
        ),
        ((release.lora, "--base", release.base, "--encoder", release.base), "--encoder is for LumaFlux's adapters"),
        ((qwen, "--base", release.base, "--scene", release.scene), "--scene is for LumiVid's IC-LoRA"),
    ]
    for arguments, said in cases:
        assert hdrgen("packs", "add", *arguments) == 2
        assert said in capsys.readouterr().err
