"""Small LumiVid configurations and networks for tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl_ltx2 import AutoencoderKLLTX2Video
from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel
from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel
from safetensors.torch import save_file

from hdrgen_server.packs.add import finished_manifest
from hdrgen_server.packs.manifest import Pack, parse_pack
from hdrgen_server.systems.lumivid.config import (
    CONFIGS,
    LumiVidConfig,
    Sampling,
    TransformerConfig,
    UpsamplerConfig,
    VideoVAEConfig,
)

torch.set_num_threads(1)
PUBLISHED = CONFIGS["published"]
TINY_TRANSFORMER = TransformerConfig(8, 2, 2, 12, 4, 2, 4, longest_s=2, base=256)
TINY_VAE = VideoVAEConfig(
    8,
    (8, 8, 8), (1, 0, 0, 0), ("spatiotemporal", "spatiotemporal", "temporal"),
    (8, 8, 8), (0, 0, 0, 0), ("temporal", "spatiotemporal", "spatiotemporal"), (1, 1, 1),
    space=16,
)  # fmt: skip
TINY = LumiVidConfig(TINY_TRANSFORMER, TINY_VAE, None, Sampling((1.0, 0.6, 0.0)))
FROM_PLATE = replace(TINY, from_plate=True)
TWO_STAGES = LumiVidConfig(
    TINY_TRANSFORMER, TINY_VAE, UpsamplerConfig(8, 32, 1),
    Sampling((1.0, 0.9, 0.0), draft=(0.8, 0.0), final=(0.8, 0.4, 0.0)),
)  # fmt: skip


def random_transformer(config: LumiVidConfig = TINY, seed: int = 0) -> LTX2VideoTransformer3DModel:
    """A transformer with random weights."""
    torch.manual_seed(seed)
    return LTX2VideoTransformer3DModel(**config.transformer_arguments()).eval()


def random_vae(config: LumiVidConfig = TINY, seed: int = 1) -> AutoencoderKLLTX2Video:
    """A VAE with random weights and latents that are neither centred nor of unit size."""
    torch.manual_seed(seed)
    vae = AutoencoderKLLTX2Video(**config.vae.arguments()).eval()
    vae.latents_mean.fill_(0.1)
    vae.latents_std.fill_(0.5)
    return vae


def random_contexts(config: LumiVidConfig = TINY, tokens: int = 3) -> dict[str, torch.Tensor]:
    """Scene embeddings by their published names."""
    generator = torch.Generator().manual_seed(5)
    widths = {"video_context": config.transformer.width, "audio_context": config.transformer.audio_width}
    return {name: torch.randn(1, tokens, width, generator=generator) for name, width in widths.items()}


def lora_state(config: LumiVidConfig = TINY, rank: int = 2, seed: int = 7) -> dict[str, torch.Tensor]:
    """An IC-LoRA as published: attention and feed-forward of every block, `diffusion_model.` before LTX's own names."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        modules = dict(LTX2VideoTransformer3DModel(**config.transformer_arguments()).named_modules())
    parts = [f"{a}.{p}" for a in ("attn1", "attn2") for p in ("to_q", "to_k", "to_v", "to_out.0")]
    state: dict[str, torch.Tensor] = {}
    for block in range(config.transformer.layers):
        for part in (*parts, "ff.net.0.proj", "ff.net.2"):
            name = f"transformer_blocks.{block}.{part}"
            module = modules[name]
            state[f"diffusion_model.{name}.lora_A.weight"] = torch.randn(rank, module.in_features, generator=generator)
            state[f"diffusion_model.{name}.lora_B.weight"] = torch.randn(module.out_features, rank, generator=generator)
    return state


def write_networks(folder: Path, config: LumiVidConfig = TINY) -> Path:
    """Random networks as diffusers saves them, each in its folder."""
    random_transformer(config).save_pretrained(folder / "transformer")
    random_vae(config).save_pretrained(folder / "vae")
    if config.upsampler is not None:
        torch.manual_seed(2)
        LTX2LatentUpsamplerModel(**config.upsampler.arguments()).save_pretrained(folder / "latent_upsampler")
    return folder


def write_pack(folder: Path, config: LumiVidConfig = TINY, *, lora: bool = False, scale: int = 1) -> Path:
    """A pack's folder of random networks, as diffusers saves them, with a manifest that names no files."""
    write_networks(folder, config)
    save_file(random_contexts(config), folder / "scene.safetensors")
    if lora:
        metadata = {"reference_downscale_factor": str(scale), "hdr_transform": "logc3", "use_hdr_transform": "true"}
        save_file(lora_state(config), folder / "lora.safetensors", metadata=metadata)
    (folder / "pack.toml").write_text(
        'format = 1\nname = "lumivid-tiny"\nsystem = "lumivid"\nlicence = "Apache-2.0"\n[options]\nconfig = "tiny"\n'
    )
    return folder


def pack_of(folder: Path) -> Pack:
    """The pack of a folder, its files recorded."""
    (folder / "pack.toml").write_bytes(finished_manifest(folder))
    return parse_pack((folder / "pack.toml").read_bytes(), folder)
