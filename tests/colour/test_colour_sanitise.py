"""NaN and Inf: what replaces them, what is counted, what is left alone."""

from __future__ import annotations

import numpy as np
import pytest

from hdrgen_server.colour.interop import colourspace
from hdrgen_server.colour.sanitise import Counts, sanitise
from hdrgen_server.contracts.frame import Frame
from nuke_hdrgen.wire.errors import BadInput, BadParameter

NAN, INF = np.nan, np.inf


def frame(pixels, channels=("R", "G", "B"), space="lin_rec709_scene", **rest):
    return Frame(np.array(pixels, np.float32).reshape(1, -1, len(channels)), channels, colourspace(space), **rest)


@pytest.mark.parametrize(
    ("pixel", "expected", "counts"),
    [
        ((NAN, 0.2, 0.3), (0.0, 0.2, 0.3), Counts(1, 0, 1)),
        ((INF, 0.2, 0.3), (8.0, 0.2, 0.3), Counts(0, 1, 1)),
        ((INF, INF, INF), (8.0, 8.0, 8.0), Counts(0, 3, 1)),
        ((-INF, 0.2, NAN), (0.0, 0.2, 0.0), Counts(1, 1, 1)),
        ((0.1, 0.2, 0.3), (0.1, 0.2, 0.3), Counts(0, 0, 0)),
    ],
)
def test_replace(pixel, expected, counts):
    clean, counted = sanitise(frame([pixel, (8.0, -1.0, 0.5)]))
    assert counted == counts
    np.testing.assert_array_equal(clean.pixels[0, 0], np.array(expected, np.float32))
    np.testing.assert_array_equal(clean.pixels[0, 1], np.array((8.0, -1.0, 0.5), np.float32))


def test_alpha_is_full_where_it_was_infinite_and_layers_pass_bit_for_bit():
    depth = np.array([[NAN, INF]], np.float32)
    given = frame([(0.5, 0.5, 0.5, INF), (0.5, 0.5, NAN, NAN)], ("R", "G", "B", "A"), layers={"depth.Z": depth})
    clean, counts = sanitise(given)
    np.testing.assert_array_equal(clean.pixels[0], [(0.5, 0.5, 0.5, 1.0), (0.5, 0.5, 0.0, 0.0)])
    assert counts.as_dict() == {"nan": 2, "inf": 1, "pixels": 2}
    assert clean.layers["depth.Z"] is depth
    assert np.isnan(given.pixels).any(), "the input must not be written to"


def test_a_frame_without_any_finite_value_becomes_white():
    clean, _ = sanitise(frame([(INF, INF, NAN)]))
    np.testing.assert_array_equal(clean.pixels[0, 0], (1.0, 1.0, 0.0))


def test_grey_with_alpha():
    clean, counts = sanitise(frame([(INF, INF), (0.25, 1.0)], ("Y", "A")))
    np.testing.assert_array_equal(clean.pixels[0], [(0.25, 1.0), (0.25, 1.0)])
    assert counts == Counts(0, 2, 1)


def test_keep_counts_and_refuse_names_the_counts():
    given = frame([(NAN, 1.0, INF)], number=7)
    kept, counts = sanitise(given, "keep")
    assert kept is given
    assert not counts.clean
    with pytest.raises(BadInput, match="frame 7 has 1 NaN and 1 Inf samples in 1 pixels"):
        sanitise(given, "refuse")


def test_clean_frames_are_not_copied_and_data_is_not_touched():
    given = frame([(0.1, 0.2, 0.3)])
    assert sanitise(given, "refuse") == (given, Counts())
    data = frame([(NAN, 0.2, 0.3)], space="data")
    assert sanitise(data)[0] is data
    assert sanitise(data)[1].clean


def test_an_unknown_policy_is_refused():
    with pytest.raises(BadParameter, match="replace, keep, refuse"):
        sanitise(frame([(0.1, 0.2, 0.3)]), "ignore")
