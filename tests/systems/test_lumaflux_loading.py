"""LumaFlux from files: folders, single files in the original layout, published names, and every complaint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from lumaflux_cases import PUBLISHED, TINY, new_adapters, write_pack
from safetensors.torch import load_file, save_file

from hdrgen_server.systems.lumaflux import loading
from nuke_hdrgen.wire.errors import BadInput

CODES = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_pack(tmp_path)


def load(folder: Path) -> loading.LumaFlux:
    return loading.load_lumaflux(TINY, folder, torch.float32)


@torch.no_grad()
def velocity(folder: Path) -> torch.Tensor:
    model = load(folder)
    return model.velocity(model.condition(CODES), model.encode(CODES), torch.tensor([0.7]))


def test_a_folder_loads_with_the_networks_that_were_saved(folder):
    model = load(folder)
    saved = load_file(folder / "siglip" / "model.safetensors")
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(tensor, saved[f"vision_model.{name}"]), name
    for name, tensor in load_file(folder / "adapters.safetensors").items():
        assert torch.equal(model.adapters.state_dict()[name], tensor), name
    assert torch.equal(velocity(folder), velocity(folder))


def test_the_vaes_own_scale_and_shift_count(folder):
    path = folder / "vae" / "config.json"
    before = load(folder).encode(CODES)
    path.write_text(json.dumps({**json.loads(path.read_text()), "scaling_factor": 1.4, "shift_factor": 0.0}))
    torch.testing.assert_close(load(folder).encode(CODES), (before / 0.7 + 0.1) * 1.4)


def test_latents_decode_to_codes(folder):
    model = load(folder)
    with torch.no_grad():
        latent = model.encode(CODES)
        moments = model.vae.encode(2 * CODES - 1).latent_dist.mode()
        torch.testing.assert_close(latent, (moments - 0.1) * 0.7)
        torch.testing.assert_close(model.decode(latent), (model.vae.decode(moments).sample + 1) / 2)


def test_adapters_that_name_the_conditioner_by_the_first_block_give_the_same(folder):
    before = velocity(folder)
    path = folder / "adapters.safetensors"
    state = {name: tensor.clone() for name, tensor in load_file(path).items()}
    prefix = "transformer.transformer_blocks.0."
    save_file({prefix + k if k.startswith("modulation.") else k: v for k, v in state.items()}, path)
    torch.testing.assert_close(velocity(folder), before, rtol=1e-5, atol=1e-6)


VAE_NAMES = {
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0.group_norm": "mid.attn_1.norm",
    "mid_block.attentions.0.to_q": "mid.attn_1.q",
    "mid_block.attentions.0.to_k": "mid.attn_1.k",
    "mid_block.attentions.0.to_v": "mid.attn_1.v",
    "mid_block.attentions.0.to_out.0": "mid.attn_1.proj_out",
    "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut",
}


def original_vae_names(name: str) -> str:
    """diffusers' names of a VAE's tensors in the layout of Black Forest Labs' own code (ae.safetensors)."""
    scales = len(TINY.vae.block_out_channels)
    for new, old in VAE_NAMES.items():
        name = name.replace(new, old)
    for n in range(scales):
        name = name.replace(f"up_blocks.{n}.", f"up.{scales - 1 - n}.").replace(f"down_blocks.{n}.", f"down.{n}.")
    return name.replace("resnets.", "block.").replace("samplers.0.", "sample.")


def test_a_vae_in_one_file_is_the_vae_of_the_folder(tmp_path):
    config = replace(TINY, quant_conv=False)
    torch.manual_seed(4)
    vae = AutoencoderKL(**config.vae_arguments())
    original = {
        original_vae_names(name): tensor[..., None, None].clone() if "to_" in name and tensor.ndim == 2 else tensor
        for name, tensor in vae.state_dict().items()
    }
    save_file({k: v.contiguous() for k, v in original.items()}, tmp_path / "vae.safetensors")
    loaded = loading.load_vae(config, tmp_path).state_dict()
    for name, tensor in vae.state_dict().items():
        assert torch.equal(loaded[name], tensor), name


def original_flux(config, width: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of flux1-dev.safetensors (black-forest-labs/flux, src/flux/model.py)."""

    def linear(name: str, out: int, into: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}

    head = config.head_dim
    found = linear("img_in", width, config.in_channels) | linear("txt_in", width, config.joint_attention_dim)
    for name, into in (("time_in", 256), ("guidance_in", 256), ("vector_in", config.pooled_projection_dim)):
        found |= linear(f"{name}.in_layer", width, into) | linear(f"{name}.out_layer", width, width)
    for n in range(config.layers):
        for stream in ("img", "txt"):
            block = f"double_blocks.{n}.{stream}"
            found |= linear(f"{block}_mod.lin", 6 * width, width) | linear(f"{block}_attn.qkv", 3 * width, width)
            found |= linear(f"{block}_attn.proj", width, width)
            found |= {f"{block}_attn.norm.query_norm.scale": (head,), f"{block}_attn.norm.key_norm.scale": (head,)}
            found |= linear(f"{block}_mlp.0", 4 * width, width) | linear(f"{block}_mlp.2", width, 4 * width)
    for n in range(config.single_layers):
        block = f"single_blocks.{n}"
        found |= linear(f"{block}.linear1", 7 * width, width) | linear(f"{block}.linear2", width, 5 * width)
        found |= linear(f"{block}.modulation.lin", 3 * width, width)
        found |= {f"{block}.norm.query_norm.scale": (head,), f"{block}.norm.key_norm.scale": (head,)}
    found |= linear("final_layer.linear", config.in_channels, width)
    return found | linear("final_layer.adaLN_modulation.1", 2 * width, width)


def test_flux1_in_one_file_has_every_tensor_of_the_transformer():
    """At full size on the meta device: none missing, none left over, every shape right."""
    shapes = original_flux(PUBLISHED.flux, PUBLISHED.flux.width)
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    rename = loading.convert_flux_transformer_checkpoint_to_diffusers
    renamed = loading.renamed(dict(state), rename, Path("flux1-dev.safetensors"))
    with torch.device("meta"):
        wanted = FluxTransformer2DModel(**PUBLISHED.flux.arguments()).state_dict()
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in wanted.items()}
    del state["img_in.weight"]
    with pytest.raises(BadInput, match=r"flux1-dev.safetensors lacks 'img_in.weight'; it belongs to another"):
        loading.renamed(state, rename, Path("flux1-dev.safetensors"))


def test_a_single_file_of_another_width_is_refused(folder):
    save_file({"img_in.weight": torch.zeros(1)}, folder / "transformer.safetensors")
    with pytest.raises(BadInput, match=r"FLUX\.1's width alone; give a diffusers folder transformer/"):
        load(folder)


@pytest.mark.parametrize(
    ("part", "setting", "value"),
    [("transformer", "num_layers", 9), ("vae", "latent_channels", 16), ("siglip", "hidden_size", 768)],
)
def test_a_folder_of_another_size_is_named(folder, part, setting, value):
    path = folder / part / "config.json"
    table = json.loads(path.read_text())
    table.get("vision_config", table)[setting] = value
    path.write_text(json.dumps(table))
    with pytest.raises(BadInput, match=rf"{part}/config.json: {setting} is {value}, this pack needs"):
        load(folder)


@pytest.mark.parametrize("part", ["transformer", "vae", "siglip"])
def test_a_missing_folder_is_named(folder, part):
    (folder / part / "config.json").unlink()
    with pytest.raises(BadInput, match=rf"{part}/config.json cannot be read; a pack of LumaFlux holds {part}/"):
        load(folder)


def test_weights_that_are_cut_short_or_not_all_there_are_named(folder):
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    whole = {name: tensor.clone() for name, tensor in load_file(path).items()}
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(BadInput, match=r"transformer cannot be loaded: .*; fetch or add it again"):
        load(folder)
    del whole["x_embedder.weight"]
    save_file(whole, path, metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"has no tensor x_embedder.weight"):
        load(folder)


def test_adapters_that_do_not_fit_are_named(folder):
    path = folder / "adapters.safetensors"
    save_file(dict(new_adapters(replace(TINY, adapters=replace(TINY.adapters, rank=5))).state_dict()), path)
    with pytest.raises(BadInput, match=r"adapters.safetensors: tensor .*pga.* has shape"):
        load(folder)
    path.write_bytes(b"no tensors")
    with pytest.raises(BadInput, match=r"adapters.safetensors cannot be read as safetensors"):
        load(folder)
