"""Matrices between RGB spaces against colour-science and published figures."""

from __future__ import annotations

import numpy as np
import pytest

from hdrgen_server.colour.primaries import (
    CHROMATICITIES,
    adaptation,
    known_name,
    luminance_weights,
    rgb_to_rgb,
    rgb_to_xyz,
    xyz_to_rgb,
)
from nuke_hdrgen.wire.errors import BadInput
from tests.colour.oracle import colour

THEIRS = {
    "rec709": "ITU-R BT.709",
    "rec2020": "ITU-R BT.2020",
    "p3d65": "P3-D65",
    "ap0": "ACES2065-1",
    "ap1": "ACEScg",
    "awg3": "ARRI Wide Gamut 3",
    "awg4": "ARRI Wide Gamut 4",
    "adobergb": "Adobe RGB (1998)",
}


@pytest.mark.parametrize("name", sorted(CHROMATICITIES))
def test_chromaticities_and_matrix_to_xyz(name):
    theirs = colour.RGB_COLOURSPACES[THEIRS[name]]
    np.testing.assert_allclose(CHROMATICITIES[name], [*theirs.primaries.ravel(), *theirs.whitepoint], atol=1e-12)
    expected = colour.normalised_primary_matrix(theirs.primaries, theirs.whitepoint)
    np.testing.assert_allclose(rgb_to_xyz(name), expected, atol=1e-12)


@pytest.mark.parametrize("source", sorted(CHROMATICITIES))
@pytest.mark.parametrize("target", sorted(CHROMATICITIES))
def test_white_goes_to_white_and_back_again(source, target):
    matrix = rgb_to_rgb(source, target)
    assert matrix.dtype == np.float64
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-12)
    np.testing.assert_allclose(matrix @ rgb_to_rgb(target, source), np.eye(3), atol=1e-12)


@pytest.mark.parametrize(("source", "target"), [("ap1", "rec709"), ("rec2020", "ap0"), ("p3d65", "rec709")])
def test_bradford_as_colour_science_has_it(source, target):
    theirs = [colour.RGB_COLOURSPACES[THEIRS[n]].copy() for n in (source, target)]
    for space in theirs:
        space.use_derived_transformation_matrices(True)
    expected = colour.matrix_RGB_to_RGB(*theirs, chromatic_adaptation_transform="Bradford")
    np.testing.assert_allclose(rgb_to_rgb(source, target), expected, atol=1e-9)


def test_arri_spaces_reach_ap0_by_cat02():
    theirs = [colour.RGB_COLOURSPACES[THEIRS[n]].copy() for n in ("awg3", "ap0")]
    for space in theirs:
        space.use_derived_transformation_matrices(True)
    expected = colour.matrix_RGB_to_RGB(*theirs, chromatic_adaptation_transform="CAT02")
    np.testing.assert_allclose(rgb_to_rgb("awg3", "ap0"), expected, atol=1e-9)
    # ARRI's AWG3 to AP0 matrix as published, six digits.
    np.testing.assert_allclose(rgb_to_rgb("awg3", "ap0")[0], [0.680206, 0.236137, 0.083658], atol=1e-5)


def test_luminance_weights_of_the_standards():
    np.testing.assert_allclose(luminance_weights("rec709"), [0.2126, 0.7152, 0.0722], atol=5e-5)
    np.testing.assert_allclose(luminance_weights("rec2020"), [0.2627, 0.6780, 0.0593], atol=5e-5)
    np.testing.assert_allclose(luminance_weights("ap1"), [0.2722287, 0.6740818, 0.0536895], atol=1e-6)


def test_inverse_and_identity():
    np.testing.assert_allclose(xyz_to_rgb("ap0") @ rgb_to_xyz("ap0"), np.eye(3), atol=1e-12)
    assert (rgb_to_rgb("rec709", "rec709") == np.eye(3)).all()
    assert (adaptation((0.3127, 0.329), (0.3127, 0.329)) == np.eye(3)).all()


def test_float32_chromaticities_from_a_file_are_known():
    rounded = tuple(float(np.float32(v)) for v in CHROMATICITIES["awg4"])
    assert known_name(rounded) == "awg4"
    np.testing.assert_allclose(rgb_to_rgb(rounded, "ap0"), rgb_to_rgb("awg4", "ap0"), atol=1e-6)
    assert known_name((0.5, 0.3, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329)) is None


@pytest.mark.parametrize(
    "bad",
    [
        (0.6, 0.3, 0.6, 0.3, 0.15, 0.06, 0.3127, 0.329),
        (0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.0),
        (float("nan"), 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329),
        (0.0,) * 8,
        "rec710",
    ],
)
def test_impossible_primaries_are_refused(bad):
    with pytest.raises(BadInput):
        rgb_to_rgb(bad, "rec709")
