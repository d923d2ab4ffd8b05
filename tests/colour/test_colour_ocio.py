"""Configs, names and conversion, with OCIO's own processors as the oracle."""

from __future__ import annotations

import numpy as np
import PyOpenColorIO as OCIO
import pytest

from hdrgen_server.colour import interop
from hdrgen_server.colour.interop import INTEROP
from hdrgen_server.colour.ocio import convert, load_config, resolve
from hdrgen_server.colour.ocio_config import PINNED_CONFIG
from hdrgen_server.colour.primaries import CHROMATICITIES
from hdrgen_server.contracts.frame import Box, Colourspace, Frame
from nuke_hdrgen.wire.errors import BadInput, UnknownColourspace

IDS = [name for name in INTEROP if name != "data"]
PIXELS = np.random.default_rng(5).gamma(0.6, 1.5, (300, 4, 3)).astype(np.float32)

CUSTOM = """ocio_profile_version: 2
roles: {scene_linear: My Linear, aces_interchange: AP0, default: Raw}
file_rules: [!<Rule> {name: Default, colorspace: default}]
displays: {sRGB: [!<View> {name: Raw, colorspace: Raw}]}
active_displays: []
active_views: []
colorspaces:
  - !<ColorSpace> {name: AP0, encoding: scene-linear}
  - !<ColorSpace> {name: Raw, isdata: true}
  - !<ColorSpace>
    name: My Linear
    to_scene_reference: !<MatrixTransform>
      matrix: [0.6, 0.3, 0.1, 0, 0.2, 0.7, 0.1, 0, 0, 0.1, 0.9, 0, 0, 0, 0, 1]
  - !<ColorSpace>
    name: My Log
    aliases: [studio_log]
    to_scene_reference: !<LogTransform> {base: 2, direction: inverse}
"""


@pytest.fixture(scope="module")
def studio():
    return load_config(PINNED_CONFIG)


@pytest.fixture
def custom(tmp_path):
    path = tmp_path / "custom.ocio"
    path.write_text(CUSTOM)
    return path


def frame(space, pixels=PIXELS, channels=("R", "G", "B"), **rest):
    return Frame(np.ascontiguousarray(pixels, np.float32), channels, space, **rest)


def through_ocio(view, source, target, pixels=PIXELS):
    processor = view.config.getProcessor(source, target).getOptimizedCPUProcessor(OCIO.OPTIMIZATION_LOSSLESS)
    converted = pixels.copy()
    processor.applyRGB(converted)
    return converted


@pytest.mark.parametrize("environment", [{}, {"OCIO": ""}])
def test_an_unset_or_empty_variable_gives_the_pinned_config_never_raw(environment):
    view = load_config(environment=environment)
    assert view.source == PINNED_CONFIG
    assert len(view.spaces()) > 50
    assert resolve(view).name == "ACEScg"


def test_argument_then_variable_then_pinned(custom):
    environment = {"OCIO": str(custom)}
    assert load_config(environment=environment).source == str(custom)
    assert load_config("", environment).source == str(custom)
    older = "studio-config-v1.0.0_aces-v1.3_ocio-v2.1"
    assert load_config(older, environment).source == older
    assert load_config("ocio://" + older).source == older
    assert load_config("ocio://default", environment).source == "default"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("studio-config-v5.0.0", "nearest: .*studio-config"),
        ("ocio://cg-config-v5.0.0_aces-v2.1", "nearest: cg-config-v5.0.0_aces-v2.1_ocio-v2.6"),
        ("raw", "known: "),
    ],
)
def test_an_unknown_built_in_names_the_nearest(name, says):
    with pytest.raises(UnknownColourspace, match=says):
        load_config(name)
    with pytest.raises(UnknownColourspace, match=says):
        load_config(environment={"OCIO": name})


def test_a_missing_file_names_what_lies_beside_it(custom):
    with pytest.raises(UnknownColourspace, match=r"is not a file.*nearest: custom\.ocio"):
        load_config(custom.with_name("custm.ocio"))
    with pytest.raises(UnknownColourspace, match="known: none"):
        load_config(custom.parent / "nowhere" / "custom.ocio")


@pytest.mark.parametrize("text", ["", "not: [yaml", "ocio_profile_version: 99\n", "colorspaces: 3\n"])
def test_a_broken_file_is_one_line(tmp_path, text):
    path = tmp_path / "broken.ocio"
    path.write_text(text)
    with pytest.raises(BadInput, match="cannot be read") as caught:
        load_config(path)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("name", "space", "interop_id", "span"),
    [
        ("", "ACEScg", "lin_ap1_scene", "scene_linear"),
        ("scene_linear", "ACEScg", "lin_ap1_scene", "scene_linear"),
        ("acescg", "ACEScg", "lin_ap1_scene", "scene_linear"),
        ("srgb_tx", "sRGB Encoded Rec.709 (sRGB)", "srgb_rec709_scene", "encoded"),
        ("lin_rec709_scene", "Linear Rec.709 (sRGB)", "lin_rec709_scene", "scene_linear"),
        ("ocio:arrilogc3_awg3_scene", "ARRI LogC3 (EI800)", "ocio:arrilogc3_awg3_scene", "encoded"),
        ("Apple Log", "Apple Log", "ocio:applelog_rec2020_scene", "encoded"),
        ("data", "Raw", "data", "data"),
    ],
)
def test_names_aliases_roles_and_ids_resolve(studio, name, space, interop_id, span):
    found = resolve(studio, name)
    assert (found.name, found.interop_id, found.range) == (space, interop_id, span)


def test_a_linear_space_outside_the_table_says_its_chromaticities(studio):
    found = resolve(studio, "Linear REDWideGamutRGB")
    assert found.range == "scene_linear"
    assert found.chromaticities is not None
    given = frame(found)
    np.testing.assert_allclose(
        convert(given, resolve(studio, "ACEScg")).pixels,
        through_ocio(studio, found.name, "ACEScg"),
        atol=2e-5,
    )


@pytest.mark.parametrize(
    ("name", "interop_id"),
    [
        ("ACEScg", "lin_ap1_scene"),
        ("Linear P3-D65", "lin_p3d65_scene"),
        ("sRGB - Texture", "srgb_rec709_scene"),
        ("ARRI LogC3 (EI800)", "ocio:arrilogc3_awg3_scene"),
        ("Rec.2100-PQ - Display", "pq_rec2020_display"),
    ],
)
def test_a_config_from_before_the_ids_gets_them(name, interop_id):
    older = load_config("studio-config-v1.0.0_aces-v1.3_ocio-v2.1")
    assert resolve(older, name).interop_id == interop_id


def test_an_id_that_the_config_lacks_is_its_own_name(custom):
    view = load_config(custom)
    assert resolve(view, "lin_rec709_scene") == INTEROP["lin_rec709_scene"].colourspace("lin_rec709_scene")


def test_a_typing_mistake_names_the_nearest(studio):
    with pytest.raises(UnknownColourspace, match=r"no colourspace, role or interop id 'ACESgc'; nearest: ACEScg"):
        resolve(studio, "ACESgc")
    with pytest.raises(UnknownColourspace, match="nearest: lin_rec709_scene"):
        resolve(studio, "lin_rec790_scene")


def test_a_missing_role_is_an_error(tmp_path):
    path = tmp_path / "roleless.ocio"
    path.write_text(CUSTOM.replace("scene_linear: My Linear, ", ""))
    with pytest.raises(UnknownColourspace, match="'scene_linear'"):
        resolve(load_config(path))


@pytest.mark.parametrize("interop_id", IDS)
def test_tables_agree_with_the_studio_config_both_ways(studio, interop_id):
    linear = interop.colourspace("lin_rec709_scene")
    expected = through_ocio(studio, "lin_rec709_scene", interop_id)
    # Below 0 OCIO's power laws mirror or pass through by space: compared where light is positive.
    positive = (through_ocio(studio, "lin_rec709_scene", interop_id, PIXELS) >= 0).all(axis=2)
    encoded = convert(frame(linear), interop.colourspace(interop_id))
    assert encoded.colourspace.interop_id == interop_id
    # OCIO derives the slope of the sRGB toe (12.9232) where the standard states 12.92: 1e-5 in code at most.
    tolerance = 1.2e-5 if interop_id.startswith("srgb") else 2e-6
    np.testing.assert_allclose(encoded.pixels[positive], expected[positive], rtol=2e-6, atol=tolerance)
    np.testing.assert_allclose(convert(encoded, linear).pixels, PIXELS, rtol=1e-5, atol=1e-5)


def test_conversion_needs_no_config_where_the_tables_know(monkeypatch):
    monkeypatch.setenv("OCIO", "/nowhere/config.ocio")
    target = Colourspace("whatever the script says", "", CHROMATICITIES["ap1"])
    converted = convert(frame(interop.colourspace("srgb_rec709_scene")), target)
    assert converted.colourspace is target
    with pytest.raises(UnknownColourspace, match="is not a file"):
        convert(frame(interop.colourspace("srgb_rec709_scene")), Colourspace("My Log", range="encoded"))


def test_a_space_of_the_config_only(custom):
    view = load_config(custom)
    log, linear = resolve(view, "studio_log"), resolve(view)
    assert (log.name, log.interop_id, log.range) == ("My Log", "", "encoded")
    assert linear.chromaticities is not None
    there = convert(frame(linear, PIXELS + 0.1), log, view)
    np.testing.assert_allclose(there.pixels, through_ocio(view, "My Linear", "My Log", PIXELS + 0.1), atol=1e-5)
    np.testing.assert_allclose(convert(there, linear, view).pixels, PIXELS + 0.1, rtol=1e-4)


def test_a_config_without_interchange_converts_by_its_own_names(tmp_path):
    path = tmp_path / "plain.ocio"
    path.write_text(CUSTOM.replace(", aces_interchange: AP0", ""))
    view = load_config(path)
    linear, log = resolve(view), resolve(view, "My Log")
    assert linear.chromaticities is None
    np.testing.assert_allclose(
        convert(frame(linear, PIXELS + 0.1), log, view).pixels,
        through_ocio(view, "My Linear", "My Log", PIXELS + 0.1),
        atol=1e-6,
    )
    with pytest.raises(BadInput, match="100 nits"):
        convert(frame(linear), log, view, white_nits=203.0)


def test_diffuse_white_is_100_nits_unless_told(studio):
    white = frame(interop.colourspace("lin_rec2020_scene"), np.ones((1, 1, 3)))
    pq, hlg = interop.colourspace("pq_rec2020_display"), interop.colourspace("hlg_rec2020_display")
    assert convert(white, pq).pixels[0, 0, 0] == pytest.approx(0.50808, abs=1e-5)
    assert convert(white, pq, white_nits=203.0).pixels[0, 0, 0] == pytest.approx(0.58069, abs=1e-5)
    assert convert(white, hlg, white_nits=203.0).pixels[0, 0, 0] == pytest.approx(0.75, abs=5e-4)
    log = convert(white, resolve(studio, "Apple Log"), studio)
    assert convert(log, pq, studio, white_nits=203.0).pixels[0, 0, 1] == pytest.approx(0.58069, abs=1e-4)


def test_alpha_layers_windows_and_data_are_untouched():
    pixels = np.dstack([PIXELS, np.linspace(0, 1, 1200, dtype=np.float32).reshape(300, 4)])
    mask = np.array([[np.nan]], np.float16)
    given = frame(
        interop.colourspace("lin_ap1_scene"), pixels, ("R", "G", "B", "A"),
        layers={"mask": mask}, data_window=Box(3, 4, 6, 303), metadata={"a": 1},
    )  # fmt: skip
    converted = convert(given, interop.colourspace("srgb_rec709_scene"))
    assert (converted.pixels[..., 3] == pixels[..., 3]).all()
    assert not np.array_equal(converted.rgb, given.rgb)
    assert converted.layers["mask"] is mask
    assert (converted.data_window, converted.metadata) == (given.data_window, {"a": 1})
    assert (given.pixels == pixels).all(), "the input must not be written to"
    data = frame(interop.colourspace("data"), np.full((2, 2, 3), np.nan))
    assert convert(data, interop.colourspace("lin_ap0_scene")) is data


def test_grey_is_neutral():
    grey = frame(interop.colourspace("lin_ap1_scene"), np.full((2, 2, 2), 0.18), ("Y", "A"))
    converted = convert(grey, interop.colourspace("srgb_rec709_scene"))
    np.testing.assert_allclose(converted.pixels[..., 0], 0.461356, atol=1e-6)
    assert (converted.pixels[..., 1] == np.float32(0.18)).all()


def test_the_same_space_is_the_same_pixels():
    given = frame(Colourspace("ACEScg", "lin_ap1_scene", CHROMATICITIES["ap1"]), np.full((2, 2, 3), np.inf))
    renamed = convert(given, Colourspace("working", "lin_ap1_scene", CHROMATICITIES["ap1"]))
    assert renamed.pixels is given.pixels
    assert renamed.colourspace.name == "working"
    bare = Colourspace("file", "", CHROMATICITIES["ap0"])
    assert convert(frame(bare), Colourspace("other", "", CHROMATICITIES["ap0"])).pixels is not None
    log = Colourspace("My Log", range="encoded")
    assert convert(frame(log), log).pixels is not None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_pixels_are_refused_before_any_matrix(bad):
    pixels = PIXELS.copy()
    pixels[0, 0, 1] = bad
    with pytest.raises(BadInput, match="sanitise"):
        convert(frame(interop.colourspace("lin_ap1_scene"), pixels), interop.colourspace("lin_rec709_scene"))


def test_colour_does_not_become_data_and_unknown_ids_and_spaces_are_named(studio):
    given = frame(interop.colourspace("lin_ap1_scene"))
    with pytest.raises(BadInput, match="holds data"):
        convert(given, interop.colourspace("data"))
    with pytest.raises(UnknownColourspace, match="lin_rec709_scene"):
        interop.colourspace("lin_rec710_scene")
    with pytest.raises(UnknownColourspace, match="nearest: ARRI LogC4"):
        convert(given, Colourspace("ARRI LogC5", range="encoded"), studio)


def test_an_id_without_an_alias_and_a_space_without_a_way(tmp_path):
    path = tmp_path / "ids.ocio"
    path.write_text(
        CUSTOM.replace("ocio_profile_version: 2", "ocio_profile_version: 2.5").replace(
            "name: My Log\n", "name: My Log\n    interop_id: site:mylog\n"
        )
        + "  - !<ColorSpace>\n    name: Lost\n    to_scene_reference: !<FileTransform> {src: gone.spi1d}\n"
    )
    view = load_config(path)
    assert resolve(view, "site:mylog").name == "My Log"
    lost = resolve(view, "Lost")
    assert (lost.range, lost.chromaticities) == ("encoded", None)
    with pytest.raises(BadInput, match="cannot convert") as caught:
        convert(frame(resolve(view)), lost, view)
    assert "\n" not in caught.value.message


def test_a_linear_space_whose_white_is_not_one_has_no_chromaticities(tmp_path):
    path = tmp_path / "scaled.ocio"
    path.write_text(CUSTOM.replace("0.6, 0.3, 0.1, 0, 0.2, 0.7", "1.6, 0.3, 0.1, 0, 0.2, 1.7"))
    view = load_config(path)
    found = resolve(view)
    assert (found.range, found.chromaticities) == ("scene_linear", None)
    np.testing.assert_allclose(
        convert(frame(found), resolve(view, "lin_ap0_scene"), view).pixels,
        through_ocio(view, "My Linear", "AP0"),
        rtol=1e-5,
    )


def test_linear_spaces_are_found_by_their_chromaticities():
    for name, expected in (("ap1", "lin_ap1_scene"), ("awg4", "ocio:lin_awg4_scene")):
        rounded = tuple(float(np.float32(v)) for v in CHROMATICITIES[name])
        assert interop.linear_id_of(rounded) == expected
    assert interop.linear_id_of((0.6, 0.3, 0.3, 0.6, 0.1, 0.06, 0.3, 0.33)) == ""
    assert interop.transfer_of("srgb_rec709_scene", 203.0) is interop.transfer_of("srgb_rec709_scene")
