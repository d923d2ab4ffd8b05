"""LumiVid at its published configuration: counts and names on the meta device, and published files at reduced depth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_ltx2 import AutoencoderKLLTX2Video
from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel
from diffusers.pipelines.ltx2.image_processor import LTX2VideoHDRProcessor
from diffusers.pipelines.ltx2.utils import DISTILLED_SIGMA_VALUES, STAGE_2_DISTILLED_SIGMA_VALUES
from lumivid_cases import PUBLISHED, TINY, lora_state, random_contexts, random_transformer, random_vae, write_pack
from safetensors.torch import save_file

from hdrgen_server.systems.lumivid import codes as c
from hdrgen_server.systems.lumivid import loading
from hdrgen_server.systems.lumivid.config import CONFIGS
from nuke_hdrgen.wire.errors import BadInput

# Parameters of the public checkpoint's transformer, its connectors left out.
LTX_2_3 = 18_988_838_144


def meta(config):
    with torch.device("meta"):
        return LTX2VideoTransformer3DModel(**config.transformer_arguments()), AutoencoderKLLTX2Video(
            **config.vae.arguments()
        )


def test_the_published_transformer_has_the_checkpoints_parameters_and_names():
    transformer, vae = meta(PUBLISHED)
    assert sum(p.numel() for p in transformer.parameters()) == LTX_2_3
    names = set(transformer.state_dict())
    for name in (
        "proj_in.weight", "time_embed.linear.weight", "prompt_adaln.linear.weight", "audio_prompt_adaln.linear.weight",
        "transformer_blocks.47.attn1.to_gate_logits.weight", "transformer_blocks.47.audio_attn2.norm_k.weight",
        "transformer_blocks.0.audio_to_video_attn.to_q.weight", "transformer_blocks.0.ff.net.0.proj.weight",
        "transformer_blocks.0.video_a2v_cross_attn_scale_shift_table", "av_cross_attn_video_a2v_gate.linear.bias",
    ):  # fmt: skip
        assert name in names, name
    assert not any("caption_projection" in name for name in names)
    assert (vae.spatial_compression_ratio, vae.temporal_compression_ratio) == (32, 8)
    assert {"latents_mean", "latents_std", "encoder.down_blocks.3.downsamplers.0.conv.conv.weight"} <= set(
        vae.state_dict()
    )


def test_the_levels_are_the_released_ones():
    sampling = PUBLISHED.sampling
    assert list(sampling.first) == [*DISTILLED_SIGMA_VALUES, 0]
    assert list(sampling.final) == [*STAGE_2_DISTILLED_SIGMA_VALUES, 0]
    assert list(sampling.draft) == [0.909375, 0.725, 0]
    assert len(sampling.first) - 1 + len(sampling.final) - 1 == 11


def test_the_codes_are_the_released_ones():
    codes = np.linspace(0, 1, 101, dtype=np.float32)
    released = LTX2VideoHDRProcessor._logc3_decompress(torch.from_numpy(codes)).numpy()
    light, held = c.light_of(codes)
    np.testing.assert_allclose(light, np.maximum(released, 0), rtol=1e-4, atol=1e-6)
    assert held == 0
    assert light[-1] == pytest.approx(55.08, abs=0.01)
    assert c.light_of(np.float32([1.01]))[1] == 1
    back, outside = c.hdr_codes(light)
    np.testing.assert_allclose(back[10:], codes[10:], atol=1e-5)
    assert outside == 0
    assert c.hdr_codes(np.float32([-1, 0.2, 100]))[1] == 2


def test_published_widths_run_at_a_reduced_depth():
    config = replace(PUBLISHED, transformer=replace(PUBLISHED.transformer, layers=1))
    assert lora_state(config, rank=1).keys() >= {"diffusion_model.transformer_blocks.0.attn1.to_out.0.lora_A.weight"}
    transformer, _ = meta(config)
    one_block = sum(p.numel() for p in transformer.transformer_blocks.parameters())
    assert sum(p.numel() for p in transformer.parameters()) + 47 * one_block == LTX_2_3


def test_size_s_is_small_enough_to_ship():
    transformer, vae = meta(CONFIGS["s"])
    count = sum(p.numel() for network in (transformer, vae) for p in network.parameters())
    assert 2 * count < 9_000_000  # bytes in half precision


@pytest.fixture
def folder(tmp_path):
    return write_pack(tmp_path, lora=True, scale=2)


def test_a_lora_of_the_published_spelling_changes_what_the_transformer_says(folder):
    with_lora = loading.load_lumivid(TINY, folder, torch.float32)
    (folder / "lora.safetensors").unlink()
    without = loading.load_lumivid(TINY, folder, torch.float32)
    assert (with_lora.scale, without.scale) == (2, 1)
    assert without.dtype == torch.float32
    latents, reference = (torch.randn(1, 8, 2, 2, 2, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    level = torch.full((1, 2), 0.7)
    with torch.inference_mode():
        one, two = (model.velocity(latents, level, reference, 24.0) for model in (with_lora, without))
    assert one.shape == latents.shape
    assert not torch.allclose(one, two)


def test_the_vae_is_frozen_and_its_latents_are_normalised(folder):
    model = loading.load_lumivid(TINY, folder, torch.float32)
    assert not any(p.requires_grad for p in model.parameters())
    codes = torch.rand(1, 3, 9, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        latents = model.encode(codes)
        assert latents.shape == (1, 8, 2, 2, 2)
        plain = model.vae.encode(2 * codes - 1).latent_dist.mode()
        torch.testing.assert_close(latents, (plain - 0.1) / 0.5)
        assert model.decode(latents).shape == codes.shape


def rename(state, old, new):
    return {name.replace(old, new): tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("state", "metadata", "says"),
    [
        (lambda: rename(lora_state(), "transformer_blocks", "single_blocks"), {}, "which LTX-2.3 has not"),
        (lambda: {n: t for n, t in lora_state().items() if "block.1" in n or "lora_A" in n}, {}, "only one half"),
        (lambda: {n: t.new_full(t.shape, torch.nan) for n, t in lora_state().items()}, {}, "NaN or Inf"),
        (lambda: lora_state(replace(TINY, transformer=replace(TINY.transformer, heads=4))), {}, "for another base"),
        (lambda: {"x": torch.zeros(1)}, {}, "adapts x"),
        (lora_state, {"hdr_transform": "acescct"}, "makes acescct codes"),
        (lora_state, {"reference_downscale_factor": "half"}, "is no whole number"),
        (lora_state, {"reference_downscale_factor": "0"}, "must be 1 or more"),
    ],
)
def test_another_bases_lora_is_named(tmp_path, state, metadata, says):
    path = tmp_path / "lora.safetensors"
    save_file(state(), path, metadata=metadata)
    with pytest.raises(BadInput, match=says):
        loading.load_lora(random_transformer(), path)


def test_files_that_do_not_fit_are_named(folder):
    context = folder / "scene.safetensors"
    save_file({"video_context": torch.zeros(1, 3, 7)}, context)
    with pytest.raises(BadInput, match=r"video_context is \(1, 3, 7\)"):
        loading.load_contexts(TINY, context)
    save_file({"audio_context": random_contexts()["audio_context"]}, context)
    with pytest.raises(BadInput, match="has no tensor video_context"):
        loading.load_contexts(TINY, context)
    context.write_bytes(b"cut short")
    with pytest.raises(BadInput, match="cannot be read as safetensors"):
        loading.load_contexts(TINY, context)
    with pytest.raises(BadInput, match="num_layers is 2, this pack needs 48"):
        loading.load_transformer(replace(TINY, transformer=replace(TINY.transformer, layers=48)), folder, torch.float32)
    wide = replace(TINY, vae=replace(TINY.vae, latent_channels=16))
    with pytest.raises(BadInput, match="latent_channels is 8"):
        loading.load_vae(wide, folder)
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(BadInput, match="vae cannot be loaded"):
        loading.load_vae(TINY, folder)
    (folder / "vae" / "config.json").unlink()
    with pytest.raises(BadInput, match="holds vae/ as diffusers saved it"):
        loading.load_vae(TINY, folder)


def test_a_vae_that_lacks_tensors_is_named(tmp_path):
    vae = random_vae()
    vae.save_pretrained(tmp_path / "vae")
    state = dict(vae.state_dict())
    state.pop("decoder.conv_in.conv.weight")
    save_file(state, tmp_path / "vae" / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"has no tensor decoder.conv_in.conv.weight"):
        loading.load_vae(TINY, tmp_path)
