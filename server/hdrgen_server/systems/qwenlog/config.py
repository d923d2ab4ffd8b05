"""Qwen-Image's configurations at their published and small sizes, as data. It must not know torch or diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

PATCH = 2
"""Latents along each axis that one token holds: the pipeline packs (channel, row, column) into a token's channels."""


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a diffusers `QwenImageTransformer2DModel`; `latent_channels` before they are packed into tokens."""

    latent_channels: int
    layers: int
    heads: int
    head_dim: int
    joint_attention_dim: int
    axes_dims_rope: tuple[int, int, int]

    @property
    def width(self) -> int:
        """Channels of a token inside the transformer."""
        return self.heads * self.head_dim

    def arguments(self) -> dict[str, Any]:
        """What `QwenImageTransformer2DModel` is built from, and what its config.json says."""
        return {
            "patch_size": PATCH,
            "in_channels": PATCH * PATCH * self.latent_channels,
            "out_channels": self.latent_channels,
            "num_layers": self.layers,
            "attention_head_dim": self.head_dim,
            "num_attention_heads": self.heads,
            "joint_attention_dim": self.joint_attention_dim,
            "guidance_embeds": False,
            "axes_dims_rope": self.axes_dims_rope,
        }


@dataclass(frozen=True)
class VAEConfig:
    """Sizes of a diffusers `AutoencoderKLQwenImage`; `channels` of its pictures; mean and deviation of its latents."""

    base_dim: int
    latent_channels: int
    dim_mult: tuple[int, ...]
    res_blocks: int
    latents_mean: tuple[float, ...]
    latents_std: tuple[float, ...]
    channels: int = 3

    @property
    def factor(self) -> int:
        """Pixels along each axis of one latent."""
        return 2 ** (len(self.dim_mult) - 1)

    def arguments(self) -> dict[str, Any]:
        """What `AutoencoderKLQwenImage` is built from, and what its config.json says."""
        halvings = len(self.dim_mult) - 1
        return {
            "base_dim": self.base_dim,
            "z_dim": self.latent_channels,
            "dim_mult": list(self.dim_mult),
            "num_res_blocks": self.res_blocks,
            "attn_scales": [],
            "temperal_downsample": [index > 0 for index in range(halvings)],
            "dropout": 0.0,
            "input_channels": self.channels,
            "latents_mean": list(self.latents_mean),
            "latents_std": list(self.latents_std),
        }


@dataclass(frozen=True)
class TextConfig:
    """What reads the prompt: `kind` names the encoder, `width` its tokens' channels, `limit` the most that it takes."""

    kind: Literal["qwen2.5-vl", "wordllama"]
    width: int
    limit: int


@dataclass(frozen=True)
class FlowConfig:
    """How the noise levels of a sampling shift with the number of tokens; the names are the scheduler's own."""

    base_image_seq_len: int = 256
    max_image_seq_len: int = 8192
    base_shift: float = 0.5
    max_shift: float = 0.9
    shift_terminal: float | None = 0.02

    def arguments(self) -> dict[str, Any]:
        """What `FlowMatchEulerDiscreteScheduler` is built from."""
        return {**vars(self), "shift": 1.0, "use_dynamic_shifting": True, "time_shift_type": "exponential"}


@dataclass(frozen=True)
class QwenConfig:
    """A whole system. `trained_tokens` is how many tokens the pictures of its training had: far more look repeated."""

    transformer: TransformerConfig
    vae: VAEConfig
    text: TextConfig
    flow: FlowConfig
    trained_tokens: int

    @property
    def cell(self) -> int:
        """Pixels along each axis that one token of the transformer stands for."""
        return PATCH * self.vae.factor


# Qwen/Qwen-Image and Qwen/Qwen-Image-2512: transformer/, vae/ and scheduler/ of their diffusers releases.
QWEN_IMAGE = TransformerConfig(16, 60, 24, 128, 3584, (16, 56, 56))
QWEN_VAE = VAEConfig(
    96, 16, (1, 2, 4, 4), 2,
    latents_mean=(
        -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
        0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
    ),
    latents_std=(
        2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
        3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
    ),
)  # fmt: skip
QWEN_TEXT = TextConfig("qwen2.5-vl", 3584, 1024)

S_TRANSFORMER = TransformerConfig(16, 4, 5, 32, 256, (8, 12, 12))
S_VAE = VAEConfig(24, 16, (1, 2, 4, 4), 1, latents_mean=(0.0,) * 16, latents_std=(1.0,) * 16)
S_TEXT = TextConfig("wordllama", 256, 96)
# Few tokens need few shifts: the levels stay as they are trained.
S_FLOW = FlowConfig(base_image_seq_len=32, max_image_seq_len=256, base_shift=0.0, max_shift=0.5, shift_terminal=None)

CONFIGS: Mapping[str, QwenConfig] = MappingProxyType({
    "published": QwenConfig(QWEN_IMAGE, QWEN_VAE, QWEN_TEXT, FlowConfig(), trained_tokens=8192),
    "s": QwenConfig(S_TRANSFORMER, S_VAE, S_TEXT, S_FLOW, trained_tokens=128),
})  # fmt: skip


def widened(config: QwenConfig, latent_channels: int, picture_channels: int) -> QwenConfig:
    """The same system with more latent channels and a VAE of more picture channels, latents not yet measured."""
    vae = replace(
        config.vae,
        latent_channels=latent_channels,
        channels=picture_channels,
        latents_mean=(0.0,) * latent_channels,
        latents_std=(1.0,) * latent_channels,
    )
    return replace(config, transformer=replace(config.transformer, latent_channels=latent_channels), vae=vae)
