"""Stage two's configurations at their published and small sizes, as data. It must not know torch or diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

Merge = Literal["decoded", "masked"]
Decoder = Literal["published", "released"]


@dataclass(frozen=True)
class VAEConfig:
    """Sizes of a diffusers `AutoencoderKL` with one eighth of the resolution for every three halvings.

    `scaling_factor` multiplies latents before the denoising network; a VAE's own config.json may state another one.
    """

    block_out_channels: tuple[int, ...]
    layers_per_block: int
    norm_num_groups: int
    latent_channels: int = 4
    scaling_factor: float = 0.18215
    sample_size: int = 512

    @property
    def factor(self) -> int:
        """Pixels a latent, along each axis."""
        return 1 << (len(self.block_out_channels) - 1)

    def arguments(self) -> dict[str, Any]:
        """What `AutoencoderKL` is built from, and what its config.json says."""
        scales = len(self.block_out_channels)
        return {
            "in_channels": 3,
            "out_channels": 3,
            "down_block_types": ("DownEncoderBlock2D",) * scales,
            "up_block_types": ("UpDecoderBlock2D",) * scales,
            "block_out_channels": self.block_out_channels,
            "layers_per_block": self.layers_per_block,
            "act_fn": "silu",
            "latent_channels": self.latent_channels,
            "norm_num_groups": self.norm_num_groups,
            "sample_size": self.sample_size,
            "scaling_factor": self.scaling_factor,
        }


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of a diffusers `UNet2DConditionModel`; `attends` says which scales have cross-attention, finest first.

    `heads` are attention heads a scale. Channels in and out are not among them: the refiner doubles the former.
    """

    block_out_channels: tuple[int, ...]
    attends: tuple[bool, ...]
    layers_per_block: int
    heads: tuple[int, ...]
    cross_attention_dim: int
    norm_num_groups: int
    sample_size: int = 64

    def arguments(self, in_channels: int, out_channels: int) -> dict[str, Any]:
        """What `UNet2DConditionModel` is built from, and what its config.json says."""
        down = tuple("CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in self.attends)
        up = tuple("CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(self.attends))
        return {
            "sample_size": self.sample_size,
            "in_channels": in_channels,
            "out_channels": out_channels,
            "center_input_sample": False,
            "flip_sin_to_cos": True,
            "freq_shift": 0,
            "down_block_types": down,
            "mid_block_type": "UNetMidBlock2DCrossAttn",
            "up_block_types": up,
            "only_cross_attention": False,
            "block_out_channels": self.block_out_channels,
            "layers_per_block": self.layers_per_block,
            "downsample_padding": 1,
            "mid_block_scale_factor": 1,
            "act_fn": "silu",
            "norm_num_groups": self.norm_num_groups,
            "norm_eps": 1e-5,
            "cross_attention_dim": self.cross_attention_dim,
            "attention_head_dim": self.heads,
            "dual_cross_attention": False,
            "use_linear_projection": True,
        }


@dataclass(frozen=True)
class LoraRanks:
    """Ranks of the low-rank adapters, scaled by `alpha` over rank; 0 is none, and has all of the UNet trained."""

    unet: int = 16
    vae: int = 16
    condition: int = 16
    alpha: int = 16


@dataclass(frozen=True)
class Schedule:
    """Noise schedule (scaled-linear betas) and the one timestep T of Eq. 6."""

    timestep: int
    steps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012


@dataclass(frozen=True)
class RefinerConfig:
    """Stage two. `regressor` names the stage-one configuration that its priors come from (`gmodiff.config.CONFIGS`).

    `token` is the pixels along each axis that one vector of c_L stands for. `merge` says what the decoded latent is:
    `decoded` takes it as the gain map (the document); `masked` adds its difference from the decoded latent of the
    initial map to that map, where the degradation mask says so (ours: what the VAE loses cancels, and what the mask
    calls reliable stays as it is): nothing of it where the mask is at `mask_range`'s first value or below, all of it at
    the second and above. `decoder` chooses between Eq. 7 and 8 and the form of the public code.
    """

    vae: VAEConfig
    unet: UNetConfig
    schedule: Schedule
    regressor: str
    lora: LoraRanks = LoraRanks()
    token: int = 32
    merge: Merge = "decoded"
    mask_range: tuple[float, float] = (0.5, 0.9)
    decoder: Decoder = "published"


# Stable Diffusion 2.1 (Rombach et al. 2022), unet/config.json and vae/config.json of its diffusers release.
SD21_VAE = VAEConfig((128, 256, 512, 512), layers_per_block=2, norm_num_groups=32)
SD21_UNET = UNetConfig(
    (320, 640, 1280, 1280), (True, True, True, False), layers_per_block=2, heads=(5, 10, 20, 20),
    cross_attention_dim=1024, norm_num_groups=32,
)  # fmt: skip

S_VAE = VAEConfig((24, 48, 96, 96), layers_per_block=1, norm_num_groups=8, scaling_factor=1.0, sample_size=128)
S_UNET = UNetConfig(
    (64, 96, 96), (False, True, True), layers_per_block=1, heads=(2, 3, 3), cross_attention_dim=96, norm_num_groups=16,
    sample_size=16,
)  # fmt: skip

# Trained here from nothing: the UNet whole, without LoRA, as its VAE, which knows gain maps; an early T, so that an
# untrained step changes little.
S = RefinerConfig(
    S_VAE, S_UNET, Schedule(timestep=99), regressor="s", lora=LoraRanks(unet=0, vae=0, condition=8, alpha=8), token=8,
    merge="masked",
)  # fmt: skip

REFINERS: Mapping[str, RefinerConfig] = MappingProxyType({
    # GMODiff, sections 3.3 and 4.1: LoRA of rank 16 on the UNet and the encoder. T is not in the document; the public
    # code has 499.
    "sd21": RefinerConfig(SD21_VAE, SD21_UNET, Schedule(timestep=499), regressor="published"),
    # As in the public code: alpha 8 (peft's default), one gate for the whole frame, 1x1 convolutions in the decoder.
    "sd21-released": RefinerConfig(
        SD21_VAE, SD21_UNET, Schedule(timestep=499), regressor="released", lora=LoraRanks(alpha=8), decoder="released"
    ),
    "s": S,
    # The document's form at size s, for its ablation: what is decoded is the gain map.
    "s-decoded": replace(S, merge="decoded"),
})  # fmt: skip
