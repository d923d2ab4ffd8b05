"""Both gain-map forms: equations, round trips, bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hdrgen_server.colour.curves import CURVES
from hdrgen_server.colour.gainmap import ALPHA, count_outside, log2_form, mu_law_form
from nuke_hdrgen.wire.errors import BadParameter

FORMS = {
    "log2": log2_form(),
    "log2 printed": log2_form(q_max=6.0, offset=1.0),
    "mu-law": mu_law_form(),
    "mu-law scaled": mu_law_form(scale=16.0),
}
BASE = np.linspace(0.0, 1.0, 9)


def test_equation_1_and_the_mu_law_as_printed():
    gain = np.array([0.0, 0.25, 1.0])
    base = np.array([0.0, 0.5, 1.0])
    printed = (base + 1 / 64) * np.exp2(1.0 + gain * 6.0)
    np.testing.assert_allclose(log2_form(6.0, 1.0).reconstruct(gain, base), printed, rtol=1e-12)
    companded = (base + 1 / 64) * (np.exp(gain * np.log(101.0)) - 1.0) / 100.0
    np.testing.assert_allclose(mu_law_form().reconstruct(gain, base), companded, rtol=1e-12)
    np.testing.assert_allclose(mu_law_form(scale=8.0).reconstruct(gain, base), 8.0 * companded, rtol=1e-12)


def test_the_printed_offset_holds_no_unclipped_pixel_and_ours_does():
    codes = np.arange(3, 256) / 255.0
    for hdr, base in ((codes, codes), (CURVES["srgb"].decode(codes), codes)):
        assert count_outside(log2_form(offset=1.0).encode(hdr, base)).below == codes.size
        assert count_outside(log2_form(offset=0.0).encode(hdr, base)).below == codes.size
        assert count_outside(log2_form().encode(hdr, base)).below == 0


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@settings(max_examples=80, derandomize=True, deadline=None)
@given(hdr=st.floats(-10.0, 1e5), base=st.floats(0.0, 1.0))
def test_round_trip(form, hdr, base):
    back = form.reconstruct(form.encode(np.array([hdr]), np.array([base])), np.array([base]))
    assert back[0] == pytest.approx(hdr, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_shapes_dtypes_and_gradients(form):
    hdr = np.random.default_rng(3).uniform(0, 4, (2, 5, 3)).astype(np.float32)
    base = np.full((2, 5, 1), 0.5, np.float32)
    gain = form.encode(hdr, base)
    assert gain.shape == (2, 5, 3)
    assert gain.dtype == np.float32
    light = torch.tensor([-1.0, 0.0, 1e-12, 0.5, 1e6], requires_grad=True)
    tensor_base = torch.tensor([0.0, 0.0, 1.0, 0.5, 1.0])
    encoded = form.encode(light, tensor_base)
    back = form.reconstruct(encoded, tensor_base)
    (encoded.sum() + back.sum()).backward()
    assert light.grad is not None
    assert torch.isfinite(light.grad).all()
    assert torch.isfinite(encoded).all()
    np.testing.assert_allclose(back.detach().numpy(), light.detach().numpy(), rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_what_does_not_fit_is_counted(library):
    form = mu_law_form(scale=2.0)
    hdr = np.array([-0.5, 0.0, 1.0, form.highest_ratio * (1 + ALPHA), 100.0])
    base = np.ones(5)
    if library == "torch":
        hdr, base = torch.from_numpy(hdr), torch.from_numpy(base)
    gain, counts = form.encode_bounded(hdr, base)
    assert (counts.below, counts.above, counts.samples) == (1, 1, 5)
    assert (float(gain.min()), float(gain.max())) == (0.0, 1.0)
    assert float(form.encode(hdr, base).max()) > 1.0


def test_headroom():
    assert mu_law_form().highest_ratio == pytest.approx(1.0)
    assert mu_law_form(scale=16.0).highest_ratio == pytest.approx(16.0)
    assert log2_form().highest_ratio == pytest.approx(64.0)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_parameters_are_checked(value):
    for make in (
        lambda: log2_form(q_max=value),
        lambda: mu_law_form(mu=value),
        lambda: mu_law_form(scale=value),
        lambda: log2_form(alpha=value),
    ):
        with pytest.raises(BadParameter):
            make()


def test_offset_is_checked():
    for value in (float("nan"), float("inf"), -61.0):
        with pytest.raises(BadParameter, match="60 stops"):
            log2_form(offset=value)
