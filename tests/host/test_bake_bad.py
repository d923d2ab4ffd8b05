"""Bad input: the artist reads one sentence that says what to do, Nuke goes on, and nothing half-written stays."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nuke_hdrgen.client.launch import PrivateSidecar, Start
from nuke_hdrgen.wire import messages as m
from tests.fakes.fake_gateway import FakeGateway, Side
from tests.fakes.nuke.api import FakeNuke
from tests.fakes.nuke.nodes import Node
from tests.host.conftest import FIRST, exposed, files, hdrfuse, press, results, save, sdr2hdr, settle, txt2hdr

DIGEST = "d" * 64


def pack(name: str = "bt2446", operation: str = "sdr2hdr", *, licence_ok: bool = True) -> m.PackInfo:
    return m.PackInfo(name, name, DIGEST, 1, (operation,), False, "CC-BY-NC-4.0", licence_ok)


def only_message(nuke: FakeNuke, node: Node) -> str:
    """The one sentence that the artist has read, in a window and in the node's status."""
    settle(nuke)
    (line,) = nuke.messages
    assert "\n" not in line
    assert node["status"].value() == line
    return line


def nothing_left(folder: Path) -> bool:
    return files(folder / "hdrgen_cache") == {}


def pressed(nuke: FakeNuke, node: Node, folder: Path, button: str = "bake") -> str:
    """Save, press, and read the one sentence; Nuke's own nodes are as they were."""
    save(nuke, folder)
    press(nuke, node, button)
    line = only_message(nuke, node)
    assert nothing_left(folder)
    for number in range(1, 8):
        write = node.node(f"HDRGenIn{number}")
        assert write is None or (write["disable"].value() and not write["file"].value())
    return line


def test_no_sidecar(start_nuke: Callable[..., FakeNuke], tmp_path: Path) -> None:
    nuke = start_nuke(gui=True)
    assert "hdrgen doctor --install" in pressed(nuke, sdr2hdr(nuke), tmp_path)
    assert nuke.executed == []


def test_a_named_sidecar_that_is_not_there(
    start_nuke: Callable[..., FakeNuke], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HDRGEN_SERVER", f"unix:{tmp_path}/gone.sock")
    nuke = start_nuke(gui=True)
    assert "no sidecar answers at unix:" in pressed(nuke, sdr2hdr(nuke), tmp_path)


@pytest.mark.parametrize(
    ("script", "line"),
    [
        (lambda side: refuse(side, "permission", "the token is wrong; restart Nuke"), "the token is wrong"),
        (lambda side: refuse(side, "version_mismatch", "wire 2.0 here, 1.0 there; update"), "wire 2.0 here"),
        (lambda side: side.greet(packs=()), "no default pack for sdr2hdr"),
        (
            lambda side: side.greet(packs=(pack(licence_ok=False),), defaults={"sdr2hdr/draft": "bt2446"}),
            "hdrgen packs accept bt2446",
        ),
    ],
)
def test_a_sidecar_that_will_not(
    start_nuke: Callable[..., FakeNuke],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: Callable[[Side], object],
    line: str,
) -> None:
    with FakeGateway(tmp_path / "s", script) as gateway:  # type: ignore[arg-type]
        monkeypatch.setenv("HDRGEN_SERVER", gateway.address)
        nuke = start_nuke(gui=True)
        assert line in pressed(nuke, sdr2hdr(nuke), tmp_path)
        assert nuke.executed == []


def refuse(side: Side, code: str, line: str) -> None:
    side.take(m.Hello)
    side.send(m.Error(code, line))


@pytest.mark.parametrize(
    ("prepare", "line"),
    [
        (lambda node: node["pack"].setValue("flux"), "no pack 'flux'; for sdr2hdr it has: bt2446"),
        (lambda node: node["pack"].setValue("merge"), "pack merge does not do sdr2hdr"),
        (lambda node: node.setInput(0, None), "SDR2HDR1 has no input; connect the plate"),
        (lambda node: node["clip_threshold"].setValue(0), "clip_threshold must be between 1 and 255"),
        (lambda node: node["parameters"].setValue("peak_nits"), "is not NAME=VALUE"),
        (lambda node: node["parameters"].setValue("strength=2"), "has no parameter 'strength'"),
        (lambda node: node["range"].setValue("1010-1001"), "runs backwards"),
        (lambda node: node["bake_id"].setValue("../up"), "bake_id '../up' needs"),
        (lambda node: node["chromaticities"].setValue("1 2 3"), "eight numbers"),
        (lambda node: node["colourspace"].setValue("lin_nowhere"), "lin_nowhere"),
    ],
)
def test_settings_that_cannot_be(gui: FakeNuke, tmp_path: Path, prepare: Callable[[Node], object], line: str) -> None:
    node = sdr2hdr(gui)
    save(gui, tmp_path)
    prepare(node)
    settle(gui)
    assert line in pressed(gui, node, tmp_path, "bake_range")


def test_an_unsaved_script(gui: FakeNuke, tmp_path: Path) -> None:
    node = sdr2hdr(gui)
    press(gui, node, "bake")
    assert "save the script first, or name a folder in cache_root" in only_message(gui, node)
    node["cache_root"].setValue(f"{tmp_path}/elsewhere")
    gui.messages.clear()
    press(gui, node, "bake")
    assert gui.messages == []
    assert results(tmp_path / "elsewhere") == [f"out.{FIRST}.exr"]


def test_a_cache_that_cannot_be_written(gui: FakeNuke, tmp_path: Path) -> None:
    node = sdr2hdr(gui)
    (tmp_path / "hdrgen_cache").write_text("a file where the folder should be")
    save(gui, tmp_path)
    press(gui, node, "bake")
    assert "choose another cache_root" in only_message(gui, node)
    assert gui.executed == []


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="a file system that takes no file is needed")
def test_a_read_only_cache(gui: FakeNuke, tmp_path: Path) -> None:
    node = sdr2hdr(gui)
    node["cache_root"].setValue("/proc/self/cache")
    assert "/proc/self/cache/" in (line := pressed(gui, node, tmp_path))
    assert "cannot be written" in line


def test_too_few_exposures(gui: FakeNuke, tmp_path: Path) -> None:
    node = hdrfuse(gui)
    node.setInput(1, None)
    node.setInput(2, None)
    assert "1 of 3 exposures connected; connect at least two" in pressed(gui, node, tmp_path)


def test_a_reference_that_is_not_connected(gui: FakeNuke, tmp_path: Path) -> None:
    node = hdrfuse(gui)
    node["reference"].setValue("5")
    assert "reference is exposure 5, which is not connected; choose one of 1, 2, 3" in pressed(gui, node, tmp_path)


def test_equal_offsets_and_equal_exposures(gui: FakeNuke, tmp_path: Path) -> None:
    node = hdrfuse(gui)
    node["source"].setValue("frames")
    node["offset2"].setValue(0)
    assert "have the same frame offset" in pressed(gui, node, tmp_path)
    gui.messages.clear()
    node["source"].setValue("inputs")
    node["ev2"].setValue(-2.0)
    settle(gui)
    assert "EV" in pressed(gui, node, tmp_path)


def test_an_empty_prompt_and_an_absurd_size(gui: FakeNuke, tmp_path: Path) -> None:
    node = txt2hdr(gui)
    node["prompt"].setValue(" ")
    assert "empty prompt" in pressed(gui, node, tmp_path)
    gui.messages.clear()
    node["prompt"].setValue("night")
    node["size_width"].setValue(100_000)
    settle(gui)
    assert "width must be between 16 and 16384" in pressed(gui, node, tmp_path)


def test_a_plate_that_cannot_be_rendered(gui: FakeNuke, tmp_path: Path) -> None:
    node = sdr2hdr(gui)
    broken = gui.createNode("Read", inpanel=False)
    for name, value in (("file", f"{tmp_path}/gone.####.exr"), ("last", 2000)):
        broken[name].setValue(value)
    node.setInput(0, broken)
    line = pressed(gui, node, tmp_path)
    assert line.startswith("SDR2HDR1.HDRGenIn1 cannot export frame 1001: ")


def test_a_format_without_pixels(gui: FakeNuke, tmp_path: Path) -> None:
    node = sdr2hdr(gui)
    gui.plates["Plate1"] = np.zeros((0, 0, 4), np.float32)
    assert "input 1 of SDR2HDR1 is 0x0 pixels; give it a format" in pressed(gui, node, tmp_path)


def test_a_wrong_input_encoding_is_a_warning_that_is_read(gui: FakeNuke, tmp_path: Path) -> None:
    node = sdr2hdr(gui)
    footage = exposed(0.0)
    footage[..., :3] *= np.float32(0.9)
    footage[0, 0, :3] = 3.0
    gui.plates["Plate1"] = footage
    save(gui, tmp_path)
    press(gui, node, "bake")
    assert gui.messages == []
    assert "encoding" in node["status"].value()


def test_assist_and_non_commercial(
    start_nuke: Callable[..., FakeNuke], sidecar: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HDRGEN_SERVER", sidecar)
    nuke = start_nuke(gui=True, assist=True)
    assert "Nuke Assist cannot render" in pressed(nuke, sdr2hdr(nuke), tmp_path)


def test_nuke_that_is_rendering_is_waited_for(gui: FakeNuke, tmp_path: Path) -> None:
    node = sdr2hdr(gui)
    save(gui, tmp_path)
    refusals = iter([True, True, False])

    def busy(*_: object) -> None:
        if next(refusals, False):
            raise RuntimeError("I'm already executing something else")

    gui.before_frame = busy
    press(gui, node, "bake")
    assert gui.messages == []
    assert results(tmp_path / "hdrgen_cache") == [f"out.{FIRST}.exr"]


def test_a_second_bake_of_a_node_that_is_baked(gui: FakeNuke, tmp_path: Path) -> None:
    node = sdr2hdr(gui)
    node["range"].setValue("1001-1004")
    save(gui, tmp_path)
    node["bake_range"].execute()
    node["bake_range"].execute()
    assert "is being baked; wait, or press Cancel first" in gui.messages[0]
    settle(gui)
    assert len(results(tmp_path / "hdrgen_cache")) == 4
    gui.messages.clear()
    press(gui, node, "cancel")
    assert "is not being baked" in only_message(gui, node)


def test_cancel_in_nukes_own_render(gui: FakeNuke, tmp_path: Path) -> None:
    node = hdrfuse(gui)
    save(gui, tmp_path)
    gui.cancel_when = lambda write, frame: write.name() == "HDRGenIn2"
    press(gui, node, "bake")
    assert gui.messages == []
    assert "was cancelled" in node["status"].value()
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("how", ["window", "button"])
@pytest.mark.parametrize("phase", ["queued", "loading", "step", "encoding"])
def test_cancel_while_the_sidecar_works_frees_its_job(
    start_nuke: Callable[..., FakeNuke], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str, how: str
) -> None:
    cancelled = threading.Event()

    def works(side: Side) -> None:
        side.greet(packs=(pack(),), defaults={"sdr2hdr/draft": "bt2446"})
        while True:
            message = side.receive().message
            if isinstance(message, m.End):
                side.send(m.Progress(message.id, phase, 0, 3, 10, 1))
                assert cancelled.wait(20)
                side.send(m.Error("cancelled", "the job was cancelled", {}, message.id))
            elif isinstance(message, m.Cancel):
                cancelled.set()
            elif isinstance(message, m.Status):
                side.send(m.Health(True, True, {}, 1.0, m.QueueInfo(0, 1), 1))

    with FakeGateway(tmp_path / "s", works) as gateway:
        monkeypatch.setenv("HDRGEN_SERVER", gateway.address)
        nuke = start_nuke(gui=True)
        node = sdr2hdr(nuke)
        save(nuke, tmp_path)
        node["bake"].execute()
        nuke.run_events(lambda: nuke.progress and any("frame 1001" in line for line in nuke.progress[0].messages))
        if how == "window":
            nuke.progress[0].cancelled = True
        else:
            node["cancel"].execute()
        settle(nuke)
        assert cancelled.is_set()
        assert nuke.messages == []
        assert node["status"].value() == "the bake of SDR2HDR1 was cancelled; finished frames are kept"
        assert nothing_left(tmp_path)
        assert not nuke.progress[0].open


def test_a_site_that_keeps_no_provenance_is_told(
    start_nuke: Callable[..., FakeNuke], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-m", "hdrgen_server.gateway", "--device", "cpu"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HDRGEN_PROVENANCE": "none"}
    with PrivateSidecar(Start(command, environment=environment), "test") as running:
        monkeypatch.setenv("HDRGEN_SERVER", str(running.connection.peer.endpoint.address))
        nuke = start_nuke(gui=True)
        assert "provenance=none leaves a bake without the key" in pressed(nuke, sdr2hdr(nuke), tmp_path)


@pytest.mark.parametrize("name", ["ACEScg", "lin_rec709"])
def test_a_colourspace_that_is_no_interop_id(gui: FakeNuke, tmp_path: Path, name: str) -> None:
    node = sdr2hdr(gui)
    node["colourspace"].setValue(name)
    settle(gui)
    assert f"'{name}' is no interop id; the nearest are " in pressed(gui, node, tmp_path)
