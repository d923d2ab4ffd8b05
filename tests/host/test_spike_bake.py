"""The shipped gizmo in the fake Nuke, a real sidecar, and back to the gizmo's Read."""

from __future__ import annotations

import logging
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nuke_hdrgen.client.launch import PrivateSidecar, Start
from nuke_hdrgen.wire.errors import BadInput, BadParameter, NoServer
from tests.fakes.fake_nuke import FakeNuke, Node, NukeError, load_script, pixels, plate, press, save_gizmo

ROOT = Path(__file__).parents[2]
FRAME = 1001
EVS = (-2.0, 0.0, 2.0)


@pytest.fixture
def nuke(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNuke]:
    """A Nuke that has run our init.py, in which nothing of ours is imported yet."""
    fake = FakeNuke()
    monkeypatch.setitem(sys.modules, "nuke", fake)
    monkeypatch.chdir(ROOT)
    runpy.run_path(str(ROOT / "init.py"))
    fake._frame = FRAME
    yield fake
    for name in [name for name in sys.modules if name.startswith("nuke_hdrgen.host.")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real sidecar."""
    folder = str(tmp_path_factory.mktemp("data"))
    command = [sys.executable, "-m", "hdrgen_server.gateway", "--device", "cpu"]
    environment = {"PATH": "/usr/bin:/bin", "HDRGEN_DATA_FOLDER": folder, "XDG_CONFIG_HOME": folder, "HOME": folder}
    with PrivateSidecar(Start(command, environment=environment), "test") as running:
        yield str(running.connection.peer.endpoint.address)


def scene() -> np.ndarray:
    """scene_linear_hwc, 48 x 64 RGBA: a smooth light from 0.02 to 8 over the reference's exposure."""
    ramp = np.geomspace(0.02, 8.0, 64, dtype=np.float32)[None, :, None]
    tint = np.array([1.0, 0.8, 0.6], np.float32)[None, None, :]
    rows = np.linspace(0.7, 1.0, 48, dtype=np.float32)[:, None, None]
    return np.concatenate([ramp * tint * rows, np.ones((48, 64, 1), np.float32)], axis=2)


def exposed(stops: float) -> np.ndarray:
    """What a camera that clips at 1.0 makes of the scene, linear."""
    rgba = scene()
    rgba[..., :3] = np.minimum(rgba[..., :3] * 2.0**stops, 1.0)
    return rgba


def fuse(nuke: FakeNuke, cache: Path) -> Node:
    node = nuke.createNode("HDRFuse")
    for index, stops in enumerate(EVS):
        node.setInput(index, plate(exposed(stops)))
    node["pack"].setValue("merge")
    node["cache_root"].setValue(str(cache))
    return node


def untouched(node: Node) -> bool:
    writes = [node.node(f"HDRGenIn{number}") for number in (1, 2, 3)]
    return all(write["disable"].value() and write["file"].value() == "" for write in writes)


def test_bytes_to_the_sidecar_and_back_to_the_read(
    nuke: FakeNuke, sidecar: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HDRGEN_SERVER", sidecar)
    node = fuse(nuke, tmp_path)
    np.testing.assert_array_equal(pixels(node, FRAME), exposed(EVS[0]))

    press(nuke, node, "bake")
    assert nuke._executed == [f"HDRFuse1.HDRGenIn{number}" for number in (1, 2, 3)]
    assert untouched(node)
    (result,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert result.name == "out.1001.exr"
    assert result.parent.parent.name == node["bake_id"].value()
    assert node["result_path"].value() == str(result).replace("1001", "####")

    fused, reference = pixels(node, FRAME), exposed(0.0)
    well = ((reference[..., :3] > 0.05) & (reference[..., :3] < 0.9)).all(axis=2)
    assert well.mean() > 0.2
    np.testing.assert_allclose(fused[well], reference[well], rtol=0.02)
    assert fused[..., :3].max() > 3.5
    np.testing.assert_array_equal(fused[..., 3], 1.0)

    first = result.read_bytes()
    node["reference"].setValue("1")
    nuke._frame = FRAME + 1
    press(nuke, node, "bake")
    assert result.read_bytes() == first
    assert node["result_path"].value() != str(result).replace("1001", "####")
    assert (node["result_first"].value(), node["result_last"].value()) == (FRAME + 1, FRAME + 1)
    np.testing.assert_allclose(pixels(node, FRAME + 1)[well][:, :3], reference[well][:, :3] / 4, rtol=0.02)

    node["reference"].setValue("middle")
    nuke._frame = FRAME
    press(nuke, node, "bake")
    nuke._frame = FRAME + 1
    press(nuke, node, "bake")
    assert (node["result_first"].value(), node["result_last"].value()) == (FRAME, FRAME + 1)

    fused_of_three = node["result_path"].value()
    node.setInput(2, None)
    press(nuke, node, "bake")
    assert node["result_path"].value() != fused_of_three


def test_a_saved_script_reads_the_bake_without_python_and_server(
    nuke: FakeNuke, sidecar: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HDRGEN_SERVER", sidecar)
    node = fuse(nuke, tmp_path)
    press(nuke, node, "bake")
    saved, fused = save_gizmo(node), pixels(node, FRAME)
    for name in [name for name in sys.modules if name.startswith("nuke_hdrgen.")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setenv("HDRGEN_SERVER", "unix:/nowhere")
    farm = FakeNuke()
    farm.pluginAddPath("./gizmos")
    load_script(farm, saved)
    np.testing.assert_array_equal(pixels(farm.toNode("HDRFuse1"), FRAME), fused)
    with pytest.raises(NukeError, match="outside the Read's range"):
        pixels(farm.toNode("HDRFuse1"), FRAME + 1)


def test_a_missing_sidecar_is_one_error_and_no_file(
    nuke: FakeNuke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HDRGEN_SERVER", f"unix:{tmp_path}/gone.sock")
    node = fuse(nuke, tmp_path / "cache")
    before = save_gizmo(node)
    with pytest.raises(NoServer, match=r"^no sidecar answers at unix:.*hdrgen serve`$"):
        press(nuke, node, "bake")
    assert untouched(node)
    assert nuke._executed == []
    assert list(tmp_path.iterdir()) == []
    assert save_gizmo(node) == before


def test_an_export_that_fails_in_the_middle_leaves_nothing(
    nuke: FakeNuke, sidecar: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HDRGEN_SERVER", sidecar)
    node = fuse(nuke, tmp_path)
    broken = nuke.createNode("Read")
    broken["last"].setValue(FRAME)
    broken["file"].setValue(f"{tmp_path}/gone.####.exr")
    node.setInput(1, broken)
    before = save_gizmo(node)
    with pytest.raises(BadInput, match=r"^HDRFuse1\.HDRGenIn2 cannot export frame 1001: Read2: .*No such file"):
        press(nuke, node, "bake")
    assert untouched(node)
    assert list(tmp_path.iterdir()) == []
    assert save_gizmo(node) == before


@pytest.mark.parametrize(
    ("change", "error", "line"),
    [
        (lambda node: node["cache_root"].setValue(""), BadParameter, "cache_root is empty"),
        (lambda node: node["bake_id"].setValue("../up"), BadParameter, "bake_id"),
        (lambda node: node["reference"].setValue("3"), BadParameter, "input 3, which is not connected"),
        (lambda node: node.setInput(1, None), BadInput, "1 connected inputs"),
    ],
)
def test_what_is_refused_before_anything_is_rendered(nuke: FakeNuke, tmp_path: Path, change, error, line) -> None:
    node = fuse(nuke, tmp_path)
    node.setInput(2, None)
    change(node)
    with pytest.raises(error, match=line):
        press(nuke, node, "bake")
    assert nuke._executed == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["init.py", "menu.py"])
def test_starting_goes_on_where_nuke_does_not_know_us(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "nuke", None)
    with caplog.at_level(logging.WARNING):
        runpy.run_path(str(ROOT / name))
    (record,) = caplog.records
    assert "not available" in record.getMessage()


def test_the_fake_knows_only_what_it_knows(nuke: FakeNuke) -> None:
    for text in ("Blur {\n}", "Write {\n fil x\n}", 'Read {\n file "[value x]"\n}', "Write {\n datatype half\n}"):
        with pytest.raises((NukeError, NameError)):
            load_script(FakeNuke(), f"push 0\n{text}")
    with pytest.raises(AttributeError):
        nuke.render(None)
