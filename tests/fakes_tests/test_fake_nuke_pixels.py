"""Pixels: what each node class makes of a picture, and files through Write and Read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
import pytest

from tests.fakes.nuke import pixels
from tests.fakes.nuke.api import FakeNuke
from tests.fakes.nuke.errors import NukeError
from tests.fakes.nuke.nodes import Node
from tests.fakes.nuke.pixels import Picture
from tests.fakes.nuke.plain_plates import FlatPlate

H, W = 3, 4


def rgba(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.1, 2.0, (H, W, 4)).astype(np.float32)


def made(nuke: FakeNuke, kind: str, knobs: dict[str, Any], *inputs: Node) -> Node:
    node = nuke.createNode(kind)
    for index, source in enumerate(inputs):
        node.setInput(index, source)
    for name, value in knobs.items():
        node[name].fromScript(value) if str(value).startswith("{") else node[name].setValue(value)
    return node


@pytest.fixture
def a(nuke: FakeNuke) -> Node:
    nuke.load_text("add_layer {mask mask.x mask.y}")
    layers = {"mask.x": np.full((H, W), 0.25, np.float32), "mask.y": np.full((H, W), 7, np.float32)}
    picture = pixels.from_array(rgba(1), {"exr/a": "1", "input/filename": "a.exr"}).with_planes(layers)
    return nuke.plate(picture, "A")


@pytest.fixture
def b(nuke: FakeNuke) -> Node:
    return nuke.plate(pixels.from_array(rgba(2), {"exr/b": "2", "exr/a": "0"}), "B")


def out(nuke: FakeNuke, node: Node, frame: int = 1) -> Picture:
    return nuke.pixels(node, frame)


@pytest.mark.parametrize("kind", ["Dot", "NoOp", "Output", "Write"])
def test_some_classes_pass_everything(nuke: FakeNuke, a: Node, kind: str) -> None:
    assert out(nuke, made(nuke, kind, {}, a)) == nuke.plates["A"]


@pytest.mark.parametrize("kind", ["Grade", "Multiply", "Expression", "Premult", "Copy", "Crop", "TimeWarp"])
def test_a_disabled_node_passes_its_first_input(nuke: FakeNuke, a: Node, b: Node, kind: str) -> None:
    node = made(nuke, kind, {}, a)
    node["disable"].fromScript("{frame==2}")
    assert out(nuke, node, 2) == nuke.plates["A"]


def test_constant(nuke: FakeNuke) -> None:
    node = made(nuke, "Constant", {"channels": "rgba", "color": [0.5, 1.0, 2.0, 1.0]})
    nuke.root()["format"].setValue("8 6 0 0 8 6 1 small")
    picture = out(nuke, node)
    assert (picture.format, picture.box) == ((8, 6), (0, 0, 8, 6))
    assert picture.rgba()[3, 5].tolist() == [0.5, 1, 2, 1]
    assert (node.width(), node.height(), node.bbox().w(), node.metadata()) == (8, 6, 8, {})


def test_unconnected_is_black(nuke: FakeNuke) -> None:
    assert out(nuke, made(nuke, "Dot", {})).planes == {}
    assert not out(nuke, made(nuke, "Multiply", {"value": 2})).rgba().any()


def test_switch_and_dissolve(nuke: FakeNuke, a: Node, b: Node) -> None:
    switch = made(nuke, "Switch", {"which": "{frame>5}"}, a, b)
    assert (out(nuke, switch, 5), out(nuke, switch, 6)) == (nuke.plates["A"], nuke.plates["B"])
    switch["which"].fromScript("9")
    assert out(nuke, switch) == nuke.plates["B"]
    dissolve = made(nuke, "Dissolve", {"which": 0.25}, a, b)
    np.testing.assert_allclose(out(nuke, dissolve).rgba(), rgba(1) * 0.75 + rgba(2) * 0.25, rtol=1e-6)
    for which, wanted in ((0.0, "A"), (1.0, "B")):
        dissolve["which"].setValue(which)
        assert out(nuke, dissolve) == nuke.plates[wanted]


def test_copy_takes_channels_and_layers_of_a_into_b(nuke: FakeNuke, a: Node, b: Node) -> None:
    node = made(nuke, "Copy", {"from0": "mask.x", "to0": "rgba.alpha", "channels": "mask", "bbox": "B"}, b, a)
    picture = out(nuke, node)
    np.testing.assert_array_equal(picture.rgba()[..., :3], rgba(2)[..., :3])
    assert (picture.rgba()[..., 3] == 0.25).all()
    assert (picture.plane("mask.y") == 7).all()
    assert picture.metadata == nuke.plates["B"].metadata
    node["from1"].setValue("rgb")
    node["to1"].setValue("rgba.red")
    with pytest.raises(NukeError, match="does not fit"):
        out(nuke, node)


@pytest.mark.parametrize(("kind", "box"), [("B", (0, 0, 4, 3)), ("A", (2, 1, 4, 3)), ("union", (0, 0, 6, 4))])
def test_copy_and_its_bounding_boxes(nuke: FakeNuke, b: Node, kind: str, box: tuple[int, ...]) -> None:
    moved = nuke.plate(replace(pixels.from_array(rgba(1)), box=(2, 1, W, H)), "M")
    picture = out(nuke, made(nuke, "Copy", {"from0": "rgba.red", "to0": "rgba.red", "bbox": kind}, b, moved))
    assert picture.box == box
    y, x = 1 - box[1], 2 - box[0]
    assert picture.plane("rgba.red")[y, x] == rgba(1)[0, 0, 0]
    if kind != "A":
        assert picture.plane("rgba.red")[0, 0] == 0
        assert picture.plane("rgba.green")[0, 0] == rgba(2)[0, 0, 1]


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        ("Image+Meta", {"exr/b": "2", "exr/a": "1"}), ("Meta+Image", {"exr/b": "2", "exr/a": "0"}),
        ("Meta only", {"exr/a": "1"}), ("Image only", {"exr/b": "2", "exr/a": "0"}),
    ],
)  # fmt: skip
def test_copy_metadata(nuke: FakeNuke, a: Node, b: Node, mode: str, wanted: dict[str, str]) -> None:
    knobs = {"mergeMode": mode, "metadatafilter": "exr/", "metadatafilterMode": "keys only"}
    node = made(nuke, "CopyMetaData", knobs, b, a)
    assert node.metadata() == wanted
    assert node.metadata("exr/none") is None
    np.testing.assert_array_equal(out(nuke, node).rgba(), rgba(2))


def test_expression_sees_its_input_and_its_own_names(nuke: FakeNuke, a: Node) -> None:
    knobs = {
        "temp_name0": "top", "temp_expr0": "max(r, g, b)", "temp_name1": "half", "temp_expr1": "top/2",
        "expr0": "g", "expr1": "r > half ? r : half", "channel2": "mask.x", "expr2": "mask.y*2+frame", "expr3": "a*0+1",
    }  # fmt: skip
    picture = out(nuke, made(nuke, "Expression", knobs, a), 3)
    source = rgba(1)
    np.testing.assert_array_equal(picture.plane("rgba.red"), source[..., 1])
    half = source[..., :3].max(axis=2) / np.float32(2)
    np.testing.assert_array_equal(picture.plane("rgba.green"), np.maximum(source[..., 0], half))
    np.testing.assert_array_equal(picture.plane("rgba.blue"), source[..., 2])
    assert (picture.plane("mask.x") == 17).all()
    assert (picture.plane("rgba.alpha") == 1).all()
    assert {plane.dtype for plane in picture.planes.values()} == {np.dtype(np.float32)}


def test_expression_keeps_nan_and_inf_apart(nuke: FakeNuke) -> None:
    hwc = rgba()
    hwc[0, 0, 0], hwc[0, 1, 0], hwc[0, 2, 0] = np.nan, np.inf, 0
    node = made(nuke, "Expression", {"expr0": "r-r==0 ? 1/r : -1"}, nuke.plate(hwc))
    assert out(nuke, node).plane("rgba.red")[0, :3].tolist() == [-1, -1, np.inf]


@pytest.mark.parametrize("expression", ["Ar", "nothing", "mask.z", "red"])
def test_expression_refuses_names_that_nothing_has(nuke: FakeNuke, a: Node, expression: str) -> None:
    with pytest.raises(NukeError):
        out(nuke, made(nuke, "Expression", {"expr0": expression}, a))


def test_merge_expression_sees_both_inputs(nuke: FakeNuke, a: Node, b: Node) -> None:
    node = made(nuke, "MergeExpression", {"expr0": "Ba>1 ? Ar : Br", "expr1": "Ag+Bg"}, b, a)
    red, green = out(nuke, node).plane("rgba.red"), out(nuke, node).plane("rgba.green")
    np.testing.assert_array_equal(red, np.where(rgba(2)[..., 3] > 1, rgba(1)[..., 0], rgba(2)[..., 0]))
    np.testing.assert_array_equal(green, rgba(1)[..., 1] + rgba(2)[..., 1])
    np.testing.assert_array_equal(out(nuke, node).plane("rgba.blue"), rgba(2)[..., 2])
    node["expr0"].setValue("r")
    with pytest.raises(NukeError, match="'r'"):
        out(nuke, node)


def test_unpremult_leaves_colour_without_alpha_alone(nuke: FakeNuke) -> None:
    hwc = rgba()
    hwc[0, 0, 3] = 0
    plate = nuke.plate(hwc)
    straight = out(nuke, made(nuke, "Unpremult", {}, plate)).rgba()
    assert (straight[0, 0] == hwc[0, 0]).all()
    np.testing.assert_allclose(straight[1:, :, :3], hwc[1:, :, :3] / hwc[1:, :, 3:], rtol=1e-6)
    np.testing.assert_array_equal(straight[..., 3], hwc[..., 3])
    premultiplied = out(nuke, made(nuke, "Premult", {}, plate)).rgba()
    np.testing.assert_array_equal(premultiplied[..., :3], hwc[..., :3] * hwc[..., 3:])


def test_multiply_and_grade(nuke: FakeNuke, a: Node) -> None:
    picture = out(nuke, made(nuke, "Multiply", {"value": 2.0, "channels": "rgb"}, a))
    np.testing.assert_array_equal(picture.rgba()[..., :3], rgba(1)[..., :3] * 2)
    np.testing.assert_array_equal(picture.rgba()[..., 3], rgba(1)[..., 3])
    grade = made(nuke, "Grade", {"multiply": 2.0, "add": -1.0}, a)
    np.testing.assert_array_equal(out(nuke, grade).rgba()[..., 0], np.maximum(rgba(1)[..., 0] * 2 - 1, 0))
    grade["black_clamp"].setValue(False)
    assert out(nuke, grade).rgba().min() < 0
    grade["gamma"].setValue(2.0)
    with pytest.raises(NukeError, match="gamma"):
        out(nuke, grade)


def test_masks_and_mixes_are_refused(nuke: FakeNuke, a: Node) -> None:
    for knob, value in (("mix", 0.5), ("maskChannelInput", "rgba.alpha"), ("unpremult", "rgba.alpha")):
        with pytest.raises(NukeError, match=knob):
            out(nuke, made(nuke, "Multiply", {knob: value}, a))


def test_channels_that_nobody_made_known_are_refused(nuke: FakeNuke, a: Node) -> None:
    for wrong in ("gone", "gone.x"):
        with pytest.raises(NukeError, match="no channel"):
            out(nuke, made(nuke, "Multiply", {"channels": wrong}, a))


def test_time(nuke: FakeNuke) -> None:
    plate = nuke.plate(lambda frame: np.full((H, W, 4), frame, np.float32))

    def shown(kind: str, knobs: dict[str, Any], frame: int) -> float:
        return out(nuke, made(nuke, kind, knobs, plate), frame).rgba()[0, 0, 0]

    assert shown("Dot", {}, 7) == 7
    assert shown("TimeWarp", {"lookup": "{frame*2+1}", "filter": "none"}, 7) == 15
    assert shown("TimeOffset", {"time_offset": 2}, 7) == 5
    assert shown("FrameHold", {"firstFrame": 3}, 7) == 3
    assert shown("FrameHold", {"firstFrame": 3, "increment": 2}, 8) == 7
    with pytest.raises(NukeError, match="between frames"):
        shown("TimeWarp", {"lookup": "{frame/2}"}, 7)


def test_crop_counts_from_below(nuke: FakeNuke, a: Node) -> None:
    node = made(nuke, "Crop", {"box": [1, 1, 3, 3]}, a)
    picture = out(nuke, node)
    assert (picture.box, picture.format, picture.nuke_box()) == ((1, 0, 2, 2), (W, H), (1, 1, 2, 2))
    np.testing.assert_array_equal(picture.rgba(), rgba(1)[:2, 1:3])
    assert (node.bbox().x(), node.bbox().y()) == (1, 1)
    node["reformat"].setValue(True)
    assert (out(nuke, node).box, out(nuke, node).format) == ((0, 0, 2, 2), (2, 2))


def test_groups_and_inputs(nuke: FakeNuke, a: Node) -> None:
    node = made(nuke, "Small", {"gain": 3.0}, a)
    np.testing.assert_array_equal(out(nuke, node).rgba()[..., :3], rgba(1)[..., :3] * 3)
    node["gain"].fromScript("{frame}")
    np.testing.assert_array_equal(out(nuke, node, 2).rgba()[..., :3], rgba(1)[..., :3] * 2)
    node["disable"].setValue(True)
    assert out(nuke, node) == nuke.plates["A"]


def test_a_knob_set_to_what_is_not_built_is_refused(nuke: FakeNuke, a: Node, b: Node) -> None:
    for kind, knobs in (
        ("Premult", {"invert": True}), ("TimeOffset", {"reverse_input": True}), ("Crop", {"intersect": True}),
        ("Copy", {"metainput": "A"}), ("Dissolve", {"channels": "rgb"}),
    ):  # fmt: skip
        with pytest.raises(NukeError, match=next(iter(knobs))):
            out(nuke, made(nuke, kind, knobs, a, *([b] if kind in {"Copy", "Dissolve"} else [])))


def write(nuke: FakeNuke, source: Node, path: str, **knobs: Any) -> Node:
    exr = {"file": path, "file_type": "exr", "datatype": "32 bit float", "channels": "rgba", "raw": True}
    return made(nuke, "Write", {**exr, **knobs}, source)


def read(nuke: FakeNuke, path: str, **knobs: Any) -> Node:
    return made(nuke, "Read", {"file": path, "raw": True, "first": 1, "last": 100, **knobs})


@pytest.mark.parametrize("compression", ["none", "Zip (1 scanline)", "Zip (16 scanlines)"])
def test_files_keep_pixels_windows_and_layers(nuke: FakeNuke, a: Node, tmp_path: Path, compression: str) -> None:
    moved = nuke.plate(replace(nuke.plates["A"], box=(-1, 2, W, H), format=(20, 10)), "M")
    node = write(nuke, moved, f"{tmp_path}/a.%04d.exr", channels="all", compression=compression)
    nuke.execute(node, 5, 6)
    assert sorted(path.name for path in tmp_path.glob("*.exr")) == ["a.0005.exr", "a.0006.exr"]
    back = read(nuke, f"{tmp_path}/a.####.exr")
    picture = out(nuke, back, 6)
    assert (picture.box, picture.format) == ((-1, 2, W, H), (20, 10))
    assert {name: plane.tobytes() for name, plane in picture.planes.items()} == {
        name: plane.tobytes() for name, plane in nuke.plates["A"].planes.items()
    }
    assert back.metadata("input/filename", 6) == f"{tmp_path}/a.0006.exr"
    assert (back.metadata("input/width", 6), back.metadata("input/height", 6)) == (20, 10)


@pytest.mark.parametrize(
    ("mode", "kept"),
    [
        ("no metadata", set()), ("default metadata", set()), ("default metadata and exr/*", {"a"}),
        ("all metadata except input/*", {"a", "nuke/x"}), ("all metadata", {"a", "nuke/x", "input/filename"}),
    ],
)  # fmt: skip
def test_metadata_modes(nuke: FakeNuke, tmp_path: Path, mode: str, kept: set[str]) -> None:
    metadata = {"exr/a": "1", "nuke/x": 2, "input/filename": "b"}
    node = write(nuke, nuke.plate(pixels.from_array(rgba(), metadata)), f"{tmp_path}/a.exr", metadata=mode)
    nuke.execute(node, 1, 1)
    with OpenEXR.File(str(tmp_path / "a.exr")) as file:
        assert {"a", "nuke/x", "input/filename"} & set(file.header()) == kept


def test_half_floats_overflow_as_in_nuke(nuke: FakeNuke, tmp_path: Path) -> None:
    hwc = np.array([[[0.1, 70000.0, -1.0, 1.0]]], np.float32)
    nuke.execute(write(nuke, nuke.plate(hwc), f"{tmp_path}/a.exr", datatype="16 bit half"), 1, 1)
    back = out(nuke, read(nuke, f"{tmp_path}/a.exr")).rgba()[0, 0]
    assert back.tolist() == [np.float32(np.float16(0.1)), np.inf, -1, 1]


def test_proxy_mode_halves_what_is_written(nuke: FakeNuke, a: Node, tmp_path: Path) -> None:
    nuke.root()["proxy"].setValue(True)
    nuke.execute(write(nuke, a, f"{tmp_path}/a.exr"), 1, 1)
    assert out(nuke, read(nuke, f"{tmp_path}/a.exr")).rgba().shape == (2, 2, 4)


def test_missing_broken_and_empty_files(nuke: FakeNuke, tmp_path: Path) -> None:
    node = read(nuke, f"{tmp_path}/a.exr")
    with pytest.raises(RuntimeError, match=r"Read1: .*a\.exr: No such file"):
        out(nuke, node)
    (tmp_path / "a.exr").touch()
    with pytest.raises(RuntimeError, match="No such file"):
        out(nuke, node)
    node["reload"].execute()
    with pytest.raises(RuntimeError, match="empty file"):
        out(nuke, node)
    (tmp_path / "a.exr").write_bytes(b"no exr at all")
    node["reload"].execute()
    with pytest.raises(RuntimeError):
        out(nuke, node)
    node["on_error"].setValue("black")
    assert out(nuke, node).planes == {}
    node["on_error"].setValue("checkerboard")
    with pytest.raises(NukeError, match="checkerboard"):
        out(nuke, node)


def test_a_missing_file_stays_missing_for_that_read_until_it_reloads(nuke: FakeNuke, a: Node, tmp_path: Path) -> None:
    node, other = read(nuke, f"{tmp_path}/a.%04d.exr"), read(nuke, f"{tmp_path}/a.%04d.exr")
    with pytest.raises(RuntimeError):
        out(nuke, node, 1)
    nuke.execute(write(nuke, a, f"{tmp_path}/a.%04d.exr"), 1, 2)
    assert out(nuke, other, 1).rgba().any()
    assert out(nuke, node, 2).rgba().any()
    with pytest.raises(RuntimeError, match="No such file"):
        out(nuke, node, 1)
    node["reload"].execute()
    np.testing.assert_array_equal(out(nuke, node, 1).rgba(), rgba(1))


def test_frames_outside_a_reads_range(nuke: FakeNuke, tmp_path: Path) -> None:
    plate = nuke.plate(lambda frame: np.full((H, W, 4), frame, np.float32))
    nuke.execute(write(nuke, plate, f"{tmp_path}/a.%04d.exr"), 5, 7)
    node = read(nuke, f"{tmp_path}/a.%04d.exr", first=5, last=7)

    def shown(frame: int) -> float:
        return out(nuke, node, frame).rgba()[0, 0, 0]

    assert [shown(frame) for frame in (1, 5, 6, 7, 9)] == [5, 5, 6, 7, 7]
    node["before"].setValue("black")
    node["after"].setValue("loop")
    assert [shown(frame) for frame in (1, 8, 9)] == [0, 5, 6]
    node["after"].setValue("bounce")
    with pytest.raises(NukeError, match="bounce"):
        shown(8)
    node["frame"].setValue("6")
    assert shown(8) == 6


def test_auto_alpha(nuke: FakeNuke, tmp_path: Path) -> None:
    nuke.execute(write(nuke, nuke.plate(rgba()), f"{tmp_path}/a.exr", channels="rgb"), 1, 1)
    node = read(nuke, f"{tmp_path}/a.exr")
    assert "rgba.alpha" not in out(nuke, node).planes
    node["auto_alpha"].setValue(True)
    assert (out(nuke, node).rgba()[..., 3] == 1).all()


def test_colourspaces_are_refused(nuke: FakeNuke, a: Node, tmp_path: Path) -> None:
    node = write(nuke, a, f"{tmp_path}/a.exr", raw=False)
    node["colorspace"].setValue("sRGB")
    with pytest.raises(NukeError, match="colourspace"):
        nuke.execute(node, 1, 1)
    other = read(nuke, f"{tmp_path}/a.exr", raw=False, colorspace="sRGB")
    with pytest.raises(NukeError, match="colourspace"):
        out(nuke, other)


def test_parts_of_a_file_become_layers(nuke: FakeNuke, tmp_path: Path) -> None:
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage, "hdrgen/key": "abc"}
    plane = np.ones((H, W), np.float16)
    parts = [
        OpenEXR.Part(dict(header), {"R": plane, "A": plane}, "rgba"),
        OpenEXR.Part(dict(header), {"hdrgen.clipped": plane * 2, "odd": plane}, "hdrgen"),
    ]
    OpenEXR.File(parts).write(str(tmp_path / "a.exr"))
    node = read(nuke, f"{tmp_path}/a.exr")
    picture = out(nuke, node)
    assert set(picture.planes) == {"rgba.red", "rgba.alpha", "hdrgen.clipped", "other.odd"}
    assert (picture.plane("hdrgen.clipped") == 2).all()
    assert node.metadata("exr/hdrgen/key") == "abc"
    shuffled = made(nuke, "Copy", {"from0": "hdrgen.clipped", "to0": "rgba.alpha"}, node, node)
    assert (out(nuke, shuffled).rgba()[..., 3] == 2).all()


@pytest.mark.parametrize(
    ("knobs", "why"),
    [
        ({"autocrop": True}, "autocrop"), ({"compression": "DWAB"}, "compression"), ({"proxy": "/b.exr"}, "proxy"),
        ({"transformType": "display"}, "displays"), ({"channels": "gone"}, "no channel"),
    ],
)  # fmt: skip
def test_writes_that_are_not_built_are_refused(
    nuke: FakeNuke, a: Node, tmp_path: Path, knobs: dict[str, Any], why: str
) -> None:
    with pytest.raises(NukeError, match=why):
        nuke.execute(write(nuke, a, f"{tmp_path}/a.exr", **knobs), 1, 1)


def test_a_write_says_what_stops_it(nuke: FakeNuke, a: Node, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    node = write(nuke, a, f"{tmp_path}/file/a.exr", create_directories=True)
    with pytest.raises(RuntimeError, match="can't create"):
        nuke.execute(node, 1, 1)
    node["file"].setValue(f"{tmp_path}/a.exr")
    node["channels"].setValue("none")
    with pytest.raises(RuntimeError, match="nothing to write"):
        nuke.execute(node, 1, 1)
    node["file"].setValue(f"{tmp_path}/a.png")
    with pytest.raises(NukeError, match="writes EXRs"):
        nuke.execute(node, 1, 1)
    (tmp_path / "dir.exr").mkdir()
    node["file"].setValue(f"{tmp_path}/dir.exr")
    node["channels"].setValue("rgba")
    with pytest.raises(RuntimeError):
        nuke.execute(node, 1, 1)


def test_a_flat_plate_passes_what_changes_nothing(nuke: FakeNuke) -> None:
    flat = FlatPlate(7, 5, metadata={"exr/a": "b"})
    plate = nuke.plate(flat)
    dot = made(nuke, "Dot", {}, plate)
    switch = made(nuke, "Switch", {"which": 1}, nuke.plate(rgba()), dot)
    multiply = made(nuke, "Multiply", {"value": 3}, switch)
    assert [(node.width(), node.metadata("exr/a")) for node in (plate, dot, switch)] == [(7, "b")] * 3
    assert out(nuke, multiply).rgba()[4, 6].tolist() == [np.float32(0.18) * 3] * 3 + [3]
    multiply["disable"].setValue(True)
    assert multiply.height() == 5
