"""The exposure head: the identity at first, deterministic, around a panorama, on every backbone's latents."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from latenthdr_cases import TINY_HEAD, new_head, write_vae
from qwen_cases import TINY as TINY_QWEN
from qwen_cases import random_vae

from hdrgen_server.systems.gmodiff.refine.config import SD21_VAE
from hdrgen_server.systems.latenthdr.config import CONFIGS, Range, ev_name
from hdrgen_server.systems.latenthdr.head import ExposureFeatures, ExposureHead
from hdrgen_server.systems.latenthdr.spaces import KLSpace, QwenSpace, load_space
from hdrgen_server.systems.lumaflux.config import FLUX1_VAE
from hdrgen_server.systems.qwenlog import stills
from hdrgen_server.systems.qwenlog.config import QWEN_VAE
from nuke_hdrgen.wire.errors import BadInput, BadParameter

EVS = torch.tensor([-7.0, 0.0, 2.5])


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (1, 1)])
def test_an_untrained_head_is_the_identity_and_a_stirred_one_is_not(size: tuple[int, int]) -> None:
    latents = torch.randn(3, 4, *size)
    assert torch.equal(ExposureHead(TINY_HEAD, 4)(latents, EVS), latents)
    found = new_head()(latents, EVS)
    assert found.shape == latents.shape
    assert torch.equal(found, new_head()(latents, EVS))
    assert (found - latents).abs().mean(dim=(1, 2, 3)).min() > 1e-3


def test_each_picture_of_a_batch_gets_its_own_exposure() -> None:
    head, latents = new_head(), torch.randn(1, 4, 8, 8)
    together = head(latents.expand(3, -1, -1, -1), EVS)
    alone = torch.cat([head(latents, ev[None]) for ev in EVS])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)
    assert (together[0] - together[2]).abs().mean() > 1e-3


def test_what_the_head_does_in_one_corner_does_not_hang_on_the_far_one() -> None:
    head, latents = new_head(), torch.randn(1, 4, 64, 64)
    other = latents.clone()
    other[..., 48:, 48:] += 5
    near, far = head(latents, EVS[:1]), head(other, EVS[:1])
    assert torch.equal(near[..., :16, :16], far[..., :16, :16])


@pytest.mark.parametrize("by", [2, 6, 14])
def test_a_panorama_turns_with_its_latent(by: int) -> None:
    head, latents = new_head(), torch.randn(1, 4, 8, 16)
    turned = head(latents.roll(by, dims=-1), EVS[:1], around=True)
    torch.testing.assert_close(turned, head(latents, EVS[:1], around=True).roll(by, dims=-1), atol=1e-5, rtol=1e-4)
    plain = head(latents.roll(by, dims=-1), EVS[:1])
    assert not torch.allclose(plain, head(latents, EVS[:1]).roll(by, dims=-1), atol=1e-4)


def test_neighbouring_evs_have_neighbouring_features() -> None:
    features = ExposureFeatures(CONFIGS["published"])
    evs = torch.linspace(-7, 5, 49)
    found = features(evs)
    steps = found.diff(dim=0).norm(dim=1)
    assert steps.max() < 0.5 * (found[0] - found[-1]).norm() + 1
    assert torch.unique(found.round(decimals=5), dim=0).shape[0] == len(evs)


@pytest.mark.parametrize("channels", [SD21_VAE.latent_channels, FLUX1_VAE.latent_channels, QWEN_VAE.latent_channels])
def test_the_published_width_builds_on_every_backbone_and_runs(channels: int) -> None:
    with torch.device("meta"):
        count = sum(p.numel() for p in ExposureHead(CONFIGS["published"], channels).parameters())
    assert 1_000_000 < count < 1_500_000
    found = ExposureHead(CONFIGS["published"], channels)(torch.randn(2, channels, 6, 8), EVS[:2])
    assert found.shape == (2, channels, 6, 8)


def test_the_small_head_has_at_most_a_million_parameters() -> None:
    with torch.device("meta"):
        heads = [ExposureHead(CONFIGS["s"], channels) for channels in (4, 16)]
    assert all(sum(p.numel() for p in head.parameters()) <= 1_000_000 for head in heads)


def test_evs_of_a_stack_and_their_names() -> None:
    assert Range().stack(-7, 5, 1, "x") == tuple(float(ev) for ev in range(-7, 6))
    assert Range().stack(-1, 0.9, 0.5, "x") == (-1.0, -0.5, 0.0, 0.5)
    assert Range().stack(2, 2, 1, "x") == (2.0,)
    assert [ev_name(ev) for ev in (-3.0, 0.0, 1.5, -0.25)] == ["m3", "p0", "p1_5", "m0_25"]
    for given, said in (
        ((1, 0, 1), "ev_low 1 is above ev_high 0"),
        ((-9, 0, 1), "ev_low -9 is outside what x was trained on; use -7 to 5"),
        ((0, 6, 1), "ev_high 6 is outside"),
        ((-7, 5, 0.1), "121 exposures are more than 64"),
    ):
        with pytest.raises(BadParameter, match=said):
            Range().stack(*given, "x")


@torch.inference_mode()
def test_spaces_scale_latents_as_their_backbones_want_them(tmp_path: Path) -> None:
    space = load_space(write_vae(tmp_path / "vae"))
    assert isinstance(space, KLSpace)
    assert (space.channels, space.factor) == (4, 4)
    pictures = torch.rand(2, 3, 16, 24) * 2 - 1
    mean = space.vae.encode(pictures).latent_dist.mean
    latents = space.encode(pictures)
    torch.testing.assert_close(latents, (mean - 0.1) * 0.7)
    torch.testing.assert_close(space.decode(latents), space.vae.decode(mean).sample, atol=1e-5, rtol=1e-4)
    assert load_space(tmp_path).fingerprint() == space.fingerprint()
    assert load_space(write_vae(tmp_path / "other", seed=2)).fingerprint() != space.fingerprint()


@torch.inference_mode()
def test_qwens_space_is_that_of_its_transformer_and_of_a_vae_for_stills(tmp_path: Path) -> None:
    vae = random_vae()
    vae.save_pretrained(tmp_path / "vae")
    space = load_space(tmp_path)
    assert isinstance(space, QwenSpace)
    assert (space.channels, space.factor) == (TINY_QWEN.vae.latent_channels, TINY_QWEN.vae.factor)
    pictures = torch.rand(1, 3, 16, 16) * 2 - 1
    mean, _ = stills.encode(stills.for_stills(vae), pictures)
    shift, scale = (
        torch.tensor(x)[None, :, None, None] for x in (TINY_QWEN.vae.latents_mean, TINY_QWEN.vae.latents_std)
    )
    torch.testing.assert_close(space.encode(pictures), (mean - shift) / scale)
    torch.testing.assert_close(space.decode(space.encode(pictures)), stills.decode(vae, mean), atol=1e-5, rtol=1e-4)


def test_folders_that_hold_no_vae_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="name the folder of a VAE, or one with vae"):
        load_space(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    with pytest.raises(BadInput, match="is of class 'UNet2DConditionModel'; a head works on"):
        load_space(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    with pytest.raises(BadInput, match="cannot be loaded"):
        load_space(tmp_path)
