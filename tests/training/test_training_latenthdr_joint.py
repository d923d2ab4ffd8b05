"""LatentHDR's second stage: head and adapter move together, nothing else does, and a pack carries both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import OpenEXR
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from panoramas import panorama
from safetensors.torch import load_file

from hdrgen_server.packs.manifest import read_pack
from hdrgen_server.systems.latenthdr.config import HeadConfig
from hdrgen_server.systems.qwenlog.config import CONFIGS, S_FLOW, QwenConfig, TransformerConfig, VAEConfig
from hdrgen_server.training import latenthdr, qwen_vae
from hdrgen_server.training.captioned import CaptionSource
from hdrgen_server.training.latenthdr_joint import Joint, start, train_joint
from hdrgen_server.training.latenthdr_pack import write_joint_pack
from hdrgen_server.training.loop import Schedule
from hdrgen_server.training.recipe import Recipe, load_recipe
from nuke_hdrgen.wire.errors import BadInput, BadParameter

HEAD = HeadConfig((8, 12), middle=1, bands=4, condition=8)
TINY = QwenConfig(
    TransformerConfig(4, 2, 2, 16, 256, (4, 6, 6)), VAEConfig(8, 4, (1, 2, 2, 2), 1, (0.0,) * 4, (0.05,) * 4),
    CONFIGS["s"].text, S_FLOW, 128,
)  # fmt: skip


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, same_process: None) -> None:
    monkeypatch.setattr(latenthdr, "CONFIGS", MappingProxyType({"s": HEAD}))
    monkeypatch.setattr(qwen_vae, "CONFIGS", MappingProxyType({"s": TINY}))
    monkeypatch.setattr("hdrgen_server.training.exposures.HELD_OUT_EACH", 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("panoramas")
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    for seed, name in enumerate(("studio", "lebombo")):
        OpenEXR.File(header, {"RGB": panorama(seed)}).write(str(path / f"{name}.exr"))
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("base")
    QwenImageTransformer2DModel(**TINY.transformer.arguments()).save_pretrained(path / "transformer")
    AutoencoderKLQwenImage(**TINY.vae.arguments()).save_pretrained(path / "vae")
    return path


def recipe(steps: int) -> Recipe:
    schedule = Schedule(steps=steps, batch=2, warmup=1, rate=5e-3, average=0.5, validate_every=2, checkpoint_every=2)
    return Recipe("s", 32, schedule, {"clipped": 1.0, "flow": 1.0, "rank": 2.0}, {"evs": 2.0})


def silent(text: str) -> None:
    del text


def test_head_and_adapter_learn_together_and_go_into_a_pack(folder: Path, base: Path, tmp_path: Path) -> None:
    latenthdr.train_head(recipe(2), folder, tmp_path / "head", base, silent)
    train_joint(recipe(4), folder, tmp_path / "joint", base, tmp_path / "head", silent)
    found = load_file(tmp_path / "joint" / "average.safetensors")
    assert {name.split(".")[0] for name in found} == {"head", "adapter"}
    ups = [tensor for name, tensor in found.items() if "lora_B" in name]
    assert ups
    assert all(tensor.abs().sum() > 0 for tensor in ups[:4]), "an adapter starts without effect"
    before = load_file(tmp_path / "head" / "best.safetensors")
    assert any(not torch.equal(found[f"head.{name}"], tensor) for name, tensor in before.items())
    write_joint_pack(recipe(4), folder, tmp_path / "joint", base, tmp_path / "latent-joint", "qwenlog-s")
    pack = read_pack(tmp_path / "latent-joint")
    assert {file.path for file in pack.files} == {"head.safetensors", "lora.safetensors"}
    assert pack.base_name == "qwenlog-s"


def test_the_heads_loss_reaches_the_adapter(folder: Path, base: Path) -> None:
    source = CaptionSource(folder, 32)
    task = start(replace(recipe(1), weights={"flow": 0.0, "rank": 2.0}), folder, base, source, None)
    loss, figures = task.loss(source(np.random.default_rng(1), 2))
    loss.backward()
    assert isinstance(task.model, Joint)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in task.model.adapter.parameters())
    assert figures["flow"] > 0


def test_what_cannot_be_joined_is_refused(folder: Path, base: Path, tmp_path: Path) -> None:
    (tmp_path / "vae").symlink_to(base / "vae")
    with pytest.raises(BadInput, match="has no transformer/ to train; stage joint needs"):
        start(recipe(1), folder, tmp_path, CaptionSource(folder, 32), None)
    with pytest.raises(BadInput, match="is missing; train first"):
        write_joint_pack(recipe(1), folder, tmp_path, base, tmp_path / "x", "qwenlog-s")
    with pytest.raises(BadParameter, match="name it with --base-pack"):
        write_joint_pack(recipe(1), folder, tmp_path, base, tmp_path / "x", "")
    assert load_recipe("latenthdr-joint-s").weights["rank"] == 16
