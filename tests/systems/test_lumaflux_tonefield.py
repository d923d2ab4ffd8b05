"""The tone field: never an inversion, the identity at the start, known splines, safe ends."""

from __future__ import annotations

import math

import pytest
import torch

from hdrgen_server.systems.lumaflux.config import AdapterConfig
from hdrgen_server.systems.lumaflux.tonefield import IDENTITY_SLOPE, SMALLEST_SLOPE, Field, ToneField

KNOTS = 8


def random_fields(count: int, spread: float, dtype: torch.dtype = torch.float64) -> Field:
    generator = torch.Generator().manual_seed(round(spread * 10))

    def draw(columns: int) -> torch.Tensor:
        return spread * torch.randn(count, columns, generator=generator, dtype=dtype)

    return Field(draw(KNOTS), draw(KNOTS), draw(KNOTS + 1))


def identity(count: int = 1) -> Field:
    flat = torch.zeros(count, KNOTS)
    return Field(flat, flat, torch.full((count, KNOTS + 1), IDENTITY_SLOPE))


def tone_field(peak_nits: float = 1000.0) -> ToneField:
    torch.manual_seed(1)
    return ToneField(AdapterConfig(), 16, peak_nits)


@pytest.mark.parametrize("spread", [0.5, 2.0, 8.0, 30.0])
def test_no_tone_inversion_in_random_fields(spread):
    """2500 fields at each of four spreads: 10,000 in all. The luma is crowded about every knot, where bins meet."""
    fields = random_fields(2500, spread)
    x, _, _ = fields.knots()
    near = (x[:, :, None] + torch.tensor([-1e-9, 0.0, 1e-9], dtype=torch.float64)).flatten(1)
    luma = torch.cat([torch.linspace(0, 1, 401, dtype=torch.float64).expand(2500, -1), near.clamp(0, 1)], 1).sort(1)[0]
    found = fields(luma)
    assert (found.diff(dim=1) >= 0).all()
    assert (found[:, -1] > found[:, 0]).all()
    assert found.isfinite().all()


@pytest.mark.parametrize("spread", [0.5, 8.0])
def test_in_single_precision_no_inversion_beyond_rounding(spread):
    fields = random_fields(2500, spread, torch.float32)
    found = fields(torch.linspace(0, 1, 1025).expand(2500, -1))
    assert found.diff(dim=1).min() >= -2.4e-7


def test_the_ends_stay():
    found = random_fields(100, 3.0)(torch.tensor([0.0, 1.0], dtype=torch.float64).expand(100, 2))
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0], dtype=torch.float64).expand(100, 2), rtol=0, atol=1e-12)


def test_slopes_at_knots_are_what_the_field_says():
    fields = random_fields(20, 1.0)
    x, y, slopes = fields.knots()
    inner, step = x[:, 1:-1], 1e-7
    torch.testing.assert_close(fields(inner), y[:, 1:-1], rtol=0, atol=1e-12)
    rise = (fields(inner + step) - fields(inner - step)) / (2 * step)
    torch.testing.assert_close(rise, slopes[:, 1:-1], rtol=1e-3, atol=1e-4)


def test_one_bin_by_hand():
    """Durkan et al. 2019, equation 4, at the middle of one bin with slopes 2 and 1/2: 1/4 + 1/2 over 1 + 1/8."""

    def free(slope: float) -> float:
        return math.log(math.expm1(slope - SMALLEST_SLOPE))

    one = torch.zeros(1, 1, dtype=torch.float64)
    field = Field(one, one, torch.tensor([[free(2.0), free(0.5)]], dtype=torch.float64))
    found = field(torch.tensor([[0.5]], dtype=torch.float64))
    assert float(found) == pytest.approx((0.25 + 2 * 0.25) / (1 + 0.5 * 0.25), rel=1e-12)


def test_a_new_field_is_the_identity():
    luma = torch.linspace(0, 1, 1001)[None]
    torch.testing.assert_close(identity()(luma), luma, rtol=0, atol=3e-7)
    decoder = tone_field()
    codes = torch.rand(2, 3, 8, 8) * decoder.peak_code
    torch.testing.assert_close(decoder(codes, decoder.field(torch.randn(2, 16))), codes, rtol=0, atol=1e-6)


def test_a_field_is_told_tones_where_the_configuration_has_them():
    torch.manual_seed(2)
    decoder = ToneField(AdapterConfig(tones=(0.1, 0.9)), 16, 1000.0)
    with torch.no_grad():
        decoder.head[-1].weight.normal_()
    known = torch.cat([torch.zeros(2, 16), torch.tensor([[0.1, 0.9, 0.2, 1.0], [0.1, 0.6, 0.2, 0.7]])], dim=1)
    first, second = decoder.field(known).heights
    assert not torch.equal(first, second)


def test_the_bias_of_an_identity_is_the_documents():
    """softplus^-1(1) = 0.541, less what the smallest slope takes."""
    assert pytest.approx(0.541, abs=2e-3) == IDENTITY_SLOPE


def test_the_peak_is_the_mastering_peak_and_nothing_passes_it():
    decoder = tone_field()
    assert decoder.peak_code == pytest.approx(0.7518, abs=1e-4)  # ST 2084 at 1000 cd/m2
    with torch.no_grad():
        decoder.head[-1].bias.add_(torch.randn(25))
    found = decoder(torch.rand(1, 3, 16, 16) * 2 - 0.5, decoder.field(torch.randn(1, 16)), strength=2.0)
    assert 0 <= found.min() <= found.max() <= decoder.peak_code + 1e-7
    assert tone_field(10_000.0).peak_code == pytest.approx(1.0)


def test_strength_zero_leaves_luma_and_one_is_the_field():
    decoder = tone_field()
    field = random_fields(1, 1.0, torch.float32)
    codes = torch.full((1, 3, 4, 4), 0.4)
    torch.testing.assert_close(decoder(codes, field, strength=0.0), codes)
    expected = field(torch.full((1, 1), 0.4 / decoder.peak_code)) * decoder.peak_code
    torch.testing.assert_close(decoder(codes, field).mean(), expected.mean())


def test_fields_mix_between_frames():
    one, two = random_fields(1, 1.0), random_fields(1, 2.0)
    mixed = two.mixed(one, 0.8)
    torch.testing.assert_close(mixed.widths, 0.8 * one.widths + 0.2 * two.widths)
    torch.testing.assert_close(mixed.slopes, 0.8 * one.slopes + 0.2 * two.slopes)


def test_roughness_is_zero_for_the_identity_and_rises_with_bends():
    assert float(identity().roughness()) == pytest.approx(0, abs=1e-10)
    assert float(random_fields(10, 1.0).roughness()) > 0.1


def test_gradients_are_finite_at_black_at_the_peak_and_on_knots():
    decoder = tone_field()
    field = identity()
    parameters = [x.clone().requires_grad_() for x in (field.widths, field.heights, field.slopes)]
    codes = torch.cat([torch.zeros(1, 3, 1, 1), torch.full((1, 3, 1, 1), 2.0), torch.full((1, 3, 1, 1), 0.37)], dim=3)
    decoder(codes, Field(*parameters)).sum().backward()
    for parameter in parameters:
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
