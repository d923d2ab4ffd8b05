"""Nodes: what scripts keep, and what copies, deletes, groups and hooks do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.nuke.api import FakeNuke
from tests.fakes.nuke.errors import NukeError
from tests.fakes.nuke.script import NodeText, parse
from tests.fakes_tests.conftest import started


def saved(nuke: FakeNuke, name: str) -> list[tuple[str, str]]:
    (node,) = [n for n in parse(nuke.script_text()) if isinstance(n, NodeText) and n.value("name") == name]
    return [line for line in node.lines if isinstance(line, tuple) and line[0] not in {"inputs", "name"}]


def test_a_gizmo_saves_its_class_and_its_changed_knobs_only(nuke: FakeNuke) -> None:
    node = nuke.createNode("Small")
    assert saved(nuke, "Small1") == []
    node["gain"].setValue(2.5)
    node["result"].setValue("/a b/[value gain].exr")
    node["status"].setValue("busy")
    node.node("Out")["file"].setValue("/tmp/a.exr")
    node.node("Out")["disable"].setValue(False)
    assert saved(nuke, "Small1") == [("gain", "2.5"), ("result", "/a b/[value gain].exr")]
    node["gain"].setValue(1.0)
    assert saved(nuke, "Small1") == [("result", "/a b/[value gain].exr")]


def test_saving_and_opening_loses_what_runs_inside_a_gizmo(nuke: FakeNuke, tmp_path: Path) -> None:
    node = nuke.createNode("Small")
    node["baked"].fromScript("{curve K x1 1 x5 0}")
    node["mode"].setValue("two")
    node["gain"].setExpression("frame*2")
    node["result"].setValue('[x] "y" $z')
    node.node("Out")["file"].setValue("/tmp/lost.exr")
    path = str(tmp_path / "a script.nk")
    nuke.scriptSaveAs(path)
    assert (nuke.root().name(), nuke.root().modified()) == (path, False)
    text = nuke.script_text()
    nuke.scriptOpen(path)
    with pytest.raises(ValueError, match="not attached"):
        node.name()
    again = nuke.toNode("Small1")
    assert again is not None
    assert nuke.script_text() == text
    assert [again["baked"].valueAt(frame) for frame in (1, 4, 5)] == [1, 1, 0]
    assert (again["mode"].value(), again["gain"].valueAt(4), again["result"].value()) == ("two", 8, '[x] "y" $z')
    assert again.node("Out")["file"].value() == ""


def test_a_farm_without_the_gizmo_cannot_open_the_script(
    nuke: FakeNuke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nuke.createNode("Small")
    path = str(tmp_path / "a.nk")
    nuke.scriptSave(path)
    (tmp_path / "empty").mkdir()
    farm = started(FakeNuke(), tmp_path / "empty", monkeypatch)
    with pytest.raises(RuntimeError, match="Small: Unknown command"):
        farm.scriptOpen(path)
    with pytest.raises(RuntimeError, match="No such file"):
        farm.scriptOpen(path + ".gone")
    with pytest.raises(RuntimeError, match="exists"):
        nuke.scriptSaveAs(path)


def test_connections_survive_a_save(nuke: FakeNuke, tmp_path: Path) -> None:
    nuke.load_text(
        "Constant {\n inputs 0\n name A\n}\nset A [stack 0]\nConstant {\n inputs 0\n name B\n}\nset B [stack 0]\n"
        "push $A\npush $B\nSmall {\n inputs 2\n name S\n}\npush $A\nDissolve {\n inputs 2\n name D\n}\n"
        "push $B\npush 0\nCopy {\n inputs 2\n name C\n}\n"
    )
    nuke.scriptSave(str(tmp_path / "a.nk"))
    nuke.scriptOpen(str(tmp_path / "a.nk"))
    wired = {
        node.name(): [source and source.name() for source in node._inputs] for node in nuke.allNodes() if node._inputs
    }
    assert wired == {"S": ["B", "A"], "D": ["A", "S"], "C": [None, "B"]}
    small = nuke.toNode("S")
    assert small is not None
    assert (small.inputs(), small.maxInputs(), [n.name() for n in small.dependencies()]) == (2, 2, ["B", "A"])
    assert small.setInput(2, None) is False


def test_hooks_run_in_order_at_create_load_and_change(
    nuke: FakeNuke, log: list[tuple[str, ...]], tmp_path: Path
) -> None:
    plate = nuke.createNode("Constant")
    node = nuke.createNode("Small")
    assert node.input(0) is plate
    assert log == [("create", "Small1"), ("changed", "Small1", "inputChange")]
    log.clear()
    node["gain"].setValue(2.0)
    node["gain"].setValue(2.0)
    node.node("Gain")["mix"].setValue(0.5)
    node.setInput(1, plate)
    assert log == [("changed", "Small1", "gain"), ("changed", "Small1", "inputChange")]
    nuke.scriptSave(str(tmp_path / "a.nk"))
    log.clear()
    nuke.scriptOpen(str(tmp_path / "a.nk"))
    assert log == [("create", "Small1"), ("changed", "Small1", "inputChange")]


def test_closed_panels_hear_no_change(nuke: FakeNuke, log: list[tuple[str, ...]]) -> None:
    nuke.panels_open = False
    node = nuke.createNode("Small")
    node["gain"].setValue(2.0)
    assert log == [("create", "Small1")]


def test_a_studios_defaults_reach_what_a_gizmo_leaves_open(nuke: FakeNuke) -> None:
    nuke.knob_defaults = {"Write": {"render_order": "7", "compression": "DWAB", "datatype": "16 bit half"}}
    write = nuke.createNode("Small").node("Out")
    assert (write["render_order"].value(), write["compression"].value()) == (7, "none")
    assert write["datatype"].value() == "32 bit float"


def test_a_gui_shows_the_panel_of_a_new_node(gui: FakeNuke, log: list[tuple[str, ...]]) -> None:
    gui.createNode("Small")
    gui.createNode("Small", inpanel=False)
    assert log == [
        ("create", "Small1"), ("changed", "Small1", "showPanel"), ("create", "Small2"),
        ("changed", "Small2", "inputChange"),
    ]  # fmt: skip


def test_a_button_knows_its_node_and_knob(nuke: FakeNuke) -> None:
    node = nuke.createNode("Small")
    node["press"].execute()
    assert node["status"].value() == "press"
    assert nuke.thisKnob() is None
    with pytest.raises(NukeError, match="no button"):
        node["gain"].execute()
    with pytest.raises(NukeError, match="Render"):
        node.node("Out")["Render"].execute()


def test_metadata_while_a_script_loads_is_refused(nuke: FakeNuke, folder: Path) -> None:
    text = (folder / "Small.gizmo").read_text()
    (folder / "Asking.gizmo").write_text(
        text.replace("inputs 2", 'inputs 2\n onCreate "nuke.thisNode().metadata()"', 1)
    )
    gizmo = "Constant {\n inputs 0\n}\nAsking {\n inputs 1\n}"
    (folder / "Asking.gizmo").write_text(
        "\n".join(line for line in (folder / "Asking.gizmo").read_text().splitlines() if "fake_nuke_log" not in line)
    )
    with pytest.raises(NukeError, match="while a script loads"):
        nuke.load_text(gizmo)


def test_copies_get_names_of_their_own(nuke: FakeNuke, log: list[tuple[str, ...]], tmp_path: Path) -> None:
    plate = nuke.createNode("Constant")
    node = nuke.createNode("Small", "gain 3 result {/a b}")
    assert (node["gain"].value(), node["result"].value()) == (3, "/a b")
    nuke.createNode("NoOp")
    for other in nuke.allNodes():
        other.setSelected(other is node)
    path = str(tmp_path / "copy.nk")
    nuke.nodeCopy(path)
    nuke.nodeCopy("%clipboard%")
    log.clear()
    node["gain"].setValue(1.0)
    copy = nuke.nodePaste(path)
    assert copy is not None
    assert (copy.name(), copy["gain"].value(), copy.input(0)) == ("Small2", 3, node)
    assert nuke.selectedNodes() == [copy]
    assert log == [
        ("changed", "Small1", "gain"), ("create", "Small2"), ("changed", "Small2", "inputChange"),
    ]  # fmt: skip
    third = nuke.nodePaste("%clipboard%")
    assert third is not None
    assert (third.name(), third.input(0)) == ("Small3", copy)
    assert plate.name() == "Constant1"


def test_names_stay_unique(nuke: FakeNuke) -> None:
    first, second = nuke.createNode("NoOp"), nuke.createNode("NoOp")
    assert (first.name(), second.name()) == ("NoOp1", "NoOp2")
    second.setName("NoOp1")
    assert second.name() == "NoOp2"
    second.setName("Other")
    assert (nuke.toNode("Other"), nuke.toNode("NoOp2")) == (second, None)
    first["name"].setValue("Other")
    assert first.name() == "Other1"
    with pytest.raises(ValueError, match="no name"):
        first.setName("a b")


def test_a_deleted_node_answers_nothing(nuke: FakeNuke) -> None:
    node = nuke.createNode("Small")
    dot = nuke.createNode("Dot")
    knob, child = node["gain"], node.node("Out")
    nuke.delete(node)
    asked = [lambda: node["gain"], knob.value, lambda: knob.setValue(1.0), knob.toScript, knob.node]
    asked += [lambda: nuke.delete(node), lambda: dot.setInput(0, node), lambda: child["file"]]
    asked += [lambda name=name: getattr(node, name) for name in ("name", "fullName", "knobs", "setInput", "Class")]
    for ask in asked:
        with pytest.raises(ValueError, match="not attached"):
            ask()
    assert nuke.toNode("Small1") is None
    assert dot.input(0) is None


def test_undo_of_a_delete_makes_a_new_node_in_the_old_place(nuke: FakeNuke, log: list[tuple[str, ...]]) -> None:
    plate = nuke.createNode("Constant")
    node = nuke.createNode("Small")
    dot = nuke.createNode("Dot")
    node["gain"].setValue(4.0)
    node.node("Out")["file"].setValue("/lost.exr")
    nuke.delete(node)
    log.clear()
    again = nuke.undo_delete()
    assert again is not node
    assert (again.name(), again["gain"].value(), again.input(0), dot.input(0)) == ("Small1", 4, plate, again)
    assert again.node("Out")["file"].value() == ""
    assert log[0] == ("create", "Small1")


def test_groups_hold_nodes_and_are_saved_whole(nuke: FakeNuke, tmp_path: Path) -> None:
    nuke.load_text("Group {\n inputs 0\n name G\n addUserKnob {7 amount R 0 1}\n amount 3\n}\nend_group\n")
    group = nuke.toNode("G")
    assert group is not None
    with group:
        inner = nuke.createNode("Small")
        inner["gain"].setExpression("parent.amount*2")
        inner["result"].setValue("/kept")
        assert nuke.thisGroup() is group
        assert nuke.toNode("Small1") is inner
        with pytest.raises(NukeError, match="another group"):
            inner.setInput(0, group)
    assert (nuke.thisGroup(), nuke.toNode("Small1")) == (nuke.root(), None)
    assert inner.fullName() == "G.Small1"
    assert nuke.toNode("G.Small1.Out").fullName() == "G.Small1.Out"
    assert [node.fullName() for node in nuke.allNodes("Small", recurseGroups=True)] == ["G.Small1"]
    assert [node.name() for node in nuke.allNodes()] == ["G"]
    nuke.scriptSave(str(tmp_path / "a.nk"))
    text = nuke.script_text()
    nuke.scriptOpen(str(tmp_path / "a.nk"))
    assert nuke.script_text() == text
    again = nuke.toNode("G.Small1")
    assert again is not None
    assert (again["gain"].value(), again["result"].value()) == (6, "/kept")


def test_a_gizmo_is_closed_and_its_group_copy_is_not(
    nuke: FakeNuke, log: list[tuple[str, ...]], tmp_path: Path
) -> None:
    node = nuke.createNode("Small")
    node["gain"].setValue(2.0)
    node.node("Out")["file"].setValue("/kept.exr")
    with node, pytest.raises(NukeError, match="is a gizmo"):
        nuke.createNode("NoOp")
    with pytest.raises(NukeError, match="cannot be deleted"):
        nuke.delete(node.node("Gain"))
    log.clear()
    group = node.makeGroup()
    assert log == [("create", "Group1")]
    assert (group.name(), group.Class(), group.inputs(), group["gain"].value()) == ("Group1", "Group", 0, 2)
    group["gain"].setValue(3.0)
    assert (node["gain"].value(), group.node("Gain")["value"].value()) == (2, 3)
    group["press"].execute()
    assert (group["status"].value(), node["status"].value()) == ("press", "")
    nuke.delete(node)
    nuke.scriptSave(str(tmp_path / "a.nk"))
    empty = FakeNuke()
    empty.scriptReadFile(str(tmp_path / "a.nk"))
    copy = empty.toNode("Group1")
    assert copy is not None
    assert copy.node("Out")["file"].value() == "/kept.exr"
    assert copy.knobs().keys() >= {"gain", "mode", "press", "status"}
    assert (copy["mode"].values(), copy["gain"].value(), copy["status"].enabled()) == (["one word", "two"], 3, False)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Constant {\n inputs 0\n colour 1\n}", "no knob 'colour'"),
        ("Constant {\n inputs 0\n channels rgb\n format {{a b\n}", "brace"),
        ("Constant {\n inputs 0\n addUserKnob {7 a}\n}", "no addUserKnob"),
        ("push 0\npush 0\nSwitch {\n inputs 2\n which yes no\n}", "one value"),
        ("push 0\nWrite {\n datatype \"16 bit half\"\n file_type exr\n}", "no knob 'datatype'"),
        ('push 0\nWrite {\n file_type exr\n datatype half\n}', "no item 'half'"),
        ("push 0\npush 0\nDot {\n inputs 2\n}", "takes 1 inputs"),
        ("push 0\nRead {\n}", "takes 0 inputs"),
        ("Read {\n inputs 0\n first 1.5\n}", "whole number"),
        ("push 0\nMultiply {\n value {1 2 3 4 5}\n}", "4 fit"),
        ("Group {\n inputs 0\n addUserKnob {4 a M {}}\n}\nend_group", "needs items"),
        ("Group {\n inputs 0\n addUserKnob {3 a}\n addUserKnob {3 a}\n}\nend_group", "two knobs"),
    ],
)  # fmt: skip
def test_scripts_with_what_no_class_has_are_refused(nuke: FakeNuke, text: str, why: str) -> None:
    with pytest.raises(NukeError, match=why):
        nuke.load_text(text)


def test_exr_knobs_of_a_write_come_with_the_file_type(nuke: FakeNuke) -> None:
    write = nuke.createNode("Write")
    assert write.knob("datatype") is None
    with pytest.raises(NameError):
        write["compression"]
    write["file_type"].setValue("exr")
    assert write["datatype"].value() == "16 bit half"


def test_a_gizmo_numbers_its_inputs_from_nought(nuke: FakeNuke, folder: Path) -> None:
    text = (folder / "Small.gizmo").read_text()
    for name, was, wrong in (("More", "inputs 2", "inputs 3"), ("Twice", "  number 1\n", "")):
        (folder / f"{name}.gizmo").write_text(text.replace(was, wrong, 1))
        with pytest.raises(NukeError, match="its Inputs are numbered"):
            nuke.createNode(name)


def test_colours_of_nodes_are_written_in_hexadecimal(nuke: FakeNuke) -> None:
    nuke.load_text("Constant {\n inputs 0\n tile_color 0xff0000ff\n}")
    assert nuke.toNode("Constant1")["tile_color"].value() == 0xFF0000FF


def test_write_knobs_tell_changed_values(nuke: FakeNuke) -> None:
    node = nuke.createNode("Small")
    node["gain"].setValue(2.0)
    node["status"].setValue("busy")
    told = node.writeKnobs(nuke.WRITE_NON_DEFAULT_ONLY | nuke.TO_SCRIPT).splitlines()
    assert {"name Small1", "gain 2", "selected true"} == set(told)
    assert {"gain", "mode", "name"} < set(node.writeKnobs().splitlines())
