"""The formulas of Report ITU-R BT.2446-1 against its own steps, worked out one number at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdrgen_server.colour.primaries import luminance_weights
from hdrgen_server.systems.bt2446.expand import EXPONENT_JOIN, KNEE_SDR, method_a, method_c

COLOURS = st.tuples(*[st.floats(0.0, 1.0, width=32)] * 3)


def table_4(red: float, green: float, blue: float) -> list[float]:
    """Section 4.2, table 4: R'G'B' of Rec.2020 in 0..1 to display light over 100 cd/m2, one pixel at a time."""
    luma = 0.2627 * red + 0.6780 * green + 0.0593 * blue
    cb, cr = (blue - luma) / 1.8814, (red - luma) / 1.4746
    s = 255 * luma
    if s <= 70:
        exponent = 1.8712e-5 * s**2 - 2.7334e-3 * s + 1.3141
    else:
        exponent = 2.8305e-6 * s**2 - 7.4622e-4 * s + 1.2528
    hdr = s**exponent / 1000
    gain = 1.075 * hdr / luma if luma > 0 else 1.0
    cb, cr = cb * gain, cr * gain
    out = (hdr + 1.4746 * cr, hdr - 0.16455 * cb - 0.57135 * cr, hdr + 1.8814 * cb)
    return [math.copysign(abs(v) ** 2.4, v) * 10 for v in out]


def equation_5(nits: float) -> float:
    """Section 6.1.4: HDR luminance in cd/m2 to SDR luminance in percent."""
    knee = 58.535 / 0.83802
    return 0.83802 * nits if nits < knee else 15.09968 * math.log(nits / knee - 0.74204) + 78.99439


@pytest.mark.parametrize(
    "codes", [(1, 1, 1), (0.5, 0.5, 0.5), (0.1, 0.1, 0.1), (0.8, 0.4, 0.2), (0.05, 0.3, 0.9), (0.27, 0.275, 0.28)]
)
def test_method_a_is_table_4(codes):
    light = np.array(codes) ** 2.4
    np.testing.assert_allclose(method_a(light), table_4(*codes), rtol=2e-4)


def test_method_a_in_numbers():
    """White is 255 to the power 1.24656 of 1000, code 128 is 343.9 of 1000: 1000 and 77.2 cd/m2."""
    assert method_a(np.ones(3)) * 100 == pytest.approx([1000] * 3, rel=1e-3)
    assert method_a(np.full(3, (128 / 255) ** 2.4)) * 100 == pytest.approx([77.2] * 3, rel=2e-3)


def test_method_a_agrees_with_the_inverse_of_section_4_1():
    """Section 4.1 maps HDR luma to SDR luma; table 4 is the Report's fit of the way back."""
    rho_hdr, rho_sdr = (1 + 32 * (nits / 10000) ** (1 / 2.4) for nits in (1000, 100))
    for place in np.linspace(0.35, 0.73, 9):
        hdr = (rho_hdr**place - 1) / (rho_hdr - 1)
        sdr = (rho_sdr ** (1.0770 * place) - 1) / (rho_sdr - 1)
        found = (method_a(np.full(3, sdr**2.4))[0] / 10) ** (1 / 2.4)
        assert found == pytest.approx(hdr, rel=0.05)


def test_the_parabolas_meet_within_a_code_of_the_printed_70():
    assert 69 < EXPONENT_JOIN < 70


@pytest.mark.parametrize("nits", [0.01, 1, 10, 50, 69, 69.85, 70, 100, 203, 332])
def test_method_c_undoes_equation_5(nits):
    percent = equation_5(nits)
    assert method_c(np.full(3, percent / 100)) * 100 == pytest.approx([nits] * 3, rel=1e-5)


def test_method_c_keeps_chromaticity_and_shows_reference_white():
    colour = np.array([0.9, 0.5, 0.1])
    np.testing.assert_allclose(method_c(colour) / method_c(colour)[0], colour / colour[0])
    assert method_c(np.full(3, 0.96**2.4)) * 100 == pytest.approx([203] * 3, rel=1e-3)  # HDR reference white
    assert pytest.approx(58.535, abs=1e-3) == KNEE_SDR


@pytest.mark.parametrize("expand", [method_a, method_c, lambda x: method_a(x, 100.0), lambda x: method_a(x, 10000.0)])
def test_neutrals_rise_without_a_step_and_stay_neutral(expand):
    ramp = np.repeat(np.linspace(0, 1, 60001)[:, None], 3, axis=1)
    found = expand(ramp)
    assert (np.diff(found, axis=0) >= 0).all()
    assert (np.diff(found[10:], axis=0) > 0).all()
    assert np.diff(found, axis=0).max() < 0.01 * found.max()
    np.testing.assert_allclose(found, found[:, :1].repeat(3, axis=1), rtol=1e-9)
    assert (found[0] == 0).all()


@pytest.mark.parametrize("peak", [100.0, 400.0, 1000.0, 10000.0])
def test_white_reaches_the_peak(peak):
    assert method_a(np.ones(3), peak) * 100 == pytest.approx([peak] * 3, rel=2e-3)


@given(COLOURS)
@settings(max_examples=300, deadline=None)
def test_every_colour_stays_finite_and_below_white(colour):
    light, weights = np.array(colour), luminance_weights("rec2020")
    assert np.isfinite(method_a(light)).all()
    found = method_c(light)
    assert (found >= light).all()
    assert found @ weights <= method_c(np.ones(3)) @ weights * (1 + 1e-9)


@pytest.mark.parametrize("expand", [method_a, method_c])
def test_negative_light_and_any_shape(expand):
    light = np.array([[[-0.01, 0.5, 0.2], [-0.1, -0.1, -0.1]]])
    found = expand(light)
    assert found.shape == light.shape
    assert np.isfinite(found).all()
    assert found[0, 0, 0] < 0
    assert (found[0, 1] <= 0).all()
