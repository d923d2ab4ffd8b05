"""The fitted start of a video VAE: what it keeps of clips before anything has learnt."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_ltx2 import AutoencoderKLLTX2Video, LTX2VideoResnetBlock3d
from panoramas import panorama

from hdrgen_server.systems.lumivid.codes import hdr_codes
from hdrgen_server.systems.lumivid.config import VideoVAEConfig
from hdrgen_server.training.clips import turned
from hdrgen_server.training.lumivid import decoded, posterior_of
from hdrgen_server.training.scenes import Scene
from hdrgen_server.training.video_start import LOG_VARIANCE, start_linear

SMALL = VideoVAEConfig(
    16,
    (64, 64, 32), (1, 0, 0, 1), ("spatiotemporal", "temporal", "temporal"),
    (32, 32, 32), (1, 1, 1, 1), ("temporal", "temporal", "spatiotemporal"), (2, 1, 1),
    space=8,
    residual=True,
)  # fmt: skip


def clips_of(seeds) -> torch.Tensor:
    """LogC3 codes of clips in drawn panoramas, (N, 3, 9, 32, 32) in [-1, 1]."""
    light = [turned(np.random.default_rng(seed), Scene("x", panorama(seed % 5), 0), 32, 9) for seed in seeds]
    return torch.from_numpy(2 * hdr_codes(np.stack(light))[0] - 1).permute(0, 4, 1, 2, 3).contiguous()


def psnr(vae, clips) -> float:
    """dB, peak 1 on codes."""
    with torch.inference_mode():
        found = decoded(vae, posterior_of(vae, clips).mode())
    return float(-10 * torch.log10(((found - clips) / 2).square().mean()))


@pytest.fixture(scope="module")
def fitted() -> AutoencoderKLLTX2Video:
    torch.manual_seed(0)
    vae = AutoencoderKLLTX2Video(**SMALL.arguments()).eval()
    start_linear(vae, clips_of(range(24)))
    return vae


def test_unseen_clips_come_back_before_anything_has_learnt(fitted):
    torch.manual_seed(0)
    unseen = clips_of(range(100, 106))
    grey = -10 * torch.log10(((unseen - unseen.mean()) / 2).square().mean()).item()
    assert psnr(AutoencoderKLLTX2Video(**SMALL.arguments()).eval(), unseen) < grey + 1
    assert psnr(fitted, unseen) > grey + 4


def test_levels_of_even_clips_survive_the_norms(fitted):
    for level in (-0.5, 0.0, 0.5):
        clip = torch.full((1, 3, 9, 32, 32), level)
        with torch.inference_mode():
            found = decoded(fitted, posterior_of(fitted, clip).mode())
        assert found.mean().item() == pytest.approx(level, abs=0.12)


def test_branches_start_at_zero_and_latents_are_sure(fitted):
    for module in fitted.modules():
        if isinstance(module, LTX2VideoResnetBlock3d):
            assert not module.conv2.conv.weight.any()
    posterior = posterior_of(fitted, clips_of([3]))
    torch.testing.assert_close(posterior.logvar, torch.full_like(posterior.logvar, LOG_VARIANCE), atol=0.2, rtol=0)


def test_the_same_clips_make_the_same_start(fitted):
    torch.manual_seed(0)
    vae = AutoencoderKLLTX2Video(**SMALL.arguments()).eval()
    start_linear(vae, clips_of(range(24)))
    for name, tensor in vae.state_dict().items():
        torch.testing.assert_close(tensor, fitted.state_dict()[name], msg=name)
