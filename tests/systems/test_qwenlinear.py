"""Qwen-Image in linear light: widening that changes nothing, the two heads, and the way of light into a frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from qwen_cases import TINY, LetterText, manifest, random_transformer, random_vae, write_folder
from safetensors.torch import save_file
from steps import Steps

from hdrgen_server.contracts.operator import Request
from hdrgen_server.image.exr import encode_exr, read_exr_frame
from hdrgen_server.packs.descriptors import load_descriptor
from hdrgen_server.systems.qwenlinear import loading
from hdrgen_server.systems.qwenlinear import operator as qwenlinear
from hdrgen_server.systems.qwenlinear.config import CONFIGS, LinearConfig
from hdrgen_server.systems.qwenlinear.normalise import LightNorm, both_views, tone_mapped
from hdrgen_server.systems.qwenlinear.widen import widen_transformer, widened_projections, widened_vae
from hdrgen_server.systems.qwenlog import flow, lora, stills
from hdrgen_server.systems.qwenlog.config import widened
from hdrgen_server.systems.qwenlog.frame import ON_CPU
from hdrgen_server.systems.qwenlog.model import QwenImage
from nuke_hdrgen.wire.errors import BadInput

WIDE = LinearConfig(widened(TINY, 8, 6), TINY, 0.05)
LIGHT = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(6)) ** 6 * 800


def forward(network: QwenImageTransformer2DModel, latents: torch.Tensor) -> torch.Tensor:
    height, width = latents.shape[2:]
    prompt = torch.randn(1, 3, 12, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        tokens = network(
            hidden_states=flow.pack(latents), encoder_hidden_states=prompt, timestep=torch.tensor([0.4]),
            img_shapes=[[(1, height // 2, width // 2)]], return_dict=False,
        )[0]  # fmt: skip
    return flow.unpack(tokens, height, width)


def test_with_zero_columns_the_output_is_the_originals_for_any_latent():
    old, new = torch.randn(2, 1, 4, 4, 6).unbind()
    found = forward(widen_transformer(random_transformer(), "zero"), torch.cat([old, 100 * new], dim=1))
    torch.testing.assert_close(found[:, :4], forward(random_transformer(), old), rtol=1e-5, atol=1e-6)
    assert not found[:, 4:].any()


def test_with_copied_and_halved_columns_it_is_for_latents_that_hold_the_same_twice():
    latents = torch.randn(1, 4, 4, 6)
    wide = widen_transformer(random_transformer(), "halved")
    found, wanted = forward(wide, torch.cat([latents] * 2, dim=1)), forward(random_transformer(), latents)
    torch.testing.assert_close(found, torch.cat([wanted] * 2, dim=1), rtol=0, atol=1e-5)
    other = forward(wide, torch.cat([latents, -latents], dim=1))
    assert (other[:, :4] - wanted).abs().max() > 1e-2, "the new channels are heard"
    assert wide.config.in_channels == 32
    assert wide.config.out_channels == 8
    assert wide.img_in.weight.shape == (32, 32)


def test_new_columns_are_the_second_half_of_the_packed_channels():
    """Tokens are packed channel by channel, so that columns 16 to 31 of the tiny size belong to the new latents."""
    state = widened_projections(random_transformer().state_dict(), "zero")
    latents = torch.zeros(1, 8, 2, 2)
    latents[:, 4:] = 1
    tokens = flow.pack(latents)[0, 0]
    assert not tokens[:16].any()
    assert tokens[16:].all()
    assert not state["img_in.weight"][:, 16:].any()


def test_the_published_size_has_the_documents_shapes():
    config = CONFIGS["published"]
    with torch.device("meta"):
        base = QwenImageTransformer2DModel(**(config.base.transformer.arguments() | {"num_layers": 1}))
        wide = widen_transformer(base, "halved")
    assert wide.img_in.weight.shape == (3072, 128)
    assert wide.proj_out.weight.shape == (128, 3072)
    own = QwenImageTransformer2DModel
    with torch.device("meta"):
        whole = own(**(config.qwen.transformer.arguments() | {"num_layers": 1}))
    assert {k: v.shape for k, v in whole.state_dict().items()} == {k: v.shape for k, v in wide.state_dict().items()}


def test_a_widened_vae_draws_the_tone_mapped_picture_as_the_original_does():
    old = stills.for_stills(random_vae())
    new = AutoencoderKLQwenImage(**WIDE.qwen.vae.arguments())
    new.load_state_dict(widened_vae(random_vae().state_dict()))
    stills.for_stills(new)
    norm = LightNorm(0.05)
    with torch.no_grad():
        norm.fit(LIGHT)
        wanted, deviation = stills.encode(old, tone_mapped(LIGHT))
        mean, log_variance = stills.encode(new, both_views(LIGHT, norm))
        torch.testing.assert_close(mean, torch.cat([wanted] * 2, dim=1), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(log_variance, torch.cat([deviation] * 2, dim=1), rtol=1e-4, atol=1e-6)
        mean[:, 4:] = torch.randn_like(mean[:, 4:])
        drawn = stills.decode(new, mean)
        torch.testing.assert_close(drawn[:, :3], stills.decode(old, wanted), rtol=1e-4, atol=1e-5)
        assert torch.equal(drawn[:, :3], drawn[:, 3:])


@pytest.mark.parametrize("knee", [0.0, 0.05])
def test_the_normalisation_comes_back_and_has_unit_deviation(knee):
    norm = LightNorm(knee)
    norm.fit(LIGHT)
    values = norm(LIGHT)
    assert values.mean(dim=(0, 2, 3)).abs().max() < 1e-3
    torch.testing.assert_close(values.transpose(0, 1).flatten(1).std(dim=1), torch.ones(3), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(norm.inverse(values), LIGHT, rtol=1e-3, atol=1e-3)
    assert len(list(norm.parameters())) == (3 if knee else 2)
    far = torch.full((1, 3, 1, 1), 60_000.0)
    torch.testing.assert_close(norm.inverse(norm(far)), far, rtol=1e-3, atol=1)


def test_the_tone_mapped_picture_keeps_mid_grey_and_cuts_nothing():
    greys = torch.tensor([0.0, 0.18, 1.0, 100.0, 10_000.0])
    codes = (tone_mapped(greys.expand(1, 3, 1, 5)) + 1)[0, 0, 0] / 2
    assert codes[1] == pytest.approx(0.4613, abs=1e-3)
    assert (codes.diff() > 0).all()
    assert codes.max() < 1


def dual_operator() -> qwenlinear.QwenOperator:
    norm = LightNorm(0.05)
    norm.fit(LIGHT)
    model = QwenImage(WIDE.qwen, random_transformer(WIDE.qwen), random_vae(WIDE.qwen), LetterText())
    look = qwenlinear.DualLook(norm.requires_grad_(requires_grad=False))
    return qwenlinear.QwenOperator(load_descriptor("qwenlinear"), model, look, ON_CPU)


def run(operator: qwenlinear.QwenOperator, *, aovs: bool = True):
    asked = {"prompt": "a lamp", "width": 96, "height": 64, "steps": 2}
    request = Request("txt2hdr", operator.descriptor.resolve(asked), seed=3, aovs=aovs)
    (result,) = operator.run(request, (), Steps())
    return result


def test_both_heads_reach_the_frame_and_light_above_500_too():
    operator = dual_operator()
    norm = operator.look._norm
    with torch.no_grad():
        decoder = operator.model.vae.decoder.conv_out
        decoder.weight.zero_()
        decoder.bias[:3] = torch.tensor([0.5, -1.0, 1.2])
        decoder.bias[3:] = norm(torch.tensor([0.18, 501.0, 30_000.0])[None, :, None, None])[0, :, 0, 0]
    result = run(operator)
    for channel, light in enumerate((0.18, 501.0, 30_000.0)):
        assert result.pixels[..., channel] == pytest.approx(light, rel=1e-3)
    assert read_exr_frame(encode_exr(result)).rgb == pytest.approx(result.rgb, rel=1e-3)
    for name, code in zip("rgb", (0.75, 0.0, 1.1), strict=True):
        layer = result.layers[f"hdrgen.tonemapped_{name}"]
        assert layer.shape == (64, 96)
        assert layer == pytest.approx(code, abs=1e-5)
    assert not run(operator, aovs=False).layers


def test_light_becomes_both_views():
    look = dual_operator().look
    light = LIGHT[0].permute(1, 2, 0).numpy()
    back = look.light_of(look.picture_of(light), aovs=True)
    np.testing.assert_allclose(back.scene_linear_hwc, light, rtol=1e-3, atol=1e-3)
    shown = (tone_mapped(LIGHT[:1])[0, 0].numpy() + 1) / 2
    np.testing.assert_allclose(back.layers["hdrgen.tonemapped_r"], shown, atol=1e-6)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path, WIDE.qwen)
    save_file(LightNorm(0.05).state_dict(), tmp_path / "normalisation.safetensors")
    return tmp_path


@pytest.fixture(autouse=True)
def letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "load_text", lambda config, folder, dtype: LetterText())
    monkeypatch.setattr(qwenlinear, "CONFIGS", {"tiny": WIDE})


def test_a_pack_is_created_from_a_folder(folder):
    operator = qwenlinear.create(manifest(folder, "qwenlinear", "tiny"), "cpu")
    assert run(operator).pixels.shape == (64, 96, 3)
    with pytest.raises(BadInput, match="config 'huge'"):
        qwenlinear.create(manifest(folder, "qwenlinear", "huge"), "cpu")


def test_a_base_transformer_is_widened_and_takes_what_was_trained(folder):
    random_transformer().save_pretrained(folder / "transformer")
    plain = loading.load_wide(WIDE, folder, torch.float32)
    latents = torch.randn(1, 8, 4, 6)
    torch.testing.assert_close(
        forward(plain, latents), forward(widen_transformer(random_transformer(), "halved"), latents)
    )
    trained = widened_projections(random_transformer(seed=5).state_dict(), "zero")
    save_file(trained, folder / "widened.safetensors")
    paths = lora.targets(plain, ["to_q"])
    lora.add(plain, dict.fromkeys(paths, 2), init=False)
    save_file(lora.saved(plain), folder / "lora.safetensors")
    model, _ = loading.load_linear(WIDE, folder, torch.float32)
    assert torch.equal(model.transformer.img_in.weight, trained["img_in.weight"])
    assert (forward(model.transformer, latents) - forward(plain, latents)).abs().max() > 1e-3


def test_what_does_not_fit_is_named(folder):
    save_file(LightNorm(0.0).state_dict(), folder / "normalisation.safetensors")
    with pytest.raises(BadInput, match=r"normalisation.safetensors has no tensor log_knee"):
        loading.load_linear(WIDE, folder, torch.float32)
    (folder / "normalisation.safetensors").unlink()
    with pytest.raises(BadInput, match=r"normalisation.safetensors cannot be read"):
        loading.load_linear(WIDE, folder, torch.float32)
    wild = LightNorm(0.05)
    with torch.no_grad():
        wild.log_scale.fill_(200.0)
    save_file(wild.state_dict(), folder / "normalisation.safetensors")
    with pytest.raises(BadInput, match=r"makes no light of light"):
        loading.load_linear(WIDE, folder, torch.float32)
    save_file({"img_in.weight": torch.zeros(2, 2)}, folder / "widened.safetensors")
    with pytest.raises(BadInput, match=r"widened.safetensors"):
        loading.load_widened(random_transformer(WIDE.qwen), folder / "widened.safetensors")
