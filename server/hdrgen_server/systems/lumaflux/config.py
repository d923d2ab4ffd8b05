"""LumaFlux's configurations at their published and small sizes, as data. It must not know torch or diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from hdrgen_server.systems.detail import WHOLE, Belief
from hdrgen_server.systems.gmodiff.refine.config import S_VAE, VAEConfig

PATCH = 2
"""Latents along each axis that one token of a Flux transformer holds."""


@dataclass(frozen=True)
class FluxConfig:
    """Sizes of a diffusers `FluxTransformer2DModel`; `heads` times `head_dim` is its width."""

    in_channels: int
    layers: int
    single_layers: int
    heads: int
    head_dim: int
    joint_attention_dim: int
    pooled_projection_dim: int
    guidance_embeds: bool
    axes_dims_rope: tuple[int, int, int]

    @property
    def width(self) -> int:
        """Channels of a token inside the transformer."""
        return self.heads * self.head_dim

    @property
    def blocks(self) -> int:
        """Double-stream and single-stream blocks together."""
        return self.layers + self.single_layers

    def arguments(self) -> dict[str, Any]:
        """What `FluxTransformer2DModel` is built from, and what its config.json says."""
        return {
            "patch_size": 1,
            "in_channels": self.in_channels,
            "num_layers": self.layers,
            "num_single_layers": self.single_layers,
            "attention_head_dim": self.head_dim,
            "num_attention_heads": self.heads,
            "joint_attention_dim": self.joint_attention_dim,
            "pooled_projection_dim": self.pooled_projection_dim,
            "guidance_embeds": self.guidance_embeds,
            "axes_dims_rope": self.axes_dims_rope,
        }


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of a transformers `SiglipVisionModel` without its pooling head, which sees a picture as `side` x `side`
    tokens.
    """

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    image_size: int
    patch_size: int

    @property
    def side(self) -> int:
        """Tokens along each axis."""
        return self.image_size // self.patch_size

    def arguments(self) -> dict[str, Any]:
        """What `SiglipVisionConfig` is built from, and what its config.json says."""
        return {
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "image_size": self.image_size,
            "patch_size": self.patch_size,
            "vision_use_head": False,
        }


@dataclass(frozen=True)
class AdapterConfig:
    """Sizes of what LumaFlux adds and trains (released configuration `main`, commit c292787).

    `tones` are quantiles of the plate's codes that the perceptual tokens and the tone field are told; the document has
    none.
    """

    rank: int = 8
    bottleneck: int = 64
    knots: int = 8
    physical_channels: int = 32
    statistics: int = 16
    bands: int = 8
    null_tokens: int = 8
    modulation: int = 128
    tone_hidden: int = 128
    tones: tuple[float, ...] = ()


@dataclass(frozen=True)
class LumaFluxConfig:
    """A whole system. `vae_shift` is taken from latents before they are scaled; `quant_conv` is whether the VAE has the
    two 1x1 convolutions around its latent. `peak_nits` is the mastering peak that the tone field is normalised by.
    """

    flux: FluxConfig
    vae: VAEConfig
    encoder: EncoderConfig
    adapters: AdapterConfig = AdapterConfig()
    belief: Belief = WHOLE
    vae_shift: float = 0.0
    quant_conv: bool = True
    peak_nits: float = 1000.0
    guidance: float = 1.0
    bridge_noise: float = 0.05

    @property
    def cell(self) -> int:
        """Pixels along each axis that one token of the transformer stands for."""
        return PATCH * self.vae.factor

    def vae_arguments(self) -> dict[str, Any]:
        """What the VAE is built from, and what its config.json says."""
        return {
            **self.vae.arguments(),
            "shift_factor": self.vae_shift,
            "use_quant_conv": self.quant_conv,
            "use_post_quant_conv": self.quant_conv,
        }


# Black Forest Labs, FLUX.1-dev: transformer/config.json and vae/config.json of its diffusers release.
FLUX1_DEV = FluxConfig(64, 19, 38, 24, 128, 4096, 768, guidance_embeds=True, axes_dims_rope=(16, 56, 56))
FLUX1_VAE = VAEConfig(
    (128, 256, 512, 512), layers_per_block=2, norm_num_groups=32, latent_channels=16, scaling_factor=0.3611,
    sample_size=1024,
)  # fmt: skip
# Zhai et al. 2023: google/siglip-so400m-patch14-384, vision_config of its config.json.
SIGLIP_SO400M = EncoderConfig(1152, 4304, 27, 16, 384, 14)

S_FLUX = FluxConfig(16, 2, 3, 6, 32, 128, 64, guidance_embeds=False, axes_dims_rope=(8, 12, 12))
S_ENCODER = EncoderConfig(96, 256, 4, 4, 128, 16)
# So small a model sees colour that is not there, and most of what it sees from place to place is not there either.
S_BELIEF = Belief(local=0.25, colour=0.0)
S_TONES = (
    0.005, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.96, 0.97, 0.98, 0.985,
    0.99, 0.995, 0.998, 0.9995,
)  # fmt: skip

CONFIGS: Mapping[str, LumaFluxConfig] = MappingProxyType({
    "published": LumaFluxConfig(FLUX1_DEV, FLUX1_VAE, SIGLIP_SO400M, vae_shift=0.1159, quant_conv=False),
    # Trained here from nothing. Its peak is the end of the PQ curve: highlights of plates go beyond 1000 cd/m2.
    "s": LumaFluxConfig(
        S_FLUX, S_VAE, S_ENCODER, AdapterConfig(bottleneck=32, tones=S_TONES), S_BELIEF, peak_nits=10_000.0
    ),
})  # fmt: skip
