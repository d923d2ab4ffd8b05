"""Plans from headers alone: windows, views and refusals that broken files lead to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import OpenEXR
import pytest

from hdrgen_server.contracts.frame import Box, Colourspace
from hdrgen_server.image.exr_parts import Limits, plan_parts
from hdrgen_server.image.tags import LIN_REC709_SCENE, of_interop_id, read_tag, write_tag
from nuke_hdrgen.wire.errors import BadInput, TooLarge


def channel(name: str) -> Any:
    return SimpleNamespace(name=name, xSampling=1, ySampling=1)


def corners(*values: int) -> tuple[np.ndarray, np.ndarray]:
    return np.array(values[:2], np.int32), np.array(values[2:], np.int32)


def header(**changes: Any) -> dict[str, Any]:
    return {
        "type": OpenEXR.scanlineimage,
        "channels": [channel(name) for name in "ABGR"],
        "dataWindow": corners(-1, -2, 6, 5),
        "displayWindow": corners(0, 0, 7, 7),
    } | changes


def test_a_plain_header_gives_one_view() -> None:
    plan = plan_parts([header()], Limits(), "a.exr")[0]
    assert (plan.data_window, plan.display_window) == (Box(-1, -2, 6, 5), Box(0, 0, 7, 7))
    assert list(plan.views[0].colour) == ["R", "G", "B", "A"]
    assert plan.views[0].layers == {}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"dataWindow": None}, "no data window"),
        ({"displayWindow": corners(5, 0, 4, 7)}, "empty display window of 0x8"),
        ({"dataWindow": corners(0, 9, 7, 7)}, "empty data window"),
        ({"channels": []}, "no channels"),
        ({"channels": None}, "no channels"),
        ({"pixelAspectRatio": float("nan")}, "pixel aspect of nan"),
        ({"pixelAspectRatio": 0.0}, "pixel aspect of 0.0"),
        ({"type": OpenEXR.deeptile}, "deep data"),
    ],
)
def test_unusable_headers_are_refused_by_part(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(BadInput, match=rf"a\.exr, part beauty .*{what}"):
        plan_parts([header(name="beauty", **changes)], Limits(), "a.exr")


def test_corners_at_the_ends_of_int32_do_not_overflow() -> None:
    wide = corners(-(2**31), 0, 2**31 - 1, 3)
    with pytest.raises(TooLarge, match="4294967296x4"):
        plan_parts([header(dataWindow=wide)], Limits(), "a.exr")


def test_no_part_is_bad_input() -> None:
    with pytest.raises(BadInput, match="no image part"):
        plan_parts([], Limits(), "a.exr")


def test_decoded_size_counts_all_parts() -> None:
    one = 8 * 8 * 4 * 4
    plan_parts([header(name="a"), header(name="b")], Limits(decoded_bytes=2 * one), "a.exr")
    with pytest.raises(TooLarge, match="decoded"):
        plan_parts([header(name="a"), header(name="b")], Limits(decoded_bytes=2 * one - 1), "a.exr")


def test_a_view_without_channels_is_left_out() -> None:
    plan = plan_parts([header(multiView=["left", "right"])], Limits(), "a.exr")[0]
    assert [view.view for view in plan.views] == ["left"]


@pytest.mark.parametrize(
    ("interop_id", "kind"),
    [
        ("lin_ap1_scene", "scene_linear"), ("srgb_p3d65_scene", "encoded"), ("data", "data"),
        ("house:lin_x_scene", "scene_linear"), ("house:log_x_scene", "encoded"),
    ],
)  # fmt: skip
def test_ids_tell_their_range(interop_id: str, kind: str) -> None:
    assert of_interop_id(interop_id).range == kind


def test_a_tag_of_an_unknown_id_keeps_stated_chromaticities() -> None:
    stated = (0.7, 0.3, 0.2, 0.7, 0.1, 0.05, 0.33, 0.34)
    found, source = read_tag({"colorInteropID": "house:lin_x_scene", "chromaticities": stated}, LIN_REC709_SCENE)
    assert (found.chromaticities, source) == (stated, "colorInteropID")


@pytest.mark.parametrize("tag", [{"colorInteropID": "unknown"}, {"colorInteropID": ""}, {"chromaticities": (1.0, 2.0)}])
def test_an_empty_tag_is_no_tag(tag: dict[str, Any]) -> None:
    assert read_tag(tag, LIN_REC709_SCENE) == (LIN_REC709_SCENE, "assumed")


def test_infinite_chromaticities_are_no_tag() -> None:
    tag = {"chromaticities": (float("inf"), *(0.3,) * 7)}
    assert read_tag(tag, LIN_REC709_SCENE)[1] == "assumed"


def test_data_and_nameless_spaces_write_what_they_know() -> None:
    assert write_tag(Colourspace("data", "data", None, "data")) == {"colorInteropID": "data"}
    assert write_tag(Colourspace("house space")) == {}
    assert "colorInteropID" not in write_tag(Colourspace("house", "", LIN_REC709_SCENE.chromaticities))
