"""Rendering, callbacks, threads, windows: what runs when, where, and what is refused."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.nuke.api import FakeNuke
from tests.fakes.nuke.errors import REFUSED, NukeError
from tests.fakes.nuke.nodes import Node
from tests.fakes.nuke.plain_plates import FlatPlate
from tests.fakes_tests.conftest import started


def ready(nuke: FakeNuke, file: str, plate: Any = None) -> Node:
    """The enabled Write of a Small that has a plate."""
    node = nuke.createNode("Small")
    node.setInput(0, nuke.plate(plate or FlatPlate(4, 3)))
    write = node.node("Out")
    write["file"].setValue(file)
    write["disable"].setValue(False)
    return write


def test_a_write_inside_a_gizmo_executes(nuke: FakeNuke, tmp_path: Path) -> None:
    write = ready(nuke, f"{tmp_path}/deep/a.####.exr")
    nuke.execute(write, 1, 5, 2)
    nuke.execute("Small1.Out", 8, 8)
    assert nuke.executed == [("Small1.Out", frame, "main") for frame in (1, 3, 5, 8)]
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == [f"a.000{n}.exr" for n in (1, 3, 5, 8)]
    assert nuke.said[0].startswith(f"Writing {tmp_path}/deep/a.0001.exr took ")


def test_the_plain_writer_writes_what_openexr_reads(nuke: FakeNuke, tmp_path: Path) -> None:
    plate = FlatPlate(5, 3, (0.25, 0.5, 70000.0, 1.0), {"exr/shot": "a"})
    write = ready(nuke, f"{tmp_path}/a.exr", lambda frame: plate)
    nuke.execute(write, 1, 1)
    read = nuke.createNode("Read", f"file {tmp_path}/a.exr raw true")
    picture = nuke.pixels(read)
    assert picture.rgba().shape == (3, 5, 4)
    assert picture.rgba()[2, 4].tolist() == [0.25, 0.5, 70000.0, 1.0]
    plate_node = nuke.toNode("Plate1")
    assert (plate_node.width(), plate_node.bbox().h(), plate_node.metadata("exr/shot")) == (5, 3, "a")
    write["channels"].setValue("rgb")
    with pytest.raises(NukeError, match="only rgba"):
        nuke.execute(write, 1, 1)


def test_what_cannot_execute(nuke: FakeNuke, tmp_path: Path) -> None:
    write = ready(nuke, "")

    def refuses(why: str) -> None:
        with pytest.raises(RuntimeError, match=why):
            nuke.execute(write, 1, 1)

    refuses("no output file")
    write["file"].setValue(f"{tmp_path}/none/a.exr")
    write["create_directories"].setValue(False)
    refuses("No such file or directory")
    write["disable"].setValue(True)
    refuses("is disabled")
    write["disable"].setValue(False)
    write.setInput(0, None)
    refuses("no input")
    with pytest.raises(RuntimeError, match="no node"):
        nuke.execute("Small9", 1, 1)
    with pytest.raises(RuntimeError, match="no view"):
        nuke.execute(ready(nuke, f"{tmp_path}/a.exr"), 1, 1, 1, ["left"])
    with pytest.raises(TypeError):
        nuke.execute(write, 1.0, 2)  # type: ignore[arg-type]
    with pytest.raises(NukeError, match="executes Writes"):
        nuke.execute(nuke.toNode("Small1"), 1, 1)
    assert nuke.executed == []
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("edition", ["assist", "nc"])
def test_editions_that_cannot_write(
    edition: str, folder: Path, tmp_path: Path, log: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    nuke = started(FakeNuke(gui=True, **{edition: True}), folder, monkeypatch)
    assert nuke.env.get(edition)
    with pytest.raises(RuntimeError, match=r"Assist|non-commercial"):
        nuke.execute(ready(nuke, f"{tmp_path}/a.exr"), 1, 1)


def test_callbacks_run_in_nukes_order(nuke: FakeNuke, tmp_path: Path, log: list[Any]) -> None:
    write = ready(nuke, f"{tmp_path}/a.####.exr")
    for event in ("beforeRender", "beforeFrameRender", "afterFrameRender", "afterRender"):
        write[event].setValue(f"import builtins; builtins.fake_nuke_log.append(('knob', '{event}', nuke.frame()))")

    def note(*words: str) -> None:
        log.append((*words, nuke.frame(), nuke.thisNode().name(), nuke.thisView()))

    nuke.addBeforeRender(note, ("before",))
    nuke.addBeforeRender(note, ("never",), nodeClass="DeepWrite")
    nuke.addBeforeFrameRender(note, "frame")
    nuke.addAfterRender(note, ("after",), nodeClass="*")
    log.clear()
    nuke.execute(write, 3, 4)
    assert log == [
        ("before", 3, "Out", "main"), ("knob", "beforeRender", 3),
        ("frame", 3, "Out", "main"), ("knob", "beforeFrameRender", 3), ("knob", "afterFrameRender", 3),
        ("frame", 4, "Out", "main"), ("knob", "beforeFrameRender", 4), ("knob", "afterFrameRender", 4),
        ("after", 4, "Out", "main"), ("knob", "afterRender", 4),
    ]  # fmt: skip
    assert nuke.frame() == 1


def test_an_error_before_a_render_stops_it(nuke: FakeNuke, tmp_path: Path) -> None:
    def refuse() -> None:
        raise RuntimeError("bake first")

    nuke.addBeforeRender(refuse)
    with pytest.raises(RuntimeError, match="bake first"):
        nuke.execute(ready(nuke, f"{tmp_path}/a.exr"), 1, 1)
    assert list(tmp_path.glob("*.exr")) == []


def test_execution_does_not_nest(nuke: FakeNuke, tmp_path: Path) -> None:
    write = ready(nuke, f"{tmp_path}/a.exr")
    nuke.addBeforeFrameRender(lambda: nuke.execute(write, 2, 2))
    with pytest.raises(RuntimeError, match="I'm already executing something else"):
        nuke.execute(write, 1, 1)
    nuke._callbacks["beforeFrameRender"].clear()
    nuke.execute(write, 1, 1)


def test_hooks_of_knobs_cannot_execute_but_buttons_can(nuke: FakeNuke, tmp_path: Path) -> None:
    ready(nuke, f"{tmp_path}/a.exr")
    node = nuke.toNode("Small1")
    node["press"].fromScript("nuke.execute('Small1.Out', 1, 1)")
    node["press"].execute()
    assert len(nuke.executed) == 1
    node["knobChanged"].fromScript("nuke.thisKnob().name() == 'gain' and nuke.execute('Small1.Out', 1, 1)")
    with pytest.raises(RuntimeError, match="already executing"):
        node["gain"].setValue(2.0)
    node["press"].execute()
    assert len(nuke.executed) == 2


def test_cancelling_and_failing_in_the_middle(nuke: FakeNuke, tmp_path: Path) -> None:
    write = ready(nuke, f"{tmp_path}/a.%d.exr")
    nuke.cancel_when = lambda node, frame: frame == 3
    with pytest.raises(RuntimeError, match=r"^Cancelled$"):
        nuke.execute(write, 1, 5)
    assert [frame for _, frame, _ in nuke.executed] == [1, 2]
    nuke.cancel_when = lambda node, frame: False

    def full(node: Node, frame: int, view: str, path: Path) -> None:
        if frame == 4:
            raise RuntimeError("disk full")

    nuke.before_frame = full
    with pytest.raises(RuntimeError, match="disk full"):
        nuke.execute(write, 4, 5, continueOnError=True)
    assert [frame for _, frame, _ in nuke.executed] == [1, 2, 5]


def test_views(nuke: FakeNuke, tmp_path: Path) -> None:
    nuke.root()["views"].setValue("left #ff0000\nright #00ff00")
    assert (nuke.views(), nuke.thisView()) == (["left", "right"], "left")
    write = ready(nuke, f"{tmp_path}/a.%V.exr")
    nuke.execute(write, 1, 1, 1, ["right"])
    nuke.execute(write, 2, 2)
    assert nuke.executed == [("Small1.Out", 1, "right"), ("Small1.Out", 2, "left"), ("Small1.Out", 2, "right")]
    assert sorted(path.name for path in tmp_path.glob("*.exr")) == ["a.left.exr", "a.right.exr"]
    write["file"].setValue(f"{tmp_path}/both.exr")
    nuke.execute(write, 1, 1, 1, ["left"])
    with pytest.raises(NukeError, match="use %V"):
        nuke.execute(write, 1, 1)


def test_nodes_belong_to_the_main_thread(gui: FakeNuke, tmp_path: Path) -> None:
    node = gui.createNode("Small")
    calls = [
        lambda: node["gain"].setValue(2.0), node["press"].execute, lambda: node["gain"].fromScript("2"),
        lambda: node["status"].setEnabled(True), lambda: gui.createNode("NoOp"), lambda: gui.delete(node),
        lambda: gui.execute("Small1.Out", 1, 1), lambda: node.setInput(0, None), lambda: gui.message("a"),
        lambda: gui.root().setModified(False), lambda: gui.toNode("Small1"), gui.allNodes, node["gain"].value,
        node["gain"].toScript, node.metadata, node.format, lambda: gui.scriptSave(str(tmp_path / "a.nk")),
        node.makeGroup,
    ]  # fmt: skip
    caught: list[BaseException] = []

    def work() -> None:
        for call in calls:
            try:
                call()
            except NukeError as error:
                caught.append(error)

    thread = threading.Thread(target=work, name="worker")
    thread.start()
    thread.join(10)
    assert len(caught) == len(calls) == len(REFUSED)
    assert "thread 'worker'" in str(caught[0])
    assert node["gain"].value() == 1


def test_workers_leave_calls_for_the_event_loop(gui: FakeNuke, tmp_path: Path) -> None:
    write = ready(gui, f"{tmp_path}/a.exr")
    gui.before_frame = lambda node, frame, view, path: time.sleep(0.05)
    seen: list[Any] = []

    def work() -> None:
        gui.executeInMainThread(gui.execute, (write, 1, 1))
        gui.executeInMainThread(lambda value: seen.append((value, threading.get_ident())), 5)
        gui.executeInMainThread(seen.append, kwargs={}, args=("done",))

    threading.Thread(target=work).start()
    gui.run_events(until=lambda: "done" in seen)
    assert seen == [(5, threading.get_ident()), "done"]
    first, *others = gui.main_thread().calls
    assert first.execute_seconds >= 0.05
    assert first.blocked < 0.03
    assert [call.execute_seconds for call in others] == [0, 0]
    gui.executeInMainThread(seen.clear)
    assert (seen[-1], gui.main_thread().pending()) == ("done", 1)
    with pytest.raises(NukeError, match="nothing came of it"):
        gui.run_events(until=lambda: False, timeout=0.02)
    assert seen == []


def test_without_a_gui_nothing_waits_for_windows(nuke: FakeNuke) -> None:
    for ask in (lambda: nuke.executeInMainThread(print), lambda: nuke.message("a"), lambda: nuke.menu("Nodes")):
        with pytest.raises(NukeError, match="without a GUI"):
            ask()
    nuke.tprint("a", 1)
    assert nuke.said == ["a 1"]


def test_messages_questions_and_menus(gui: FakeNuke) -> None:
    gui.message("told")
    gui.answers.append(True)
    assert gui.ask("really?") is True
    with pytest.raises(NukeError, match="no answer"):
        gui.ask("again?")
    assert gui.messages == ["told", "really?", "again?"]
    menu = gui.menu("Nodes").addMenu("Ours", icon="a.png")
    menu.addCommand("New/Small", "nuke.createNode('Small')")
    menu.addCommand("Tell", lambda: gui.message("menu"))
    gui.run_menu("Nodes/Ours/New/Small")
    gui.run_menu("Nodes/Ours/Tell")
    assert gui.toNode("Small1") is not None
    assert gui.messages[-1] == "menu"
    with pytest.raises(SyntaxError):
        menu.addCommand("Broken", "nuke.createNode(")
    with pytest.raises(NukeError, match=r"Menu\.findItem"):
        menu.findItem("Tell")


def test_progress_bars_are_recorded_and_cancelled(nuke: FakeNuke) -> None:
    task = nuke.ProgressTask("Bake")
    task.setProgress(10)
    task.setMessage("step 1")
    (record,) = nuke.progress
    assert (record.name, record.values, record.messages, task.isCancelled()) == ("Bake", [10], ["step 1"], False)
    record.cancelled = True
    assert task.isCancelled()
    del task
    assert not record.open
    for wrong, error in ((0.5, TypeError), (101, NukeError), (-1, NukeError)):
        with pytest.raises(error):
            nuke.ProgressTask("Bake").setProgress(wrong)


def test_the_modified_flag_and_undo_see_saved_knobs(nuke: FakeNuke) -> None:
    node = nuke.createNode("Small")
    root = nuke.root()
    root.setModified(False)
    nuke.Undo._entries.clear()
    node["status"].setValue("busy")
    nuke.frame(7)
    root["frame"].setValue(8)
    assert (root.modified(), nuke.Undo._entries) == (False, [])
    nuke.Undo.begin("Bake")
    node["gain"].setValue(2.0)
    nuke.Undo.end()
    assert (root.modified(), nuke.Undo._entries) == (True, [("Bake", "Small1.gain")])
    nuke.Undo.disable()
    nuke.Undo.disable()
    nuke.Undo.enable()
    assert nuke.Undo.disabled()
    node.node("Out")["file"].setValue("/a.exr")
    nuke.Undo.enable()
    assert not nuke.Undo.disabled()
    assert nuke.Undo._entries == [("Bake", "Small1.gain")]
    with pytest.raises(NukeError, match="without"):
        nuke.Undo.enable()
    with pytest.raises(NukeError, match="without"):
        nuke.Undo.end()


def test_saves_and_loads_call_back(nuke: FakeNuke, tmp_path: Path) -> None:
    seen: list[Any] = []
    nuke.addOnScriptSave(lambda: seen.append(("save", (tmp_path / "a.nk").exists(), nuke.thisNode().Class())))
    nuke.addOnScriptLoad(lambda: seen.append(("load", nuke.toNode("Small1") is not None, nuke.root().name())))
    nuke.createNode("Small")
    with pytest.raises(RuntimeError, match="no name"):
        nuke.scriptSave()
    nuke.scriptSave(str(tmp_path / "a.nk"))
    nuke.scriptOpen(str(tmp_path / "a.nk"))
    nuke.scriptClear()
    assert seen == [("save", False, "Root"), ("load", True, str(tmp_path / "a.nk"))]
    assert (nuke.allNodes(), nuke.root().name()) == ([], "Root")


def test_start_up_runs_init_and_menu_in_order(tmp_path: Path, log: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    note = "import builtins, nuke\nbuiltins.fake_nuke_log.append(%r)\n"
    for name in ("first", "second", "first/sub"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "init.py").write_text(note % f"{name} init")
        (tmp_path / name / "menu.py").write_text(note % f"{name} menu")
    with (tmp_path / "first" / "init.py").open("a") as file:
        file.write("nuke.pluginAddPath('./sub')\n")
    (tmp_path / "first/sub/Deep.gizmo").write_text("Gizmo {\n inputs 0\n}\nend_group\n")
    for gui in (False, True):
        log.clear()
        fake = FakeNuke(gui=gui)
        monkeypatch.setitem(sys.modules, "nuke", fake)
        monkeypatch.setattr(sys, "path", list(sys.path))
        fake.start([tmp_path / "first", tmp_path / "second"])
        menus = ["second menu", "first menu"] if gui else []
        assert log == ["second init", "first init", "first/sub init", *menus]
        assert fake.createNode("Deep").Class() == "Deep"
    with pytest.raises(RuntimeError, match="no folder"):
        fake.pluginAddPath(str(tmp_path / "gone"))
    monkeypatch.delitem(sys.modules, "nuke")
    with pytest.raises(NukeError, match="is not"):
        FakeNuke().start([tmp_path])
