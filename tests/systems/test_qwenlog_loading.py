"""Qwen-Image from files: diffusers' folders, adapters in every spelling, and every complaint."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from qwen_cases import TINY, random_transformer, random_vae, tiny_model, write_folder
from safetensors.torch import load_file, save_file

from hdrgen_server.systems.qwenlog import loading, lora, stills
from nuke_hdrgen.wire.errors import BadInput

LATENTS = torch.randn(1, 4, 4, 6, generator=torch.Generator().manual_seed(1))
PROMPT = torch.randn(1, 3, 12, generator=torch.Generator().manual_seed(2))
ATTENTION = ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "pack")


@torch.no_grad()
def velocity(network: QwenImageTransformer2DModel) -> torch.Tensor:
    model = tiny_model()
    model.transformer = network
    return model.velocity(LATENTS, torch.tensor([0.6]), PROMPT)


def test_a_diffusers_folder_loads_with_the_networks_that_were_saved(folder):
    transformer, vae = loading.load_transformer(TINY, folder, torch.float32), loading.load_vae(TINY, folder)
    for name, tensor in random_transformer().state_dict().items():
        assert torch.equal(transformer.state_dict()[name], tensor), name
    for name, tensor in random_vae().state_dict().items():
        assert torch.equal(vae.state_dict()[name], tensor), name
    assert loading.with_flow(TINY, folder).flow == TINY.flow


def test_sharded_weights_load(folder):
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    random_transformer().save_pretrained(folder / "transformer", max_shard_size="100KB")
    assert len(list((folder / "transformer").glob("*.safetensors"))) > 2
    loaded = loading.load_transformer(TINY, folder, torch.float32)
    torch.testing.assert_close(velocity(loaded), velocity(random_transformer()))


def test_a_vae_stored_for_stills_loads(folder):
    vae = random_vae()
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    save_file(stills.last_taps(vae.state_dict(), vae), path)
    found = stills.for_stills(loading.load_vae(TINY, folder))
    with torch.no_grad():
        wanted = stills.decode(stills.for_stills(vae), LATENTS[..., :4])
        assert torch.equal(stills.decode(found, LATENTS[..., :4]), wanted)


def test_the_folders_own_latent_scale_and_noise_levels_count(folder):
    path = folder / "vae" / "config.json"
    table = json.loads(path.read_text())
    path.write_text(json.dumps({**table, "latents_std": [3.0] * 4}))
    assert list(loading.load_vae(TINY, folder).config.latents_std) == [3.0] * 4
    path.write_text(json.dumps({**table, "latents_std": [3.0] * 16}))
    with pytest.raises(BadInput, match="latents_std needs 4 numbers"):
        loading.load_vae(TINY, folder)
    (folder / "scheduler" / "scheduler_config.json").write_text('{"base_shift": 1.0986, "_class_name": "x"}')
    assert loading.with_flow(TINY, folder).flow == replace(TINY.flow, base_shift=1.0986)


@pytest.mark.parametrize(("part", "setting", "value"), [("transformer", "num_layers", 60), ("vae", "base_dim", 96)])
def test_a_folder_of_another_size_is_named(folder, part, setting, value):
    path = folder / part / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), setting: value}))
    load = loading.load_vae if part == "vae" else lambda c, f: loading.load_transformer(c, f, torch.float32)
    with pytest.raises(BadInput, match=rf"{part}/config.json: {setting} is {value}, this pack needs"):
        load(TINY, folder)
    path.unlink()
    with pytest.raises(BadInput, match=rf"{part}/config.json cannot be read; a pack of Qwen-Image holds {part}/"):
        load(TINY, folder)


def test_weights_that_are_cut_short_or_not_all_there_are_named(folder):
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    whole = {name: tensor.clone() for name, tensor in load_file(path).items()}
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(BadInput, match=r"transformer cannot be loaded: .*; fetch or add it again"):
        loading.load_transformer(TINY, folder, torch.float32)
    del whole["img_in.weight"]
    save_file(whole, path, metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"has no tensor img_in.weight"):
        loading.load_transformer(TINY, folder, torch.float32)
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    save_file({name: t for name, t in state.items() if name != "decoder.conv_in.weight"}, path)
    with pytest.raises(BadInput, match=r"vae has no tensor decoder.conv_in.weight"):
        loading.load_vae(TINY, folder)


def adapter(rank: int = 3, layers: int = 2, inner: int = 32) -> dict[str, torch.Tensor]:
    """A LoRA on Q, K and V of both streams by bare module names."""
    generator = torch.Generator().manual_seed(3)
    state: dict[str, torch.Tensor] = {}
    for layer in range(layers):
        for name in ATTENTION:
            path = f"transformer_blocks.{layer}.attn.{name}"
            state[path + lora.DOWN] = 0.3 * torch.randn(rank, inner, generator=generator)
            state[path + lora.UP] = 0.3 * torch.randn(inner, rank, generator=generator)
    return state


def by_hand(state: dict[str, torch.Tensor], scale: float) -> QwenImageTransformer2DModel:
    network = random_transformer()
    with torch.no_grad():
        for path in {name.removesuffix(lora.DOWN) for name in state if name.endswith(lora.DOWN)}:
            network.get_submodule(path).weight += scale * state[path + lora.UP] @ state[path + lora.DOWN]
    return network


def kohya(state: dict[str, torch.Tensor], flat: str, alpha: float | None) -> dict[str, torch.Tensor]:
    """The same in kohya's or musubi's spelling: `flat` is the prefix, `lora_unet_` joins the path by underscores."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        path = name.removesuffix(lora.DOWN).removesuffix(lora.UP)
        half = "lora_down" if name.endswith(lora.DOWN) else "lora_up"
        spelled = flat + (path.replace(".", "_") if flat == "lora_unet_" else path)
        found[f"{spelled}.{half}.weight"] = tensor
        if alpha is not None:
            found[f"{spelled}.alpha"] = torch.tensor(alpha)
    return found


SPELLINGS = {
    "diffusers": (lambda state: {f"transformer.{name}": t for name, t in state.items()}, 1.0),
    "bare": (dict, 1.0),
    "diffusion_model": (lambda state: {f"diffusion_model.{name}": t for name, t in state.items()}, 1.0),
    "kohya": (lambda state: kohya(state, "lora_unet_", 1.5), 0.5),
    "musubi": (lambda state: kohya(state, "diffusion_model.", 6.0), 2.0),
    "default": (
        lambda state: {f"transformer.{name.replace('.weight', '.default.weight')}": t for name, t in state.items()},
        1.0,
    ),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_adapter_of_any_spelling_does_the_same(spelling):
    spell, scale = SPELLINGS[spelling]
    network = random_transformer()
    lora.load(network, spell(adapter()), "lora.safetensors")
    torch.testing.assert_close(velocity(network), velocity(by_hand(adapter(), scale)), rtol=1e-3, atol=1e-5)
    assert not torch.allclose(velocity(network), velocity(random_transformer()), atol=1e-3)


def test_what_is_saved_is_loaded_again():
    network = random_transformer()
    paths = lora.targets(network, ATTENTION)
    assert len(paths) == 12
    lora.add(network, dict.fromkeys(paths, 3), "gaussian")
    torch.testing.assert_close(velocity(network), velocity(random_transformer()))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.2)
    again = random_transformer()
    lora.load(again, lora.saved(network), "lora.safetensors")
    torch.testing.assert_close(velocity(again), velocity(network))


def other_family() -> dict[str, torch.Tensor]:
    return {
        f"transformer.single_transformer_blocks.0.attn.to_q{half}": torch.zeros(2, 2)
        for half in (".lora_A.weight", ".lora_B.weight")
    }


BROKEN = {
    "another size": (adapter(inner=48), r"adapter of \S+ is .*\(32, 32\) is needed; it is a LoRA for another"),
    "more blocks": (adapter(layers=3), r"adapts transformer_blocks.2.attn.to_q, which Qwen-Image has not"),
    "another model": (other_family(), r"looks like one for FLUX.1\); it is a LoRA for another base"),
    "nothing": ({}, r"holds no adapter"),
    "no lora": ({"transformer.transformer_blocks.0.attn.to_q.weight": torch.zeros(2, 2)}, r"LoRA for another base"),
    "half": ({k: v for k, v in adapter().items() if not k.endswith("to_v" + lora.UP)}, r"only one half of the adapter"),
    "nan": ({k: v * math.nan for k, v in adapter().items()}, r"holds NaN or Inf"),
    "dora": ({"transformer.transformer_blocks.0.attn.to_q.dora_scale": torch.zeros(2)}, r"is a DoRA"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_adapters_that_do_not_belong_here_are_refused(case):
    state, said = BROKEN[case]
    network = random_transformer()
    with pytest.raises(BadInput, match=rf"^mine.safetensors.*{said}"):
        lora.load(network, state, "mine.safetensors")
    assert torch.equal(velocity(network), velocity(random_transformer())), "a refused adapter leaves no trace"
