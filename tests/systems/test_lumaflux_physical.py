"""What is measured of a picture's light, against the formulas and known pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from lumaflux_cases import TINY, new_adapters
from torch.nn import functional as F

from hdrgen_server.systems.lumaflux import physical as p
from hdrgen_server.systems.lumaflux.adapters import Adapters


def random_codes(height: int = 48, width: int = 32, seed: int = 1) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_display_light_of_grey_is_bt1886_and_red_is_bt2087():
    grey = p.display_light(torch.full((1, 3, 1, 1), 0.5))
    torch.testing.assert_close(grey, torch.full((1, 3, 1, 1), 0.5**2.4), rtol=1e-5, atol=0)
    red = p.display_light(torch.tensor([1.0, 0.0, 0.0])[None, :, None, None])
    # Rec. ITU-R BT.2087-0, the matrix from BT.709 to BT.2020
    torch.testing.assert_close(red.flatten(), torch.tensor([0.6274, 0.0691, 0.0164]), rtol=0, atol=1e-4)


def test_maps_of_a_ramp_and_of_a_colour():
    ramp = torch.linspace(0, 1, 11).expand(1, 3, 7, 11)
    luminance, gradient, saturation = p.maps_of(ramp)[0]
    torch.testing.assert_close(luminance, ramp[0, 0])
    torch.testing.assert_close(gradient[3, 1:-1], torch.full((9,), float(np.log1p(0.2))), rtol=1e-4, atol=0)
    assert saturation.abs().max() < 1e-6
    colour = torch.tensor([0.5, 0.25, 0.125])[None, :, None, None].expand(1, 3, 4, 4)
    torch.testing.assert_close(p.maps_of(colour)[0, 2], torch.full((4, 4), 0.75), rtol=1e-5, atol=0)


def test_statistics_against_numpy():
    luminance = p.luma_of(random_codes())
    found = p.statistics_of(luminance)
    for row, image in zip(found, luminance.numpy(), strict=True):
        expected = [image.mean(), image.std(ddof=1), np.quantile(image, 0.95), np.quantile(image, 0.99)]
        np.testing.assert_allclose(row, expected, rtol=1e-4)


def test_statistics_of_a_large_picture_are_close_to_those_of_all_its_pixels(monkeypatch):
    luminance = p.luma_of(random_codes(400, 400))
    exact = p.statistics_of(luminance)
    monkeypatch.setattr(p, "QUANTILE_SAMPLES", 4000)
    torch.testing.assert_close(p.statistics_of(luminance), exact, rtol=0.03, atol=0)


@pytest.mark.parametrize(("cycles", "ring"), [(0, 0), (3, 1), (13, 4)])
def test_a_wave_lies_in_its_ring(cycles, ring):
    wave = torch.cos(2 * torch.pi * cycles * torch.arange(32) / 32).expand(1, 1, 32, 32)
    found = p.spectrum_of(wave, 8)
    assert int(found.argmax()) == ring
    radius = torch.hypot(torch.fft.fftfreq(32)[:, None], torch.fft.rfftfreq(32)[None])
    inside = ((radius / radius.max() * 8).long().clamp(max=7) == ring).sum()
    energy = 32 * 32 if cycles == 0 else 32 * 32 / 4  # orthonormal: one of the wave's two halves is in the half plane
    torch.testing.assert_close(found[0, ring], torch.log1p(energy / inside), rtol=1e-4, atol=0)


@torch.no_grad()
def test_tokens_in_bands_are_the_mean_of_the_whole_convolution(monkeypatch):
    encoder, codes = new_adapters().physical, random_codes()
    maps = p.maps_of(p.display_light(codes))
    whole = F.avg_pool2d(encoder.conv(maps), TINY.cell).flatten(2).transpose(1, 2)
    for cells in (5, 100):
        monkeypatch.setattr(p, "BAND_CELLS", cells)
        torch.testing.assert_close(encoder(codes, TINY.cell).tokens, whole)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_flat_picture_gives_finite_measurements_and_gradients(value):
    codes = torch.full((1, 3, 16, 16), value, requires_grad=True)
    light = p.display_light(codes)
    found = p.maps_of(light).sum() + p.spectrum_of(p.luma_of(light), 8).sum()
    found.backward()
    assert found.isfinite()
    assert codes.grad is not None
    assert codes.grad.isfinite().all()


def test_tones_are_quantiles_of_luma_and_of_the_largest_channel():
    codes, marks = random_codes(), (0.05, 0.5, 0.99)
    found = p.tones_of(codes, marks)
    assert found.shape == (2, 6)
    for row, picture in zip(found, codes.numpy(), strict=True):
        luma = 0.2627 * picture[0] + 0.6780 * picture[1] + 0.0593 * picture[2]
        expected = [*np.quantile(luma, marks), *np.quantile(picture.max(axis=0), marks)]
        np.testing.assert_allclose(row.numpy(), expected, rtol=1e-5)
    assert p.tones_of(codes, ()).shape == (2, 0)


def test_perceptual_tokens_are_told_the_tones_where_the_configuration_has_them():
    config = replace(TINY, adapters=replace(TINY.adapters, tones=(0.1, 0.5, 0.9)))
    torch.manual_seed(3)
    adapters, codes = Adapters(config), random_codes()
    shown = torch.randn(2, config.encoder.side**2, config.encoder.hidden_size)
    with torch.no_grad():
        plain = adapters.perc_connector(shown)
        assert torch.equal(adapters.condition(codes, shown).perceptual, plain)  # without effect at the start
        adapters.tone_connector.proj[-1].weight.normal_()
        change = adapters.condition(codes, shown).perceptual - plain
    torch.testing.assert_close(change, change[:, :1].expand_as(change))  # the same for every token
    assert not torch.allclose(change[0], change[1])
