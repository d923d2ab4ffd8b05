"""Base models come from diffusers folders or one file; what is wrong with either is said by file and tensor."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from refine_cases import TINY, random_inputs, random_refiner, stirred
from safetensors.torch import load_file, save_file
from torch import Tensor

from hdrgen_server.systems.gmodiff.refine.config import RefinerConfig
from hdrgen_server.systems.gmodiff.refine.loading import (
    LORA_FOLDER,
    REFINED_FILE,
    load_base,
    load_refined,
    refined_state,
)
from hdrgen_server.systems.gmodiff.refine.lora import add_lora, save_lora
from hdrgen_server.systems.gmodiff.refine.model import Refiner, use_released_initialisation
from nuke_hdrgen.wire.errors import BadInput

WEIGHTS = "diffusion_pytorch_model.safetensors"


def write_base(refiner: Refiner, folder: Path, *, stock_unet: bool = True) -> Path:
    """A diffusers folder of the refiner's base; a stock UNet has no channels for L0."""
    latent = refiner.config.vae.latent_channels
    refiner.vae.save_pretrained(folder / "vae")
    refiner.unet.save_pretrained(folder / "unet")
    if stock_unet:
        state = load_file(folder / "unet" / WEIGHTS)
        state["conv_in.weight"] = state["conv_in.weight"][:, :latent].contiguous()
        save_file(state, folder / "unet" / WEIGHTS, metadata={"format": "pt"})
        edit(folder / "unet" / "config.json", in_channels=latent)
    return folder


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_folder_loads_and_the_condition_encoder_is_a_copy(tmp_path: Path) -> None:
    source = random_refiner(TINY)
    source.vae.register_to_config(scaling_factor=0.31)
    loaded = load_base(TINY, write_base(source, tmp_path))
    assert loaded.vae.config["scaling_factor"] == loaded.condition.config["scaling_factor"] == 0.31
    for name, tensor in source.unet.state_dict().items():
        assert torch.equal(loaded.unet.state_dict()[name], tensor), name
    weight = loaded.condition.encoder.conv_in.weight
    assert torch.equal(weight, source.vae.encoder.conv_in.weight)
    assert weight.data_ptr() != loaded.vae.encoder.conv_in.weight.data_ptr()
    gain, mask, under, prior = random_inputs(TINY, 16, 16)
    assert torch.isfinite(loaded(gain, mask, under, prior)).all()


def test_what_stage_two_trained_comes_back_in_half_precision(tmp_path: Path) -> None:
    trained = random_refiner(TINY)
    add_lora(trained)
    base = write_base(random_refiner(TINY), tmp_path / "base")
    stirred(trained)
    save_file({k: v.half() for k, v in refined_state(trained).items()}, tmp_path / REFINED_FILE)
    save_lora(trained, tmp_path / LORA_FOLDER)
    loaded = load_base(TINY, base)
    load_refined(loaded, tmp_path)
    adapters = {k: v for k, v in trained.state_dict().items() if "lora_" in k}
    assert len(adapters) > 40
    for name, tensor in adapters.items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    for name, tensor in refined_state(trained).items():
        torch.testing.assert_close(refined_state(loaded)[name], tensor, atol=2e-3, rtol=1e-3)


def without(name: str) -> Callable[[dict[str, Tensor]], Mapping[str, Tensor]]:
    return lambda state: {k: v for k, v in state.items() if not re.search(name, k)}


def rewritten(path: Path, change: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]) -> None:
    save_file(dict(change(load_file(path))), path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: edit(f / "unet/config.json", cross_attention_dim=768), "config.json: cross_attention_dim is 768"),
        (lambda f: edit(f / "vae/config.json", latent_channels=16), "config.json: latent_channels is 16"),
        (lambda f: rewritten(f / "unet" / WEIGHTS, without("mid_block.resnets.0.conv1.weight")), "mid_block.resnets.0"),
        (lambda f: os.truncate(f / "vae" / WEIGHTS, 5000), "vae cannot be loaded"),
        (lambda f: (f / "vae/config.json").unlink(), "vae/config.json cannot be read"),
        (
            lambda f: (
                rewritten(f / "unet" / WEIGHTS, lambda s: {**s, "conv_in.weight": torch.zeros(16, 9, 3, 3)}),
                edit(f / "unet/config.json", in_channels=9),
            ),
            "conv_in.weight has shape",
        ),
    ],
    ids=["family", "latent channels", "missing tensor", "cut short", "no config", "inpainting"],
)  # fmt: skip
def test_a_wrong_folder_is_refused_by_name(tmp_path: Path, spoil: Callable[[Path], Any], says: str) -> None:
    folder = write_base(random_refiner(TINY), tmp_path)
    spoil(folder)
    with pytest.raises(BadInput, match=re.escape(says)) as error:
        load_base(TINY, folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("lost", ["mid_block.resnets.0.conv1.lora_A", "down_blocks.0.resnets.0.conv1"])
def test_a_missing_adapter_tensor_is_named(tmp_path: Path, lost: str) -> None:
    trained = random_refiner(TINY)
    add_lora(trained)
    save_file(refined_state(trained), tmp_path / REFINED_FILE)
    save_lora(trained, tmp_path / LORA_FOLDER)
    rewritten(tmp_path / LORA_FOLDER / "unet.safetensors", without(lost))
    with pytest.raises(BadInput, match=rf"unet\.safetensors has no tensor {re.escape(lost)}"):
        load_refined(random_refiner(TINY), tmp_path)


def test_a_missing_projection_is_named(tmp_path: Path) -> None:
    save_file(refined_state(random_refiner(TINY)), tmp_path / REFINED_FILE)
    rewritten(tmp_path / REFINED_FILE, without(r"prior\.project\.1\.bias"))
    with pytest.raises(BadInput, match=r"refine\.safetensors has no tensor prior\.project\.1\.bias"):
        load_refined(random_refiner(TINY), tmp_path)


def test_a_file_of_another_layout_or_type_is_refused(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(BadInput, match=r"no tensors named first_stage_model"):
        load_base(TINY, tmp_path / "model.safetensors")
    (tmp_path / "model.ckpt").write_bytes(b"")
    with pytest.raises(BadInput, match=r"is no \.safetensors file"):
        load_base(TINY, tmp_path / "model.ckpt")


def test_the_released_initialisation_fills_the_second_half() -> None:
    refiner = random_refiner(replace(TINY))
    kept = refiner.unet.conv_in.weight[:, :4].clone()
    use_released_initialisation(refiner)
    weight = refiner.unet.conv_in.weight
    assert torch.equal(weight[:, :4], kept)
    assert abs(float((weight[:, 4:].std() / kept.std()).detach()) - 1) < 0.2


# The original Stable Diffusion code's names, from its openaimodel.py and model.py (CompVis/latent-diffusion), written
# out here for two scales with attention in the second: the inverse of what the loader must do.
RESNET_LDM = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip


def unet_ldm_name(name: str) -> str:
    """The original name of a UNet tensor for one layer a block, `DownBlock2D, CrossAttnDownBlock2D`."""
    fixed = {
        "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2", "conv_norm_out": "out.0", "conv_out": "out.2",
    }  # fmt: skip
    stem, kind = name.rsplit(".", 1)
    if stem in fixed:
        return f"{fixed[stem]}.{kind}"
    down = re.match(r"down_blocks\.(\d)\.(resnets|attentions|downsamplers)\.(\d)\.(.*)", name)
    up = re.match(r"up_blocks\.(\d)\.(resnets|attentions|upsamplers)\.(\d)\.(.*)", name)
    mid = re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name)
    if down:
        block, what, index, rest = down.groups()
        position = 1 + 2 * int(block) + int(index) + (what == "downsamplers")
        prefix = f"input_blocks.{position}.{int(what == 'attentions')}"
        rest = rest.replace("conv.", "op.", 1) if what == "downsamplers" else rest
    elif up:
        block, what, index, rest = up.groups()
        position = 2 * int(block) + (1 if what == "upsamplers" else int(index))
        attends = block == "0"
        prefix = f"output_blocks.{position}.{0 if what == 'resnets' else 1 if what == 'attentions' else 1 + attends}"
    else:
        assert mid, name
        what, index, rest = mid.groups()
        prefix = f"middle_block.{1 if what == 'attentions' else 2 * int(index)}"
    if what == "resnets":
        layer, kind = rest.rsplit(".", 1)
        rest = f"{RESNET_LDM[layer]}.{kind}"
    return f"{prefix}.{rest}"


def vae_ldm_name(name: str) -> str:
    """The original name of a VAE tensor of two scales."""
    name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{1 - int(m[1])}.block.{m[2]}", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{1 - int(m[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    attention = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    for ours, theirs in attention.items():
        name = name.replace(f"mid_block.attentions.0.{ours}.", f"mid.attn_1.{theirs}.")
    return name


def write_single_file(refiner: Refiner, path: Path) -> Path:
    unet, vae = refiner.unet.state_dict(), refiner.vae.state_dict()
    unet["conv_in.weight"] = unet["conv_in.weight"][:, : refiner.config.vae.latent_channels].contiguous()
    state = {f"model.diffusion_model.{unet_ldm_name(k)}": v for k, v in unet.items()}
    for name, tensor in vae.items():
        renamed = vae_ldm_name(name)
        linear = "attn_1" in renamed and tensor.ndim == 2
        state[f"first_stage_model.{renamed}"] = (tensor[:, :, None, None] if linear else tensor).contiguous()
    save_file(state, path)
    return path


def test_a_single_file_in_the_original_layout_loads_the_same(tmp_path: Path) -> None:
    config: RefinerConfig = TINY
    source = stirred(random_refiner(config))
    with torch.no_grad():
        source.unet.conv_in.weight[:, config.vae.latent_channels :] = 0
    loaded = load_base(config, write_single_file(source, tmp_path / "sd.safetensors"))
    for network in ("unet", "vae"):
        found, wanted = loaded.get_submodule(network).state_dict(), source.get_submodule(network).state_dict()
        assert found.keys() == wanted.keys()
        for name, tensor in wanted.items():
            assert torch.equal(found[name], tensor), name


def test_a_single_file_without_a_tensor_is_refused(tmp_path: Path) -> None:
    path = write_single_file(random_refiner(TINY), tmp_path / "sd.safetensors")
    rewritten(path, without("middle_block.1.proj_in.weight"))
    with pytest.raises(BadInput, match=r"sd\.safetensors.*mid_block\.attentions\.0\.proj_in\.weight"):
        load_base(TINY, path)
