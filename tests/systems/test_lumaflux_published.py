"""The published configuration on the meta device: counts, names and shapes of the released checkpoint."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from lumaflux_cases import PUBLISHED

from hdrgen_server.systems.lumaflux.adapters import Adapters, parameter_groups, published_names

# facts of the released code (commit c292787, configs/train/main.yaml): trainable parameters by part.
COUNTS = {
    "pga": 2_881_008,
    "pcm": 33_973_824,
    "coupler": 33_736_704,
    "connector": 273_472,
    "context": 340_032,
    "modulation": 41_094,
    "null and pooled": 46_592,
    "head": 21_913,
    "chroma": 6,
    "physical": 1_248,
}
TRAINED, FROZEN = 71_315_893, 11_901_408_320

ONCE = {
    "null_context": (8, 4096),
    "null_pooled": (768,),
    "physical.conv.weight": (32, 3, 3, 3),
    "physical.conv.bias": (32,),
    "physical.mlp_g.0.weight": (16, 4),
    "physical.mlp_g.0.bias": (16,),
    "physical.mlp_g.2.weight": (16, 16),
    "physical.mlp_g.2.bias": (16,),
    "perc_connector.proj.0.weight": (64, 1152),
    "perc_connector.proj.0.bias": (64,),
    "perc_connector.proj.2.weight": (3072, 64),
    "perc_connector.proj.2.bias": (3072,),
    "ctx_connector.proj.0.weight": (64, 1152),
    "ctx_connector.proj.0.bias": (64,),
    "ctx_connector.proj.2.weight": (4096, 64),
    "ctx_connector.proj.2.bias": (4096,),
    "pooled_from_stats.weight": (768, 16),
    "pooled_from_stats.bias": (768,),
    "modulation.t_proj.weight": (128, 128),
    "modulation.t_proj.bias": (128,),
    "modulation.layer_embed.weight": (57, 128),
    "modulation.mlp.1.weight": (128, 128),
    "modulation.mlp.1.bias": (128,),
    "modulation.head.weight": (6, 128),
    "modulation.head.bias": (6,),
    "rqs.head.0.weight": (128, 16),
    "rqs.head.0.bias": (128,),
    "rqs.head.2.weight": (128, 128),
    "rqs.head.2.bias": (128,),
    "rqs.head.4.weight": (25, 128),
    "rqs.head.4.bias": (25,),
    "rqs.chroma.weight": (2, 2, 1, 1),
    "rqs.chroma.bias": (2,),
}
EACH_BLOCK = {
    "pga.down.weight": (8, 3072),
    "pga.up.weight": (3072, 8),
    "pga.p_v.weight": (24, 48),
    "pga.p_v.bias": (24,),
    "pga.w_r.weight": (24, 8),
    "pga.w_r.bias": (24,),
    "pcm.mlp.0.weight": (64, 3072),
    "pcm.mlp.0.bias": (64,),
    "pcm.mlp.2.weight": (6144, 64),
    "pcm.mlp.2.bias": (6144,),
    "coupler.w_p.0.weight": (64, 32),
    "coupler.w_p.2.weight": (3072, 64),
    "coupler.w_c.0.weight": (64, 3072),
    "coupler.w_c.2.weight": (3072, 64),
}


@pytest.fixture(scope="module")
def adapters() -> Adapters:
    with torch.device("meta"):
        return Adapters(PUBLISHED)


def test_the_trainable_count_is_the_published_one_part_by_part(adapters):
    assert parameter_groups(adapters) == COUNTS
    assert sum(COUNTS.values()) == TRAINED == sum(p.numel() for p in adapters.parameters())


def test_the_frozen_transformer_has_the_size_of_flux1():
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(**PUBLISHED.flux.arguments())
    assert sum(p.numel() for p in transformer.parameters()) == FROZEN


def test_the_vae_has_the_size_of_flux1s():
    with torch.device("meta"):
        vae = AutoencoderKL(**PUBLISHED.vae_arguments())
    assert sum(p.numel() for p in vae.parameters()) == 83_819_683


def test_names_and_shapes_are_those_of_the_published_file(adapters):
    blocks = [("transformer.transformer_blocks", 19), ("transformer.single_transformer_blocks", 38)]
    expected = dict(ONCE)
    for prefix, count in blocks:
        expected |= {f"{prefix}.{n}.{name}": shape for n in range(count) for name, shape in EACH_BLOCK.items()}
    assert {name: tuple(tensor.shape) for name, tensor in adapters.state_dict().items()} == expected


def test_a_file_that_names_the_shared_conditioner_by_the_first_block_is_read_too(adapters):
    repeated = {
        name.replace("modulation.", "transformer.transformer_blocks.0.modulation.", 1)
        if name.startswith("modulation.")
        else name: tensor
        for name, tensor in adapters.state_dict().items()
    }
    assert published_names(repeated).keys() == adapters.state_dict().keys()
