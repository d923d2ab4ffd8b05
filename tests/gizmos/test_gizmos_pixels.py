"""The graphs inside the shipped gizmos, run in the small Nuke on real EXR files, with no Python of ours at hand."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import OpenEXR
import pytest

from hdrgen_server.image.finish import preserve_plate, result_weight, roll_off
from tests.fakes.nuke.api import FakeNuke
from tests.fakes.nuke.nodes import Node
from tests.fakes.nuke.pixels import Picture, from_array
from tests.gizmos.gizmo_contract import FOLDER, LAYER, NAMES

Array = npt.NDArray[np.float32]
Start = Callable[..., FakeNuke]
HEIGHT, WIDTH = 12, 16
KEY = "hdrgen/key"
PLATED = ("HDRFuse", "SDR2HDR")


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Start:
    """Starts a Nuke that finds the gizmos and cannot import nuke_hdrgen."""
    monkeypatch.setitem(sys.modules, "nuke_hdrgen", None)

    def started(*, gui: bool = True) -> FakeNuke:
        nuke = FakeNuke(gui=gui)
        monkeypatch.setitem(sys.modules, "nuke", nuke)
        nuke.start([FOLDER])
        return nuke

    return started


def _noise(seed: int, channels: int = 3, top: float = 4.0) -> Array:
    values = np.random.default_rng(seed).uniform(-0.05, top, (HEIGHT, WIDTH, channels))
    return values.astype(np.float32)


def _plate_picture(seed: int = 1) -> Picture:
    """A plate with alpha, depth, metadata and a data window inside its format."""
    picture = from_array(_noise(seed, 4, 1.0), {"exr/owner": "plate", f"exr/{KEY}": "of an earlier gizmo"})
    depth = _noise(seed + 50, 1)[..., 0]
    return replace(picture.with_planes({"depth.Z": depth}), box=(0, 0, WIDTH, HEIGHT), format=(WIDTH + 8, HEIGHT + 4))


def _bake(path: Path, rgb: Array, clipped: Array | float = 1.0, alpha: Array | float | None = 1.0) -> str:
    """Write a result as the sidecar does; returns the pattern for `result_path`."""
    layer = {f"hdrgen.{part}": np.full((HEIGHT, WIDTH), at / 10, np.float32) for at, part in enumerate(LAYER)}
    layer["hdrgen.clipped"] = np.broadcast_to(np.float32(clipped), (HEIGHT, WIDTH))
    planes: dict[str, Array] = {name: rgb[..., at] for at, name in enumerate("RGB")}
    if alpha is not None:
        planes["A"] = np.broadcast_to(np.float32(alpha), (HEIGHT, WIDTH))
    corner = np.array([WIDTH + 7, HEIGHT + 3], np.int32)
    header = {
        "type": OpenEXR.scanlineimage,
        "compression": OpenEXR.ZIP_COMPRESSION,
        "dataWindow": (np.zeros(2, np.int32), np.array([WIDTH - 1, HEIGHT - 1], np.int32)),
        "displayWindow": (np.zeros(2, np.int32), corner),
        KEY: f"key of {path.stem}",
        "owner": "result",
        "comments": "its record is in exr/hdrgen/key",
    }
    channels = {name: np.ascontiguousarray(plane) for name, plane in {**planes, **layer}.items()}
    OpenEXR.File(header, channels).write(str(path))
    return str(path.with_name("out.####.exr"))


def _gizmo(nuke: FakeNuke, name: str, plate: Any, result_path: str, **knobs: Any) -> Node:
    """A gizmo with one input connected, whose still is off and whose frames count as baked unless knobs say else."""
    node = nuke.createNode(name, inpanel=False)
    if plate is not None:
        node.setInput(0, nuke.plate(plate))
    _set(node, result_path=result_path, **{"baked": 1, "still": False, **knobs})
    return node


def _set(node: Node, **knobs: Any) -> None:
    for name, value in knobs.items():
        node[name].setValue(value)


def _rgb(picture: Picture) -> Array:
    return picture.rgba()[..., :3]


def _same(found: Array, wanted: Array) -> None:
    """Bit for bit, NaN included."""
    assert found.dtype == wanted.dtype == np.float32
    np.testing.assert_array_equal(found.view(np.uint32), wanted.view(np.uint32))


def _gained(rgb: Array, gain: float) -> Array:
    peak = rgb.max(axis=2, keepdims=True).astype(np.float64)
    scale = np.where(peak > 1, (1 + (peak - 1) * gain) / np.maximum(peak, 1), 1)
    return (rgb * scale).astype(np.float32)


@pytest.mark.parametrize("name", PLATED)
def test_neutral_controls_give_the_result_bit_for_bit(name: str, start: Start, tmp_path: Path) -> None:
    result = _noise(2, top=50.0)
    result[0, 0] = (6e4, 1e-40, -3.0)
    result[0, 1] = (1e30, 0.0, 1.0)
    nuke = start()
    node = _gizmo(nuke, name, _plate_picture(), _bake(tmp_path / "out.0007.exr", result))
    _same(_rgb(nuke.pixels(node, 7)), result)
    off = {"HighlightGain", "Ceiling", "ClippedToAlpha", "PreservePlate", "MixPlate", "PlateTime"}
    assert {child.name() for child in node.nodes() if child.knob("disable") and child["disable"].value()} >= off


@pytest.mark.parametrize("name", PLATED)
def test_the_stream_of_the_plate_survives(name: str, start: Start, tmp_path: Path) -> None:
    plate, result = _plate_picture(), _noise(2)
    nuke = start()
    node = _gizmo(nuke, name, plate, _bake(tmp_path / "out.0001.exr", result, alpha=0.25))
    _set(node, gain=2, use_ceiling=True, ceiling=3, preserve_plate=True, mix=0.5)
    made = nuke.pixels(node, 1)
    _same(made.plane("rgba.alpha"), plate.plane("rgba.alpha"))
    _same(made.plane("depth.Z"), plate.plane("depth.Z"))
    assert (made.box, made.format) == (plate.box, plate.format)
    assert made.metadata == {**plate.metadata, f"exr/{KEY}": "key of out.0001"}
    for at, part in enumerate(LAYER):
        wanted = 1.0 if part == "clipped" else at / 10
        _same(made.plane(f"hdrgen.{part}"), np.full((HEIGHT, WIDTH), wanted, np.float32))


@pytest.mark.parametrize("name", PLATED)
@pytest.mark.parametrize("box", [(3, 2, 9, 7), (-4, -3, WIDTH + 9, HEIGHT + 6)])
def test_the_bounding_box_of_the_plate_survives(
    name: str, box: tuple[int, int, int, int], start: Start, tmp_path: Path
) -> None:
    plate, result = _plate_picture().within(box), _noise(2)
    nuke = start()
    node = _gizmo(nuke, name, plate, _bake(tmp_path / "out.0001.exr", result))
    for mix in (1, 0.5):
        _set(node, mix=mix, preserve_plate=mix < 1, gain=2)
        made = nuke.pixels(node, 1)
        assert made.box == box
        assert made.format == plate.format
        _same(made.plane("depth.Z"), plate.plane("depth.Z"))
    x, y, width, height = box
    if x > 0:
        inside = result[y : y + height, x : x + width]
        _set(node, mix=1, preserve_plate=False, gain=1)
        _same(_rgb(nuke.pixels(node, 1)), inside)


@pytest.mark.parametrize("name", PLATED)
def test_preserve_plate_keeps_unclipped_pixels_bit_for_bit(name: str, start: Start, tmp_path: Path) -> None:
    plate, result, weight = _plate_picture(), _noise(2, top=9.0), np.zeros((HEIGHT, WIDTH), np.float32)
    rgb = _rgb(plate)
    rgb[1, :4, 0] = (np.nan, np.inf, -np.inf, 1e38)
    result[2, 0] = 1e30
    result[2, 1] = np.nan
    weight[6:, :] = 1.0
    weight[6, :] = 0.5
    rgb[6, 3, 1] = np.nan
    rgb[6, 4, 2] = np.inf
    plate = plate.with_planes({f"rgba.{c}": rgb[..., at] for at, c in enumerate(("red", "green", "blue"))})
    nuke = start()
    node = _gizmo(nuke, name, plate, _bake(tmp_path / "out.0001.exr", result, weight), preserve_plate=True)
    made = _rgb(nuke.pixels(node, 1))
    _same(made[:6], rgb[:6])
    _same(made[7:], result[7:])
    _same(made[6, 3:5], result[6, 3:5])
    np.testing.assert_allclose(made[6, 5:], 0.5 * (rgb[6, 5:] + result[6, 5:]), rtol=3e-7)
    _set(node, gain=3, use_ceiling=True, ceiling=2)
    _same(_rgb(nuke.pixels(node, 1))[:6], rgb[:6])


def test_preserve_plate_is_the_operator_of_the_command_line(start: Start, tmp_path: Path) -> None:
    plate, result = _plate_picture(), _noise(3, top=9.0)
    clipped = _noise(4, 1)[..., 0] > 2.5
    clipped[2:9, 3:12] = True
    nuke = start()
    pattern = _bake(tmp_path / "out.0001.exr", result, result_weight(clipped))
    node = _gizmo(nuke, "SDR2HDR", plate, pattern, preserve_plate=True)
    wanted = preserve_plate(result, _rgb(plate), clipped)
    np.testing.assert_allclose(_rgb(nuke.pixels(node, 1)), wanted, rtol=5e-7, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ceiling", [0.5, 3.0, 100.0])
def test_the_ceiling_is_the_roll_off_of_the_command_line(
    name: str, ceiling: float, start: Start, tmp_path: Path
) -> None:
    result = _noise(2, top=2 * ceiling)
    result[0, 0] = (1e4 * ceiling, 1.0, -2.0)
    nuke = start()
    pattern = _bake(tmp_path / "out.0001.exr", result)
    node = _gizmo(nuke, name, _plate_picture(), pattern, use_ceiling=True, ceiling=ceiling)
    made, wanted = _rgb(nuke.pixels(node, 1)), roll_off(result, ceiling)
    np.testing.assert_allclose(made, wanted, rtol=6e-7)
    kept = result.max(axis=2) <= ceiling / 2
    assert 0 < np.count_nonzero(kept) < kept.size
    _same(made[kept], result[kept])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("gain", [0.0, 0.5, 3.0])
def test_gain_scales_what_is_above_one(name: str, gain: float, start: Start, tmp_path: Path) -> None:
    result = _noise(2, top=12.0)
    result[:3] *= 0.05
    nuke = start()
    node = _gizmo(nuke, name, _plate_picture(), _bake(tmp_path / "out.0001.exr", result), gain=gain)
    made = _rgb(nuke.pixels(node, 1))
    np.testing.assert_allclose(made, _gained(result, gain), rtol=1e-6, atol=1e-7)
    kept = result.max(axis=2) <= 1
    assert 0 < np.count_nonzero(kept) < kept.size
    _same(made[kept], result[kept])
    _set(node, use_ceiling=True, ceiling=4)
    np.testing.assert_allclose(_rgb(nuke.pixels(node, 1)), roll_off(_gained(result, gain), 4), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_gain_and_ceiling_work_on_unpremultiplied_colour(name: str, start: Start, tmp_path: Path) -> None:
    straight, alpha = _noise(2, top=12.0), np.full((HEIGHT, WIDTH), 0.25, np.float32)
    alpha[:4] = 1.0
    result = straight * alpha[..., None]
    result[4] = straight[4]
    alpha[4] = 0.0
    nuke = start()
    pattern = _bake(tmp_path / "out.0001.exr", result, alpha=alpha)
    node = _gizmo(nuke, name, _plate_picture(), pattern, gain=2, use_ceiling=True, ceiling=6)
    wanted = roll_off(_gained(straight, 2), 6) * alpha[..., None]
    wanted[4] = roll_off(_gained(straight, 2), 6)[4]  # light without cover stays
    np.testing.assert_allclose(_rgb(nuke.pixels(node, 1)), wanted, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_result_without_alpha_counts_as_opaque(name: str, start: Start, tmp_path: Path) -> None:
    result = _noise(2, top=12.0)
    nuke = start()
    pattern = _bake(tmp_path / "out.0001.exr", result, alpha=None)
    node = _gizmo(nuke, name, _plate_picture(), pattern, gain=2)
    np.testing.assert_allclose(_rgb(nuke.pixels(node, 1)), _gained(result, 2), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", PLATED)
def test_mix_goes_from_plate_to_result(name: str, start: Start, tmp_path: Path) -> None:
    plate, result = _plate_picture(), _noise(2, top=9.0)
    plate.planes["rgba.red"][0, 0] = np.nan
    result[0, 1] = np.inf
    nuke = start()
    node = _gizmo(nuke, name, plate, _bake(tmp_path / "out.0001.exr", result), mix=0)
    _same(_rgb(nuke.pixels(node, 1)), _rgb(plate))
    _set(node, mix=1)
    _same(_rgb(nuke.pixels(node, 1)), result)
    _set(node, mix=0.5)
    np.testing.assert_allclose(_rgb(nuke.pixels(node, 1))[1:], (0.5 * (_rgb(plate) + result))[1:], rtol=3e-7)


def test_live_controls_can_be_animated(start: Start, tmp_path: Path) -> None:
    result = _noise(2)
    for frame in (1, 2):
        pattern = _bake(tmp_path / f"out.{frame:04d}.exr", result)
    plate = _plate_picture()
    nuke = start()
    node = _gizmo(nuke, "SDR2HDR", plate, pattern)
    node["mix"].fromScript("{curve K x1 0 x2 1}")
    _same(_rgb(nuke.pixels(node, 1)), _rgb(plate))
    _same(_rgb(nuke.pixels(node, 2)), result)


@pytest.mark.parametrize("name", PLATED)
def test_an_unbaked_frame_is_the_plate_in_the_gui_and_an_error_elsewhere(
    name: str, start: Start, tmp_path: Path
) -> None:
    plate, result = _plate_picture(), _noise(2)
    pattern = _bake(tmp_path / "out.0005.exr", result)
    for gui in (True, False):
        nuke = start(gui=gui)
        node = _gizmo(nuke, name, plate, pattern)
        node["baked"].fromScript("{curve K x5 1 x6 0}")
        _same(_rgb(nuke.pixels(node, 5)), result)
        if gui:
            missing = nuke.pixels(node, 6)
            assert missing.planes.keys() == plate.planes.keys()
            _same(missing.rgba(), plate.rgba())
            _set(node, unbaked="error")
        with pytest.raises(RuntimeError, match=r"out\.0006\.exr"):
            nuke.pixels(node, 6)
        _set(node, show_result=False)
        _same(nuke.pixels(node, 6).rgba(), plate.rgba())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("gui", [True, False])
def test_a_file_that_vanished_is_an_error_never_black(name: str, gui: bool, start: Start, tmp_path: Path) -> None:
    pattern = _bake(tmp_path / "out.0005.exr", _noise(2))
    nuke = start(gui=gui)
    node = _gizmo(nuke, name, _plate_picture(), pattern)
    for frame in (4, 6, 100000):
        with pytest.raises(RuntimeError, match="No such file"):
            nuke.pixels(node, frame)


@pytest.mark.parametrize("name", NAMES)
def test_a_still_holds_result_and_plate_for_all_frames(name: str, start: Start, tmp_path: Path) -> None:
    result = _noise(2)
    pattern = _bake(tmp_path / "out.0007.exr", result)
    nuke = start(gui=False)
    node = _gizmo(nuke, name, lambda frame: _plate_picture(int(frame)), pattern, still=True, still_frame=7)
    for frame in (-50, 7, 2000):
        made = nuke.pixels(node, frame)
        _same(_rgb(made), result)
        if name != "Txt2HDR":
            _same(made.plane("depth.Z"), _plate_picture(7).plane("depth.Z"))
    if name != "Txt2HDR":
        _set(node, mix=0)
        _same(_rgb(nuke.pixels(node, 2000)), _rgb(_plate_picture(7)))
        _set(node, mix=1, still=False)
        _same(nuke.pixels(node, 7).plane("depth.Z"), _plate_picture(7).plane("depth.Z"))


def test_the_plate_of_hdrfuse_follows_its_reference(start: Start, tmp_path: Path) -> None:
    pattern = _bake(tmp_path / "out.0005.exr", _noise(2))
    nuke = start()
    node = nuke.createNode("HDRFuse", inpanel=False)
    assert node.maxInputs() == 7
    for index in range(7):
        node.setInput(
            index, nuke.plate(lambda frame, index=index: _plate_picture(100 * index + int(frame)), f"P{index}")
        )
    _set(node, result_path=pattern, baked=1, still=False, mix=0)
    for index in range(7):
        _set(node, plate_input=index)
        _same(nuke.pixels(node, 5).rgba(), _plate_picture(100 * index + 5).rgba())
    _set(node, source="frames", plate_input=0, plate_offset=2)
    _same(nuke.pixels(node, 5).rgba(), _plate_picture(7).rgba())
    _set(node, still=True, still_frame=5)
    _same(nuke.pixels(node, 40).rgba(), _plate_picture(7).rgba())


def test_txt2hdr_shows_its_result_without_a_plate(start: Start, tmp_path: Path) -> None:
    result = _noise(2)
    pattern = _bake(tmp_path / "out.0001.exr", result)
    nuke = start()
    node = _gizmo(nuke, "Txt2HDR", None, pattern, baked=0)
    unbaked = nuke.pixels(node, 1)
    assert unbaked.format == (2048, 1556)
    assert not unbaked.rgba().any()
    _set(node, baked=1)
    made = nuke.pixels(node, 1)
    _same(_rgb(made), result)
    assert made.format == (WIDTH + 8, HEIGHT + 4)
    assert made.metadata[f"exr/{KEY}"] == "key of out.0001"
    assert made.plane("hdrgen.generated").shape == (HEIGHT, WIDTH)


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_script_and_a_group_give_the_same_picture(name: str, start: Start, tmp_path: Path) -> None:
    result = _noise(2, top=9.0)
    pattern = _bake(tmp_path / "out.0007.exr", result, 0.5)
    look = {"gain": 2, "use_ceiling": True, "ceiling": 5}
    if name != "Txt2HDR":
        look |= {"preserve_plate": True, "mix": 0.75}
    nuke = start()
    node = _gizmo(nuke, name, _plate_picture(), pattern, still=True, still_frame=7, **look)
    node.setName("Made")
    wanted = nuke.pixels(node, 3).rgba()
    group = node.makeGroup()
    group.setInput(0, node.input(0))
    _same(nuke.pixels(group, 3).rgba(), wanted)
    nuke.delete(group)
    text = nuke.script_text()
    assert "HDRGenOut" not in text
    opened = start(gui=False)
    opened.plates["Plate1"] = _plate_picture()
    opened.load_text(text)
    again = opened.toNode("Made")
    assert again is not None
    _same(opened.pixels(again, 3).rgba(), wanted)


@pytest.mark.parametrize("name", NAMES)
def test_a_write_below_renders_the_result_without_our_python(name: str, start: Start, tmp_path: Path) -> None:
    result = _noise(2)
    pattern = _bake(tmp_path / "out.0001.exr", result)
    nuke = start(gui=False)
    node = _gizmo(nuke, name, _plate_picture(), pattern)
    write = nuke.createNode(
        "Write", f"file {tmp_path}/comp.####.exr file_type exr raw true channels rgb", inpanel=False
    )
    write.setInput(0, node)
    write["datatype"].setValue("32 bit float")
    nuke.execute(write, 1, 1)
    with OpenEXR.File(str(tmp_path / "comp.0001.exr"), separate_channels=True) as file:
        for at, channel in enumerate("RGB"):
            _same(np.asarray(file.channels()[channel].pixels), result[..., at])
    assert nuke.executed == [("Write1", 1, "main")]
