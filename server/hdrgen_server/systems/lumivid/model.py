"""LumiVid as one module: LTX-2.3's transformer with its adapter, the frozen video VAE, the upsampler and the context.

It owns how the networks are called. It must not know files, windows, curves or training. Codes are (B, 3, F, H, W) in
[0, 1] with F = 8 k + 1; latents are (B, C, F', H', W') normalised by the VAE's own mean and deviation. The audio side
that LTX-2.3 has is shut off: it sees one silent token that no video token looks at.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl_ltx2 import AutoencoderKLLTX2Video
from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel
from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel
from torch import Tensor, nn
from torch.nn import functional as F

from hdrgen_server.systems.lumivid.conditioning import sequence, unpack
from hdrgen_server.systems.lumivid.config import LumiVidConfig

TIMESTEPS = 1000


class LumiVid(nn.Module):
    """The networks. `video_context` (1, T, width) and `audio_context` (1, T, audio width) are the scene embeddings that
    stand for a prompt; `scale` is how many times smaller the reference is shown.
    """

    def __init__(
        self,
        config: LumiVidConfig,
        transformer: LTX2VideoTransformer3DModel,
        vae: AutoencoderKLLTX2Video,
        upsampler: LTX2LatentUpsamplerModel | None,
        contexts: tuple[Tensor, Tensor],
        scale: int = 1,
    ) -> None:
        super().__init__()
        self.config, self.scale = config, scale
        self.transformer, self.vae, self.upsampler = transformer, vae, upsampler
        self.video_context, self.audio_context = (nn.Parameter(c, requires_grad=False) for c in contexts)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.video_context.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the transformer."""
        return self.transformer.dtype

    def encode(self, codes: Tensor) -> Tensor:
        """The most likely latents of codes; H and W are multiples of the VAE's factor."""
        vae: Any = self.vae
        return self._normal(vae.encode(2 * codes.to(vae.dtype) - 1).latent_dist.mode().float())

    def decode(self, latents: Tensor) -> Tensor:
        """The codes of latents, as the VAE gives them: they may lie outside [0, 1]."""
        vae: Any = self.vae
        decoded: Tensor = vae.decode(self._plain(latents).to(vae.dtype)).sample
        return (decoded.float() + 1) / 2

    def doubled(self, latents: Tensor) -> Tensor:
        """Latents at twice the height and width, by the upsampler, which knows them as the VAE gives them."""
        assert self.upsampler is not None
        upsampler: Any = self.upsampler
        return self._normal(upsampler(self._plain(latents).to(upsampler.dtype)).float())

    def shown(self, codes: Tensor) -> Tensor:
        """Codes as the reference shows them: smaller by `scale`."""
        if self.scale == 1:
            return codes
        frames = codes.transpose(1, 2).flatten(0, 1)
        small = F.interpolate(frames, scale_factor=1 / self.scale, mode="bilinear", antialias=True)
        return small.unflatten(0, (codes.shape[0], codes.shape[2])).transpose(1, 2)

    def velocity(self, latents: Tensor, levels: Tensor, reference: Tensor, fps: float) -> Tensor:
        """noise - x at noisy latents (B, C, F, H, W) of levels (B, F), in float32, beside reference latents."""
        transformer: Any = self.transformer
        batch = len(latents)
        seen = sequence(transformer.rope, latents, levels, reference, fps, float(self.scale))
        highest = TIMESTEPS * levels.amax(dim=1)
        silence = latents.new_zeros(batch, 1, transformer.config.audio_in_channels, dtype=self.dtype)
        found: Tensor = transformer(
            hidden_states=seen.tokens.to(self.dtype),
            audio_hidden_states=silence,
            encoder_hidden_states=self.video_context.to(self.dtype).expand(batch, -1, -1),
            audio_encoder_hidden_states=self.audio_context.to(self.dtype).expand(batch, -1, -1),
            timestep=TIMESTEPS * seen.levels,
            audio_timestep=highest[:, None],
            sigma=highest,
            video_coords=seen.positions,
            audio_num_frames=1,
            isolate_modalities=True,
            use_cross_timestep=True,
            return_dict=False,
        )[0]
        size = (latents.shape[2], latents.shape[3], latents.shape[4])
        return unpack(found[:, : seen.count].float(), size)

    def _statistics(self) -> tuple[Tensor, Tensor]:
        mean, deviation = (
            cast(Tensor, getattr(self.vae, name)).view(1, -1, 1, 1, 1).float()
            for name in ("latents_mean", "latents_std")
        )
        return mean, deviation

    def _normal(self, latents: Tensor) -> Tensor:
        mean, deviation = self._statistics()
        return (latents - mean) / deviation

    def _plain(self, latents: Tensor) -> Tensor:
        mean, deviation = self._statistics()
        return latents * deviation + mean
