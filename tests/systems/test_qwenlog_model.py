"""Qwen-Image's networks: the published size, the VAE on stills, the sampler against diffusers' own, panoramas."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, QwenImagePipeline
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from qwen_cases import PUBLISHED, PUBLISHED_FLOW, TINY, random_transformer, random_vae, reduced, tiny_model

from hdrgen_server.systems.qwenlog import flow, stills
from hdrgen_server.systems.qwenlog.config import CONFIGS
from hdrgen_server.systems.qwenlog.frame import ON_CPU, Drive, PictureMaker, Prompts, Tiling
from hdrgen_server.systems.qwenlog.model import wrap_of, wrapped
from hdrgen_server.systems.qwenlog.text import padded

NOTHING = Prompts(torch.zeros(1, 12), torch.zeros(1, 12))


def made(drive: Drive, tiling: Tiling = ON_CPU, prompts: Prompts | None = None) -> np.ndarray:
    model = tiny_model()
    prompts = prompts or Prompts(model.text.encode("a red lamp"), model.text.encode(""))
    return PictureMaker(model, drive, tiling, lambda done, total: None).run(prompts)


def test_the_published_transformer_has_the_checkpoints_parameters():
    with torch.device("meta"):
        transformer = QwenImageTransformer2DModel(**PUBLISHED.transformer.arguments())
        vae = AutoencoderKLQwenImage(**PUBLISHED.vae.arguments())
        defaults = AutoencoderKLQwenImage()
    assert sum(p.numel() for p in transformer.parameters()) == 20_430_401_088
    for name, value in PUBLISHED.vae.arguments().items():
        assert vae.config[name] == defaults.config[name] == value, f"{name}: diffusers' defaults are the published VAE"
    assert PUBLISHED.transformer.width == 3072
    assert PUBLISHED.cell == 16


def test_the_small_system_fits_a_pack():
    config = CONFIGS["s"]
    transformer = QwenImageTransformer2DModel(**config.transformer.arguments())
    vae = AutoencoderKLQwenImage(**config.vae.arguments())
    kept = stills.last_taps(vae.state_dict(), vae)
    assert sum(p.numel() for p in transformer.parameters()) == 3_886_592
    assert 2 * (3_886_592 + sum(t.numel() for t in kept.values())) < 12.5e6


@pytest.mark.full
def test_a_published_block_runs_with_real_tensors():
    config = reduced(layers=1).transformer
    torch.manual_seed(0)
    network = QwenImageTransformer2DModel(**config.arguments()).to(torch.bfloat16)
    with torch.no_grad():
        found = network(
            hidden_states=torch.randn(1, 16, 64, dtype=torch.bfloat16),
            encoder_hidden_states=torch.randn(1, 5, 3584, dtype=torch.bfloat16),
            timestep=torch.tensor([0.5]),
            img_shapes=[[(1, 4, 4)]],
            return_dict=False,
        )[0]
    assert found.shape == (1, 16, 64)
    assert found.isfinite().all()


def test_the_vae_on_stills_is_diffusers_own_without_its_limit():
    vae, pictures = random_vae(), torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(4))
    still = stills.for_stills(copy.deepcopy(vae))
    with torch.no_grad():
        posterior = vae.encode(pictures[:, :, None]).latent_dist
        mean, log_variance = stills.encode(still, pictures)
        torch.testing.assert_close(mean, posterior.mean[:, :, 0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(log_variance, posterior.logvar[:, :, 0], rtol=1e-4, atol=1e-6)
        for bias, limited in ((0.0, False), (3.0, True)):
            with torch.inference_mode():
                for network in (vae, still):
                    network.decoder.conv_out.bias.fill_(bias)
            found = stills.decode(still, mean)
            own = vae.decode(mean[:, :, None]).sample[:, :, 0]
            tiled = vae.tiled_decode(mean[:, :, None]).sample[:, :, 0]
            torch.testing.assert_close(found, tiled, rtol=1e-4, atol=1e-5)
            assert (found.max() > 1) == limited
            torch.testing.assert_close(found.clamp(-1, 1), own, rtol=1e-4, atol=1e-5)


def test_a_vae_for_stills_refuses_frames_over_time():
    vae = stills.for_stills(random_vae())
    with pytest.raises(ValueError, match="takes one frame"):
        vae.encoder(torch.zeros(1, 3, 5, 16, 16))


def test_a_vae_stored_for_stills_is_the_same_and_smaller():
    vae = random_vae()
    kept = stills.last_taps(vae.state_dict(), vae)
    assert sum(t.numel() for t in kept.values()) < 0.45 * sum(t.numel() for t in vae.state_dict().values())
    again = random_vae(seed=8)
    again.load_state_dict(stills.all_taps(kept, again))
    latents = torch.randn(1, 4, 4, 6)
    with torch.no_grad():
        first, second = (stills.decode(stills.for_stills(network), latents) for network in (vae, again))
    assert torch.equal(first, second)


def test_packing_is_the_pipelines_and_comes_back():
    latents = torch.randn(2, 3, 4, 6)
    tokens = flow.pack(latents)
    assert torch.equal(tokens, QwenImagePipeline._pack_latents(latents, 2, 3, 4, 6))
    assert torch.equal(flow.unpack(tokens, 4, 6), latents)


@pytest.mark.parametrize("config", [PUBLISHED_FLOW, TINY.flow])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_sampling_is_diffusers_own(config, guidance):
    model = tiny_model(replace(TINY, flow=config))
    wanted, unwanted = model.text.encode("a red lamp"), model.text.encode("fog")
    start = torch.randn(1, 4, 4, 8, generator=torch.Generator().manual_seed(2))
    pipeline = QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**config.arguments()),
        vae=random_vae(), text_encoder=None, tokenizer=None, transformer=random_transformer(),
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    ones = torch.ones(1, 1, dtype=torch.bool)
    own = pipeline(
        prompt_embeds=wanted[None], prompt_embeds_mask=ones.expand(1, len(wanted)),
        negative_prompt_embeds=unwanted[None], negative_prompt_embeds_mask=ones.expand(1, len(unwanted)),
        true_cfg_scale=guidance, height=32, width=64, num_inference_steps=5,
        latents=flow.pack(start), output_type="latent",
    ).images  # fmt: skip

    def velocity(point: torch.Tensor, level: float) -> torch.Tensor:
        at = torch.tensor([level])
        found = model.velocity(point, at, wanted[None])
        return found if guidance == 1 else flow.guided(found, model.velocity(point, at, unwanted[None]), guidance)

    with torch.no_grad():
        found = flow.euler(start, velocity, flow.levels(config, 5, 8))
    torch.testing.assert_close(flow.pack(found), own, rtol=1e-3, atol=1e-4)


def test_levels_fall_from_noise_to_none_and_shift_with_size():
    for steps in (1, 2, 20):
        marks = flow.levels(PUBLISHED_FLOW, steps, 4096)
        assert len(marks) == steps + 1
        assert marks[0] == pytest.approx(1)
        assert marks[-1] == 0
        assert all(a > b for a, b in zip(marks, marks[1:], strict=False))
    assert flow.levels(PUBLISHED_FLOW, 20, 8192)[10] > flow.levels(PUBLISHED_FLOW, 20, 256)[10]


def test_a_start_takes_its_share_of_the_steps():
    marks = flow.levels(PUBLISHED_FLOW, 10, 256)
    assert flow.started(marks, 1.0) == marks
    assert flow.started(marks, 0.3) == marks[7:]
    assert flow.started(marks, 0.01) == marks[9:]


def test_prompts_of_a_batch_do_not_see_each_others_padding():
    model = tiny_model()
    prompts = [model.text.encode(text) for text in ("sun", "a very long prompt about the sun")]
    tokens, mask = padded(prompts)
    latents, level = torch.randn(2, 4, 4, 4), torch.tensor([0.3, 0.9])
    with torch.no_grad():
        both = model.velocity(latents, level, tokens, mask)
        alone = model.velocity(latents[:1], level[:1], prompts[0][None])
    torch.testing.assert_close(both[:1], alone, rtol=1e-3, atol=1e-5)


def test_the_same_seed_gives_the_same_pixels_and_another_others():
    drive = Drive(64, 32, 2, 4.0, 7)
    assert np.array_equal(made(drive), made(drive))
    assert not np.array_equal(made(drive), made(replace(drive, seed=8)))


def test_tiles_of_the_vae_join_into_the_whole():
    drive = Drive(192, 160, 1, 1.0, 7)
    whole, tiled = made(drive, Tiling(512, 128)), made(drive, Tiling(128, 64))
    assert np.abs(whole - tiled).max() < 0.05 * (whole.max() - whole.min())


def test_a_panorama_goes_on_beyond_its_edges():
    latents = torch.randn(1, 4, 4, 8)
    assert wrap_of(8) == 4
    assert wrap_of(128) == 8
    assert torch.equal(wrapped(latents, 2)[..., :2], latents[..., -2:])
    pano, flat = (made(Drive(256, 128, 2, 1.0, 5, panorama=around)) for around in (True, False))
    assert pano.shape == flat.shape == (128, 256, 3)

    def seam(picture: np.ndarray) -> float:
        inside = np.abs(np.diff(picture, axis=1)).mean()
        return float(np.abs(picture[:, 0] - picture[:, -1]).mean() / inside)

    assert seam(pano) < 1.3
    assert seam(flat) > 1.5 * seam(pano)


def test_cancel_ends_the_work_at_the_next_step():
    asked: list[tuple[int, int]] = []

    def step(done: int, total: int) -> None:
        asked.append((done, total))
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        PictureMaker(tiny_model(), Drive(64, 32, 9, 1.0, 1), Tiling(512, 128), step).run(NOTHING)
    assert asked == [(0, 10), (1, 10), (2, 10)]
