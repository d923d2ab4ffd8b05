"""Small stage-two configurations and inputs for tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from hdrgen_server.systems.gmodiff.config import CONFIGS
from hdrgen_server.systems.gmodiff.refine.config import REFINERS, LoraRanks, RefinerConfig, UNetConfig, VAEConfig
from hdrgen_server.systems.gmodiff.refine.initial import Initial
from hdrgen_server.systems.gmodiff.refine.model import Refiner

torch.set_num_threads(1)
CELL = 2
TINY_VAE = VAEConfig((8, 16), layers_per_block=1, norm_num_groups=4, scaling_factor=0.7, sample_size=32)
TINY_UNET = UNetConfig(
    (16, 32), (False, True), layers_per_block=1, heads=(2, 4), cross_attention_dim=24, norm_num_groups=4, sample_size=16
)
TINY = replace(
    REFINERS["s"], vae=TINY_VAE, unet=TINY_UNET, lora=LoraRanks(unet=4, vae=4, condition=4, alpha=4), token=4
)
# The published widths of the middle of SD2.1, one layer a block and two scales, so that it fits a test.
REDUCED_SD21 = replace(
    REFINERS["sd21"],
    vae=replace(REFINERS["sd21"].vae, block_out_channels=(128, 256), layers_per_block=1),
    unet=replace(
        REFINERS["sd21"].unet, block_out_channels=(320, 640), attends=(True, False), heads=(5, 10), layers_per_block=1
    ),
)


def random_refiner(config: RefinerConfig, seed: int = 0) -> Refiner:
    """A refiner as built, with random weights; what starts at zero is zero."""
    torch.manual_seed(seed)
    return Refiner(config).eval()


def stirred(refiner: Refiner, amount: float = 0.05, seed: int = 1) -> Refiner:
    """Noise on every parameter, so that no path is without effect."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in refiner.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=amount)
    return refiner


def localised(refiner: Refiner) -> Refiner:
    """Without what looks at all of a tile, group norms and attention: only its border tells it from a frame."""
    for module in list(refiner.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, nn.Identity())
            elif isinstance(child, Attention):
                nn.init.zeros_(child.to_out[0].weight)
    return refiner


def random_inputs(
    config: RefinerConfig, height: int, width: int, seed: int = 2
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gain map, mask, L0's codes and c_L for an image of this size."""
    generator = torch.Generator().manual_seed(seed)
    prior = torch.randn(
        1, config.unet.cross_attention_dim, -(-height // config.token), -(-width // config.token), generator=generator
    )
    gain = torch.rand(1, 3, height, width, generator=generator)
    mask = torch.rand(1, 1, height, width, generator=generator)
    return gain, mask, torch.rand(1, 3, height, width, generator=generator), prior


def random_initial(refiner: Refiner, height: int, width: int, seed: int = 4) -> Initial:
    """What stage one might say about a frame: smooth maps with detail, and features at every second pixel."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width] / 40
    wave = (0.5 + 0.4 * np.sin(rows + 2 * np.cos(columns)))[..., None].astype(np.float32)
    noise = rng.uniform(-0.05, 0.05, (2, height, width, 3)).astype(np.float32)
    mask_hw = np.clip(1.5 * np.sin(rows * 1.3) * np.sin(columns), 0, 1).astype(np.float32)
    channels = sum(CONFIGS[refiner.config.regressor].widths)
    pooled_chw = rng.standard_normal((channels, -(-height // CELL), -(-width // CELL))).astype(np.float32)
    return Initial(wave + noise[0], mask_hw, 1 - wave + noise[1], pooled_chw, CELL)
