"""The text of the shipped gizmos: parsers agree on it, and every knob, button and inner node is as promised."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nkparser
import pytest

from tests.fakes.nuke.classes import CLASSES, COMMON, LACKING
from tests.fakes.nuke.script import NodeText, StackCommand, UserKnob, check_stack, list_items, parse
from tests.gizmos.gizmo_contract import FOLDER, HIDDEN, INPUTS, ITEMS, LAYER, NAMES, buttons, knobs

TCL_LINT = r"""
proc unknown {name args} {
    if {[llength $args] != 1} { error "$name has [llength $args] words" }
    if {[catch {llength [lindex $args 0]} why]} { error "$name: $why" }
    if {$name eq "Gizmo"} { return }
    set count 1
    foreach line [split [lindex $args 0] \n] { if {[regexp {^\s*inputs (\d+)$} $line -> n]} { set count $n } }
    set ::depth [expr {$::depth - $count}]
    if {$::depth < 0} { error "$name takes more than the stack holds" }
    incr ::depth
}
set depth 0
proc stack {index} { if {$index >= $::depth} { error "empty stack" }; return node }
proc push {value} { incr ::depth }
proc add_layer {channels} {}
proc end_group {} { set ::ended 1 }
source [lindex $argv 0]
if {![info exists ended]} { error "no end_group" }
"""


def _text(name: str) -> str:
    return (FOLDER / f"{name}.gizmo").read_text(encoding="utf-8")


def _gizmo(name: str) -> NodeText:
    tree = parse(_text(name))
    check_stack(tree)
    (gizmo,) = tree
    assert isinstance(gizmo, NodeText)
    assert gizmo.kind == "Gizmo"
    return gizmo


def _user_knobs(name: str) -> dict[str, UserKnob]:
    found = [line for line in _gizmo(name).lines if isinstance(line, UserKnob)]
    assert len({knob.name for knob in found}) == len(found)
    return {knob.name: knob for knob in found}


def _children(name: str) -> list[NodeText]:
    return [child for child in _gizmo(name).children or [] if isinstance(child, NodeText)]


def _number(knob: UserKnob) -> int:
    return int(knob.text.split()[0])


@pytest.mark.parametrize("name", NAMES)
def test_nkparser_reads_the_same_nodes(name: str) -> None:
    # nkparser takes the nodes of a gizmo for its neighbours, and its end for a node without knobs
    script = nkparser.Script.from_string(_text(name).removesuffix("end_group\n"))
    assert [str(found) for found in script.diagnostics if found.severity.value == "error"] == []
    kinds = [node.class_name for node in script.all_nodes()]
    assert kinds == ["Gizmo", *(child.kind for child in _children(name))]


@pytest.mark.skipif(shutil.which("tclsh") is None, reason="tclsh is not installed")
@pytest.mark.parametrize("name", NAMES)
def test_tclsh_reads_it(name: str, tmp_path: Path) -> None:
    lint = tmp_path / "lint.tcl"
    lint.write_text(TCL_LINT)
    run = subprocess.run(
        ["tclsh", str(lint), str(FOLDER / f"{name}.gizmo")], capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("name", NAMES)
def test_it_names_no_version_and_is_plain_text(name: str) -> None:
    text = _text(name)
    assert not any(line.lstrip().startswith("version") for line in text.splitlines())
    assert text.isascii()
    assert "\t" not in text
    assert text.endswith("end_group\n")


@pytest.mark.parametrize("name", NAMES)
def test_value_knobs_are_those_promised(name: str) -> None:
    gizmo, found = _gizmo(name), _user_knobs(name)
    values = {knob.name for knob in found.values() if knob.kind not in {"tab", "divider", "script"}}
    assert values == set(knobs(name))
    for knob, (number, first) in knobs(name).items():
        assert (_number(found[knob]), gizmo.value(knob)) == (number, first), knob


@pytest.mark.parametrize("name", NAMES)
def test_every_knob_has_a_label_and_a_sentence(name: str) -> None:
    for knob in _user_knobs(name).values():
        if knob.kind in {"tab", "divider"}:
            continue
        assert knob.options["l"].strip()
        tip = knob.options["t"]
        assert tip[0].isupper() or tip.split()[0].rstrip(":") in _first_words(knob)
        assert tip.endswith((".", "?"))
        assert len(tip.split()) >= 4, tip


def _first_words(knob: UserKnob) -> set[str]:
    return {word for item in list_items(knob.options.get("M", "")) for word in item.split()}


@pytest.mark.parametrize("name", NAMES)
def test_enums_have_their_items(name: str) -> None:
    enums = {knob.name: knob for knob in _user_knobs(name).values() if knob.kind == "enum"}
    assert enums
    for knob in enums.values():
        assert list_items(knob.options["M"]) == ITEMS[knob.name]


@pytest.mark.parametrize("name", NAMES)
def test_tabs_and_what_is_hidden_or_unsaved(name: str) -> None:
    found = _user_knobs(name)
    assert [knob.name for knob in found.values() if knob.kind == "tab"] == [name, "Look", "Cache"]
    hidden = {knob.name for knob in found.values() if {"HIDDEN", "INVISIBLE"} & knob.flags}
    assert hidden == HIDDEN & set(found)
    assert {knob.name for knob in found.values() if "DO_NOT_WRITE" in knob.flags} == {"status"}
    assert {knob.name for knob in found.values() if "DISABLED" in knob.flags} == {"status"}


@pytest.mark.parametrize("name", NAMES)
def test_buttons_are_short_and_guarded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {knob.name: knob for knob in _user_knobs(name).values() if knob.kind == "script"}
    assert {knob.name: knob.options["l"] for knob in found.values()} == buttons(name)
    node = SimpleNamespace()
    for knob in found.values():
        code = knob.options["T"]
        assert len(code.splitlines()) <= 10
        pressed: list[tuple[object, str]] = []
        module = ModuleType("nuke_hdrgen.host.buttons")
        module.press = lambda who, what, pressed=pressed: pressed.append((who, what))  # type: ignore[attr-defined]
        _installed(monkeypatch, "buttons", module)
        _execute(code, SimpleNamespace(GUI=True, thisNode=lambda: node))
        assert pressed == [(node, knob.name)]


@pytest.mark.parametrize("name", NAMES)
def test_without_the_package_a_button_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nuke_hdrgen", None)
    for knob in _user_knobs(name).values():
        if knob.kind != "script":
            continue
        said: list[str] = []
        _execute(knob.options["T"], SimpleNamespace(GUI=True, message=said.append))
        assert len(said) == 1
        assert said[0].startswith(f"{name} needs the Python package nuke_hdrgen")
        assert "NUKE_PATH" in said[0]
        with pytest.raises(RuntimeError, match="NUKE_PATH"):
            _execute(knob.options["T"], SimpleNamespace(GUI=False))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("hook", "call"), [("onCreate", "on_create"), ("knobChanged", "knob_changed")])
def test_hooks_are_silent_without_the_package(name: str, hook: str, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code = _gizmo(name).value(hook)
    called: list[str] = []
    module = ModuleType("nuke_hdrgen.host.callbacks")
    setattr(module, call, lambda: called.append(call))
    _installed(monkeypatch, "callbacks", module)
    _execute(code, SimpleNamespace())
    assert called == [call]
    monkeypatch.setitem(sys.modules, "nuke_hdrgen", None)
    _execute(code, SimpleNamespace())
    assert called == [call]


@pytest.mark.parametrize("name", NAMES)
def test_inner_nodes_have_names_and_known_knobs(name: str) -> None:
    children = _children(name)
    names = [child.value("name") for child in children]
    assert all(names)
    assert len(set(names)) == len(names)
    assert len({(child.value("xpos"), child.value("ypos")) for child in children}) == len(children)
    for child in children:
        known = (set(COMMON) - LACKING.get(child.kind, frozenset())) | set(CLASSES[child.kind]) | {"inputs"}
        for line in child.lines:
            assert isinstance(line, tuple)
            knob, written = line
            assert knob in known, (child.kind, knob)
            kind = CLASSES[child.kind].get(knob)
            if isinstance(kind, tuple):
                assert written in kind


@pytest.mark.parametrize("name", NAMES)
def test_links_name_knobs_that_exist(name: str) -> None:
    have = set(_user_knobs(name))
    for child in _children(name):
        for line in child.lines:
            assert isinstance(line, tuple)
            for part in line[1].split("parent.")[1:]:
                linked = part.split("]")[0].split("}")[0]
                word = "".join(c if c.isalnum() or c == "_" else " " for c in linked).split()[0]
                assert word in have, (child.value("name"), word)


def test_every_write_sets_the_same_knobs() -> None:
    found = {}
    for name in NAMES:
        writes = [child for child in _children(name) if child.kind == "Write"]
        assert [write.value("name") for write in writes] == [f"HDRGenIn{n}" for n in range(1, INPUTS[name] + 1)]
        for write in writes:
            found[name, write.value("name")] = tuple(
                line
                for line in write.lines
                if line[0] not in {"name", "xpos", "ypos"}  # type: ignore[index]
            )
    assert len(set(found.values())) == 1
    lines = dict(next(iter(found.values())))  # type: ignore[arg-type]
    assert lines["disable"] == "true"
    assert lines["raw"] == "true"
    assert lines["datatype"] == "32 bit float"
    assert {"file", "file_type", "compression", "channels", "autocrop", "metadata", "beforeRender"} <= set(lines)


def test_every_read_sets_the_same_knobs() -> None:
    found = [
        [line for line in child.lines if line[0] not in {"xpos", "ypos"}]  # type: ignore[index]
        for name in NAMES
        for child in _children(name)
        if child.kind == "Read"
    ]
    assert len(found) == len(NAMES)
    assert found[0] == found[1] == found[2]
    lines = dict(found[0])  # type: ignore[arg-type]
    assert (lines["raw"], lines["on_error"], lines["localizationPolicy"]) == ("true", "error", "off")
    assert (lines["before"], lines["after"], lines["name"]) == ("hold", "hold", "HDRGenOut")


@pytest.mark.parametrize("name", NAMES)
def test_it_declares_the_layer_and_ends_in_one_output(name: str) -> None:
    inner = _gizmo(name).children or []
    layers = [one.argument for one in inner if isinstance(one, StackCommand) and one.word == "add_layer"]
    assert [layer.split() for layer in layers] == [["hdrgen", *(f"hdrgen.{part}" for part in LAYER)]]
    children = _children(name)
    assert [child.kind for child in children].count("Output") == 1
    assert children[-1].kind == "Output"
    inputs = [int(child.value("number", "0")) for child in children if child.kind == "Input"]
    assert inputs == list(range(INPUTS[name]))


@pytest.mark.parametrize("name", NAMES)
def test_the_page_for_compositors_names_every_knob_and_inner_node(name: str) -> None:
    page = (FOLDER.parent / "docs" / "gizmos.md").read_text(encoding="utf-8")
    for knob in _user_knobs(name).values():
        if knob.kind in {"tab", "divider"} or re.fullmatch(r"(ev|offset)[1-7]", knob.name):
            continue
        assert f"`{knob.name}`" in page
        assert knob.name in HIDDEN or knob.options["t"] in page, knob.name
    for child in _children(name):
        if child.kind not in {"Input", "Write", "Constant"}:
            assert child.value("name") in page


def _installed(monkeypatch: pytest.MonkeyPatch, name: str, module: ModuleType) -> None:
    """Puts a module where `import nuke_hdrgen.host.<name> as …` finds it."""
    package, host = ModuleType("nuke_hdrgen"), ModuleType("nuke_hdrgen.host")
    package.host = host  # type: ignore[attr-defined]
    setattr(host, name, module)
    for path, found in (("", package), (".host", host), (f".host.{name}", module)):
        monkeypatch.setitem(sys.modules, f"nuke_hdrgen{path}", found)


def _execute(code: str, nuke: SimpleNamespace) -> None:
    exec(compile(code, "knob", "exec"), {"nuke": nuke})
