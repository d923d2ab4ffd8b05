"""Scene-linear to SDR codes: values, cuts, counts and the warning."""

from __future__ import annotations

import numpy as np
import pytest

from hdrgen_server.colour.interop import colourspace
from hdrgen_server.colour.ocio import convert
from hdrgen_server.colour.sdr import to_sdr
from hdrgen_server.contracts.frame import Frame
from nuke_hdrgen.wire.errors import BadInput, BadParameter

SRGB = colourspace("srgb_rec709_scene")
LINEAR = colourspace("lin_ap1_scene")


def plate(codes):
    """A scene-linear AP1 frame of sRGB codes given as (N, 3)."""
    return convert(Frame(np.array(codes, np.float32)[None], ("R", "G", "B"), SRGB), LINEAR)


def test_codes_come_back_and_thresholds_count():
    codes = np.array([(255, 250, 249), (2, 3, 128), (0, 255, 1)]) / 255.0
    made = to_sdr(plate(codes), SRGB)
    np.testing.assert_allclose(made.frame.pixels[0], codes, atol=2e-6)
    assert made.frame.colourspace is SRGB
    assert made.counts.as_dict() == {"clipped": 3, "crushed": 3, "above": 0, "below": 0, "samples": 9}
    assert made.warnings == ()


def test_thresholds_can_be_moved():
    made = to_sdr(plate([(0.5, 0.6, 0.7)]), SRGB, clipped_code=0.6, crushed_code=0.5)
    assert (made.counts.clipped, made.counts.crushed) == (2, 1)


def test_what_is_cut_is_counted_and_the_wrong_encoding_is_named():
    hdr = Frame(np.array([[(4.0, 4.0, 4.0), (0.5, 0.5, 0.5), (1.0, 0.0, 0.0)]], np.float32), ("R", "G", "B"), LINEAR)
    made = to_sdr(hdr, SRGB)
    # Pure AP1 red lies outside Rec.709: red above 1, green and blue below 0.
    assert (made.counts.above, made.counts.below) == (4, 2)
    assert made.frame.pixels.max() == 1.0
    assert made.frame.pixels.min() == 0.0
    assert len(made.warnings) == 1
    assert "input encoding is probably wrong" in made.warnings[0]
    assert "srgb_rec709_scene" in made.warnings[0]


def test_no_warning_for_a_plate_that_piles_up_at_the_top_even_in_half():
    codes = np.vstack([np.ones((60, 3)), np.random.default_rng(2).uniform(0, 0.9, (40, 3))])
    half = plate(codes)
    half = half.with_pixels(half.pixels.astype(np.float16))
    assert to_sdr(half, SRGB).warnings == ()


def test_a_chance_hit_of_the_top_code_does_not_hide_the_warning():
    codes = np.concatenate([np.full((999, 3), 1.7), np.ones((1, 3))])
    assert to_sdr(plate(codes), SRGB).warnings


def test_alpha_passes():
    pixels = np.array([[(0.2, 0.2, 0.2, 1.5), (0.1, 0.1, 0.1, -0.5)]], np.float32)
    made = to_sdr(Frame(pixels, ("R", "G", "B", "A"), LINEAR), SRGB)
    assert (made.frame.pixels[..., 3] == pixels[..., 3]).all()
    assert made.counts.samples == 6


@pytest.mark.parametrize("space", [SRGB, LINEAR])
def test_nan_and_inf_are_refused(space):
    bad = Frame(np.array([[(np.nan, 0.2, 0.2), (0.1, np.inf, 0.1)]], np.float32), ("R", "G", "B"), space)
    with pytest.raises(BadInput, match="1 NaN and 1 Inf"):
        to_sdr(bad, SRGB)


def test_bad_targets_and_thresholds_are_refused():
    with pytest.raises(BadParameter, match="encoded colourspace"):
        to_sdr(plate([(0.5, 0.5, 0.5)]), LINEAR)
    with pytest.raises(BadParameter, match="thresholds"):
        to_sdr(plate([(0.5, 0.5, 0.5)]), SRGB, clipped_code=0.1, crushed_code=0.2)
