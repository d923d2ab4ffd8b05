"""LumiVid's configurations at their published and small sizes, as data. It must not know torch or diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from hdrgen_server.systems.lumaflux.config import WHOLE, Belief

FPS = 24.0
"""Frames a second where nothing says: positions in time are seconds."""


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a diffusers `LTX2VideoTransformer3DModel` as LTX-2.3 has it: gated attention, modulated cross-attention
    and an audio side, no prompt projection. `heads` times `head_dim` is the width of a video token, and likewise for
    audio. `longest_s` and `base` are the seconds and pixels that positions are told in fractions of.
    """

    channels: int
    layers: int
    heads: int
    head_dim: int
    audio_channels: int
    audio_heads: int
    audio_head_dim: int
    longest_s: int = 20
    base: int = 2048

    @property
    def width(self) -> int:
        """Channels of a video token inside the transformer, and of its context."""
        return self.heads * self.head_dim

    @property
    def audio_width(self) -> int:
        """Channels of an audio token inside the transformer, and of its context."""
        return self.audio_heads * self.audio_head_dim

    def arguments(self, factors: tuple[int, int, int]) -> dict[str, Any]:
        """What the transformer is built from, and what its config.json says, for a VAE of these (time, height, width)
        factors.
        """
        return {
            "in_channels": self.channels,
            "out_channels": self.channels,
            "num_attention_heads": self.heads,
            "attention_head_dim": self.head_dim,
            "cross_attention_dim": self.width,
            "vae_scale_factors": factors,
            "pos_embed_max_pos": self.longest_s,
            "base_height": self.base,
            "base_width": self.base,
            "gated_attn": True,
            "cross_attn_mod": True,
            "audio_in_channels": self.audio_channels,
            "audio_out_channels": self.audio_channels,
            "audio_num_attention_heads": self.audio_heads,
            "audio_attention_head_dim": self.audio_head_dim,
            "audio_cross_attention_dim": self.audio_width,
            "audio_pos_embed_max_pos": self.longest_s,
            "audio_gated_attn": True,
            "audio_cross_attn_mod": True,
            "num_layers": self.layers,
            "rope_type": "split",
            "use_prompt_embeddings": False,
            "perturbed_attn": True,
        }


@dataclass(frozen=True)
class VideoVAEConfig:
    """Sizes of a diffusers `AutoencoderKLLTX2Video`; `down` and `up` name what each block halves or doubles.

    The first frame has a latent of its own, each further one stands for `time` frames. `residual` is whether what goes
    up passes beside its convolution too.
    """

    latent_channels: int
    encoder: tuple[int, ...]
    encoder_layers: tuple[int, ...]
    down: tuple[str, ...]
    decoder: tuple[int, ...]
    decoder_layers: tuple[int, ...]
    up: tuple[str, ...]
    up_factor: tuple[int, ...]
    space: int = 32
    time: int = 8
    residual: bool = False

    def arguments(self) -> dict[str, Any]:
        """What the VAE is built from, and what its config.json says."""
        ups = len(self.up)
        return {
            "latent_channels": self.latent_channels,
            "block_out_channels": self.encoder,
            "down_block_types": ("LTX2VideoDownBlock3D",) * len(self.encoder),
            "layers_per_block": self.encoder_layers,
            "downsample_type": self.down,
            "spatio_temporal_scaling": (True,) * len(self.down),
            "decoder_block_out_channels": self.decoder,
            "decoder_layers_per_block": self.decoder_layers,
            "upsample_type": self.up,
            "upsample_factor": self.up_factor,
            "upsample_residual": (self.residual,) * ups,
            "decoder_spatio_temporal_scaling": (True,) * ups,
            "decoder_inject_noise": (False,) * (ups + 1),
            "encoder_causal": True,
            "decoder_causal": False,
            "decoder_spatial_padding_mode": "zeros",
            "spatial_compression_ratio": self.space,
            "temporal_compression_ratio": self.time,
        }

    def latent_frames(self, frames: int) -> int:
        """Latents of a clip of `time` k + 1 frames."""
        return (frames - 1) // self.time + 1


@dataclass(frozen=True)
class UpsamplerConfig:
    """Sizes of a diffusers `LTX2LatentUpsamplerModel` that doubles height and width of latents."""

    channels: int
    width: int = 1024
    blocks: int = 4

    def arguments(self) -> dict[str, Any]:
        """What the upsampler is built from, and what its config.json says."""
        return {"in_channels": self.channels, "mid_channels": self.width, "num_blocks_per_stage": self.blocks}


@dataclass(frozen=True)
class Sampling:
    """Noise levels from 1 to 0: of the first stage, and of the second one after latents are doubled, in draft and in
    final quality; no second stage where they are empty.
    """

    first: tuple[float, ...]
    draft: tuple[float, ...] = ()
    final: tuple[float, ...] = ()


@dataclass(frozen=True)
class LumiVidConfig:
    """A whole system. `working_side` is the longest side that the model sees a picture at, 0 for its own size:
    what it finds is a gain over the plate, which keeps its own detail. With `from_plate` the flow begins not at noise
    but at the plate itself, in the codes of HDR.
    """

    transformer: TransformerConfig
    vae: VideoVAEConfig
    upsampler: UpsamplerConfig | None
    sampling: Sampling
    working_side: int = 0
    from_plate: bool = False
    belief: Belief = WHOLE

    @property
    def factors(self) -> tuple[int, int, int]:
        """Frames, rows and columns that one latent stands for."""
        return self.vae.time, self.vae.space, self.vae.space

    @property
    def cell(self) -> int:
        """Pixels that a clip's sides are multiples of: with two stages the first one sees half of them."""
        return self.vae.space * (2 if self.upsampler else 1)

    def transformer_arguments(self) -> dict[str, Any]:
        """What the transformer is built from."""
        return self.transformer.arguments(self.factors)


# Lightricks, LTX-2.3 (22 B with its connectors): transformer/config.json and vae/config.json of its diffusers release.
LTX_2_3 = TransformerConfig(128, 48, 32, 128, 128, 32, 64)
LTX_2_3_VAE = VideoVAEConfig(
    128,
    (256, 512, 1024, 1024), (4, 6, 4, 2, 2), ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
    (256, 512, 512, 1024), (4, 6, 4, 2, 2), ("spatiotemporal", "spatiotemporal", "temporal", "spatial"), (2, 2, 1, 2),
)  # fmt: skip
# The distilled model's levels; the document's second stage takes three steps, the released one two.
DISTILLED = Sampling(
    (1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875, 0.0),
    draft=(0.909375, 0.725, 0.0),
    final=(0.909375, 0.725, 0.421875, 0.0),
)

S_TRANSFORMER = TransformerConfig(32, 3, 4, 36, 8, 4, 4, longest_s=2, base=512)
S_VAE = VideoVAEConfig(
    32,
    (128, 128, 64), (0, 0, 0, 0), ("spatiotemporal", "temporal", "temporal"),
    (64, 64, 64), (0, 0, 0, 0), ("temporal", "temporal", "spatiotemporal"), (2, 1, 1),
    space=8,
    residual=True,
)  # fmt: skip
S_SAMPLING = Sampling((1.0, 0.0))

CONFIGS: Mapping[str, LumiVidConfig] = MappingProxyType({
    "published": LumiVidConfig(LTX_2_3, LTX_2_3_VAE, UpsamplerConfig(128), DISTILLED),
    # Trained here from nothing, one stage. What so small a model sees from place to place is believed in part.
    "s": LumiVidConfig(
        S_TRANSFORMER, S_VAE, None, S_SAMPLING,
        working_side=160, from_plate=True, belief=Belief(local=0.25, colour=0.0),
    ),
})  # fmt: skip
