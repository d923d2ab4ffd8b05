"""Stage two as built: published sizes, and no effect of anything added before it is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from refine_cases import REDUCED_SD21, TINY, random_inputs, random_refiner, stirred
from torch import Tensor, nn

from hdrgen_server.systems.gmodiff.refine.config import REFINERS, RefinerConfig
from hdrgen_server.systems.gmodiff.refine.lora import add_lora, merge_lora, save_lora
from hdrgen_server.systems.gmodiff.refine.model import Refiner, mask_weight
from hdrgen_server.systems.gmodiff.refine.prior import tokens

PUBLISHED_UNET, PUBLISHED_VAE = 865_910_724, 83_653_863  # parameters of stabilityai/stable-diffusion-2-1-base
WIDENED = 4 * 320 * 9


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_full_size_is_the_published_one() -> None:
    with torch.device("meta"):
        refiner = Refiner(REFINERS["sd21"])
        add_lora(refiner)
    adapters = sum(p.numel() for name, p in refiner.named_parameters() if "lora_" in name)
    in_unet = sum(p.numel() for name, p in refiner.unet.named_parameters() if "lora_" in name)
    in_vae = sum(p.numel() for name, p in refiner.vae.named_parameters() if "lora_" in name)
    assert parameters(refiner.unet) - in_unet == PUBLISHED_UNET + WIDENED
    assert parameters(refiner.vae) - in_vae == PUBLISHED_VAE
    assert adapters > in_unet + in_vae > in_vae > 0


def test_the_small_size_fits_a_pack() -> None:
    with torch.device("meta"):
        refiner = Refiner(REFINERS["s"])
        add_lora(refiner)
    stored = parameters(refiner) - sum(
        p.numel() for name, p in refiner.condition.named_parameters() if "lora_" not in name
    )
    assert 2 * stored + 1_032_794 < 16e6  # half precision, and the regressor


def stock(refiner: Refiner, gain: Tensor, prior: Tensor) -> Tensor:
    """What stock diffusers networks with the refiner's base weights make of the gain map."""
    config, latent = refiner.config, refiner.config.vae.latent_channels
    vae = AutoencoderKL(**config.vae.arguments()).eval()
    vae.load_state_dict(
        {k.replace(".base_layer", ""): v for k, v in refiner.vae.state_dict().items() if "lora_" not in k}
    )
    unet = UNet2DConditionModel(**config.unet.arguments(latent, latent)).eval()
    state = {k.replace(".base_layer", ""): v for k, v in refiner.unet.state_dict().items() if "lora_" not in k}
    state["conv_in.weight"] = state["conv_in.weight"][:, :latent]
    unet.load_state_dict(state)
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    t = config.schedule.timestep
    with torch.no_grad():
        z = vae.encode(2 * gain - 1).latent_dist.mode() * vae.config.scaling_factor
        noise = unet(z, t, encoder_hidden_states=tokens(prior)).sample
        kept = scheduler.alphas_cumprod[t]
        z = (z - (1 - kept).sqrt() * noise) / kept.sqrt()
        return (vae.decode(z / vae.config.scaling_factor).sample + 1) / 2


@pytest.mark.parametrize("config", [TINY, REFINERS["s"], REDUCED_SD21], ids=["tiny", "s", "reduced sd21"])
def test_untrained_additions_change_nothing(config: RefinerConfig) -> None:
    refiner = random_refiner(replace(config, merge="decoded"))
    add_lora(refiner)
    gain, mask, under, prior = random_inputs(config, 32, 32)
    with torch.no_grad():
        features = refiner.features(gain)
        refined = refiner.denoise(refiner.latent(features), refiner.condition_latent(under), prior)
        found = refiner.decode(refined, features, prior)
        whole = refiner(gain, mask, under, prior)
    expected = stock(refiner, gain, prior)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(whole, expected.clamp(0, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("part", ["condition", "prior", "blocks", "unet", "vae"])
def test_every_part_counts_once_trained(part: str) -> None:
    refiner = stirred(random_refiner(TINY))
    gain, mask, under, _ = random_inputs(TINY, 32, 32)
    pooled = torch.randn(1, 240, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        before = refiner(gain, mask, under, refiner.prior(pooled))
        for parameter in refiner.get_submodule(part).parameters():
            parameter.mul_(1.3)
        after = refiner(gain, mask, under, refiner.prior(pooled))
    assert (after - before).abs().max() > 1e-5


def test_what_the_mask_calls_reliable_stays_bit_for_bit() -> None:
    refiner = stirred(random_refiner(TINY))
    gain, _, under, prior = random_inputs(TINY, 32, 32)
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 16:] = 1
    with torch.no_grad():
        refined = refiner(gain, mask, under, prior)
    assert torch.equal(refined[..., :16], gain[..., :16])
    assert not torch.equal(refined[..., 16:], gain[..., 16:])
    weight = mask_weight(torch.tensor([0.0, 0.04, 0.9, 1.0]), (0.1, 0.9))
    assert weight.tolist() == pytest.approx([0, 0, 1, 1], abs=1e-6)


def test_the_released_decoder_gates_the_whole_frame_alike() -> None:
    config = replace(TINY, decoder="released", merge="decoded")
    refiner = stirred(random_refiner(config))
    gain, mask, under, prior = random_inputs(config, 32, 32)
    shuffled = prior.flatten(2)[..., torch.randperm(prior[0, 0].numel())].reshape(prior.shape)
    with torch.no_grad():
        first, second = (refiner(gain, mask, under, p) for p in (prior, shuffled))
    torch.testing.assert_close(first, second, atol=1e-5, rtol=0)


def test_adapters_are_saved_loaded_and_merged_without_a_difference(tmp_path: Path) -> None:
    refiner = random_refiner(TINY)
    add_lora(refiner)
    stirred(refiner)
    inputs = random_inputs(TINY, 32, 32)
    with torch.no_grad():
        expected = refiner(*inputs)
    save_lora(refiner, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "condition.safetensors",
        "unet.safetensors",
        "vae.safetensors",
    ]
    merge_lora(refiner)
    assert not [name for name, _ in refiner.named_parameters() if "lora_" in name]
    with torch.no_grad():
        torch.testing.assert_close(refiner(*inputs), expected, atol=1e-5, rtol=0)
