"""Every curve against its source's own figures, OCIO and colour-science; ends, shapes, NaN/Inf, gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hdrgen_server.colour.curves import CURVES, Curve, gamma, hlg, mulaw, pq
from hdrgen_server.colour.hlg_display import HlgDisplay
from nuke_hdrgen.wire.errors import BadParameter
from tests.colour.oracle import colour

NAMES = sorted(CURVES)
LIGHT = np.geomspace(1e-4, 60.0, 200)
EDGES = (0.0, -0.0, -1e-9, -1.0, -100.0, 1e-30, 1e-13, 1e-6, 0.18, 1.0, 100.0, 1e6, 1e20, -1e20, 1 / 12, 0.5)


@pytest.mark.parametrize(
    ("name", "linear", "code", "tolerance"),
    [
        ("srgb", 0.18, 0.461356, 1e-6),  # IEC 61966-2-1
        ("srgb", 0.0031308, 0.04045, 1e-6),
        ("rec1886", 0.18, 0.489437, 1e-6),
        ("pq", 1.0, 0.50808, 1e-5),  # ST 2084, 100 nits
        ("pq", 100.0, 1.0, 1e-9),  # 10000 nits
        ("pq203", 1.0, 0.58069, 1e-5),  # BT.2408, 58 %
        ("hlg203", 1.0, 0.75, 5e-4),  # BT.2408, 75 %
        ("logc3", 0.18, 0.391007, 1e-6),  # ARRI: 400/1023
        ("logc3", 55.0796, 1.0, 1e-5),
        ("logc3", 0.0, 0.092809, 1e-6),
        ("logc4", 0.18, 0.278396, 1e-6),  # ARRI: 0.2784
        ("logc4", 469.8, 1.0, 1e-6),
        ("logc4", 0.0, 95 / 1023, 1e-9),
        ("acescct", 0.18, 0.413588, 1e-6),  # S-2016-001
        ("acescct", 222.861, 1.0, 1e-6),
        ("mulaw", 1.0, 1.0, 1e-12),
        ("pu21", 100.0, 256.4, 0.05),
        ("pu21", 10000.0, 595.4, 0.05),
    ],
)
def test_cited_values(name, linear, code, tolerance):
    curve = CURVES[name]
    assert float(curve.encode(linear)) == pytest.approx(code, abs=tolerance)
    assert float(curve.decode(code)) == pytest.approx(linear, rel=5e-3, abs=1e-6)


ORACLES = {
    "srgb": colour.models.eotf_inverse_sRGB,
    "rec1886": lambda x: colour.models.eotf_inverse_BT1886(x, L_B=0, L_W=1),
    "pq": lambda x: colour.models.eotf_inverse_ST2084(x * 100),
    "logc3": lambda x: colour.models.log_encoding_ARRILogC3(x, EI=800),
    "logc4": colour.models.log_encoding_ARRILogC4,
    "acescct": colour.models.log_encoding_ACEScct,
}


@pytest.mark.parametrize("name", sorted(ORACLES))
def test_agrees_with_colour_science(name):
    np.testing.assert_allclose(CURVES[name].encode(LIGHT), ORACLES[name](LIGHT), atol=1e-6)


def test_hlg_is_the_bt2100_oetf():
    signal = np.linspace(0.0, 1.0, 101)
    np.testing.assert_allclose(hlg(1000.0).encode(signal), colour.models.oetf_BT2100_HLG(signal), atol=1e-6)


def test_hlg_display_is_the_bt2100_eotf():
    codes = np.random.default_rng(1).uniform(0.05, 1.0, (20, 3))
    light = colour.models.eotf_BT2100_HLG(codes, L_W=1000, L_B=0) / 100.0
    np.testing.assert_allclose(HlgDisplay().decode(codes), light, rtol=1e-4)
    np.testing.assert_allclose(HlgDisplay().encode(light), codes, atol=1e-5)


def test_hlg_display_white_at_203_nits_is_75_percent_and_black_is_finite():
    assert HlgDisplay(203.0).encode(np.ones((1, 3)))[0, 1] == pytest.approx(0.75, abs=5e-4)
    dark = np.array([[0.0, 0.0, 0.0], [-1.0, -0.5, -0.2], [1e-20, 0.0, 0.0]])
    codes = HlgDisplay().encode(dark)
    assert np.isfinite(codes).all()
    assert (codes[0] == 0.0).all()
    np.testing.assert_allclose(HlgDisplay().decode(codes), dark, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(), (7,), (2, 3, 4), (1, 5, 6, 3)])
def test_any_shape_and_dtype(name, shape):
    curve = CURVES[name]
    linear = np.full(shape, 0.18, np.float32)
    code = curve.encode(linear)
    assert code.shape == shape
    assert code.dtype == np.float32
    assert curve.decode(linear.astype(np.float16)).dtype == np.float16
    tensor = curve.encode(torch.full(shape, 0.18, dtype=torch.float64))
    assert tensor.shape == shape
    assert tensor.dtype == torch.float64
    np.testing.assert_allclose(tensor.numpy(), code, rtol=1e-5)
    assert curve.decode(torch.full(shape, 0.18, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("name", NAMES)
def test_numpy_and_torch_agree_and_numbers_and_integers_are_taken(name):
    curve = CURVES[name]
    x = np.concatenate([-LIGHT, [0.0], LIGHT])
    np.testing.assert_allclose(curve.encode(torch.from_numpy(x)).numpy(), curve.encode(x), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(curve.decode(torch.from_numpy(x)).numpy(), curve.decode(x), rtol=1e-9, atol=1e-12)
    assert float(curve.encode(1)) == float(curve.encode(np.array([1]))[0]) == float(curve.encode(1.0))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", ["encode", "decode"])
def test_values_and_gradients_are_finite_everywhere(name, way):
    curve = CURVES[name]
    x = torch.tensor([*EDGES, curve.cut, curve.code_cut], requires_grad=True)
    y = getattr(curve, way)(x)
    y.sum().backward()
    assert torch.isfinite(y).all()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert (x.grad > 0).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", ["encode", "decode"])
def test_nan_stays_nan_and_inf_stays_inf(name, way):
    got = getattr(CURVES[name], way)(np.array([np.nan, np.inf, -np.inf, 0.5]))
    assert np.isnan(got[0])
    assert got[1] == np.inf
    assert got[2] == -np.inf
    assert np.isfinite(got[3])


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_neighbour_poisons_no_gradient(name):
    x = torch.tensor([0.3, float("nan"), float("inf")], requires_grad=True)
    CURVES[name].encode(x)[:1].sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad[0])


@pytest.mark.parametrize("name", NAMES)
def test_increasing_through_every_seam(name):
    curve = CURVES[name]
    light = np.unique(np.concatenate([-LIGHT, [0.0, curve.cut], curve.cut + np.linspace(-1, 1, 41) * 1e-3, LIGHT]))
    assert (np.diff(curve.encode(light)) > -1e-7).all()
    before, after = curve.encode(np.array([curve.cut * (1 - 1e-9), curve.cut * (1 + 1e-9)]))
    assert after - before < 1e-6 * max(1.0, abs(after))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, derandomize=True, deadline=None)
@given(x=st.floats(-1e4, 1e6, allow_nan=False, width=64))
def test_round_trip(name, x):
    curve = CURVES[name]
    assert float(curve.decode(curve.encode(x))) == pytest.approx(x, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "pu21"])
@settings(max_examples=60, derandomize=True, deadline=None)
@given(x=st.floats(-0.015625, 64.0, width=32))
def test_round_trip_in_float32(name, x):
    curve = CURVES[name]
    back = curve.decode(curve.encode(np.array([x], np.float32)))
    assert float(back[0]) == pytest.approx(x, rel=1e-4, abs=1e-6)


def test_odd_curves_are_exact_at_zero():
    for curve in CURVES.values():
        if curve.odd:
            assert float(curve.encode(0.0)) == float(curve.decode(0.0)) == 0.0
            assert float(curve.encode(-0.5)) == -float(curve.encode(0.5))


def test_the_toe_of_logc_is_kept_unless_clamped():
    kept, clamped = CURVES["logc3"], CURVES["logc3"].clamped()
    assert float(kept.decode(0.0)) == pytest.approx(-0.0172904, abs=1e-6)
    assert float(clamped.decode(0.0)) == 0.0
    assert float(clamped.encode(-1.0)) == float(kept.encode(0.0)) > float(kept.encode(-0.01))
    x = torch.tensor([-1.0, 0.0, 0.5], requires_grad=True)
    clamped.encode(x).sum().backward()
    assert x.grad is not None
    assert x.grad[0] == 0.0
    assert x.grad[2] > 0.0


@pytest.mark.parametrize("make", [mulaw, pq, hlg])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_parameters_are_checked(make, value):
    with pytest.raises(BadParameter, match="above 0"):
        make(value)


def test_every_curve_names_its_source():
    for name, curve in CURVES.items():
        assert isinstance(curve, Curve)
        assert curve.name == name
        assert len(curve.citation) > 20
    assert float(gamma(2.2).encode(0.5)) == pytest.approx(0.5 ** (1 / 2.2))
