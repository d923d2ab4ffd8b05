"""The script parser: what it refuses, and that others read the same."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import nkparser
import pytest

from tests.fakes.nuke.errors import NukeError
from tests.fakes.nuke.script import NodeText, StackCommand, UserKnob, parse
from tests.fakes.nuke.tcl import commands, list_items, quote

GIZMOS = sorted((Path(__file__).parents[2] / "gizmos").glob("*.gizmo"))
TCL = """
proc hex {text} { return [binary encode hex [encoding convertto utf-8 $text]] }
set child [interp create -safe]
foreach name {stack push version add_layer end_group} { $child alias $name list }
catch {$child eval {rename unknown {}}}
proc node {kind body} { puts [join [lmap item [list $kind {*}$body] {hex $item}] " "] }
$child alias unknown node
$child eval [read stdin]
"""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Dot {\n name a", "unbalanced brace"),
        ('NoOp {\n inputs 0\n label "a\n}', "unbalanced quote"),
        ('NoOp {\n inputs 0\n label "[value x]"\n}', "Tcl would evaluate"),
        ('NoOp {\n inputs 0\n label "$x"\n}', "Tcl would evaluate"),
        ("NoOp {\n inputs 0\n label [exit]\n}", "Tcl would evaluate"),
        ("NoOp {\n inputs 0\n label {a}b\n}", "extra characters"),
        ("NoOp {\n inputs 0\n label a b\n}", "one value"),
        ("Group {\n inputs 0\n addUserKnob {41 a}\n}\nend_group", "addUserKnob 41"),
        ("Group {\n inputs 0\n addUserKnob {7 a Q 1}\n}\nend_group", "'Q'"),
        ("Group {\n inputs 0\n addUserKnob {7 a +SHINY}\n}\nend_group", "SHINY"),
        ("Group {\n inputs 0\n}", "without end_group"),
        ("NoOp {\n inputs 0\n}\nend_group", "end_group without"),
        ("NoOp {\n}", "the stack holds 0"),
        ("push 0\nMerge {\n inputs 2\n}", "the stack holds 1"),
        ("push $N1", "no such name"),
        ("set N1 [stack 0]", "the stack is empty"),
        ("clone node1 {\n}", "clone"),
    ],
)
def test_what_tcl_or_nuke_would_not_take_is_refused(text: str, why: str) -> None:
    with pytest.raises(NukeError, match=why):
        parse(text)


def test_words_keep_their_text() -> None:
    ((_, body),) = commands('A {\n x "a \\[b] \\"c\\" \\\\ \\$d"\n y {{parent.x ? 1 : {2}}}\n z "one\\ntwo"\n}')
    assert list(commands(body)) == [
        ["x", 'a [b] "c" \\ $d'],
        ["y", "{parent.x ? 1 : {2}}"],
        ["z", "one\ntwo"],
    ]
    assert list_items('7 a l "A [b]" M {one "two three"}') == ["7", "a", "l", "A [b]", "M", 'one "two three"']


@pytest.mark.parametrize("text", ["", "plain", "a b", "[value x]", 'say "x"', "back\\slash", "$a {", "l\nm", "#c", "é"])
def test_a_quoted_word_reads_back(text: str) -> None:
    assert list(commands(f"a {quote(text)}")) == [["a", text]]


def test_a_tree_holds_lines_in_order() -> None:
    (group,) = parse(
        "Group {\n inputs 0\n addUserKnob {3 n l N}\n n 4\n}\n Input {\n  inputs 0\n }\n set A [stack 0]\nend_group"
    )
    assert isinstance(group, NodeText)
    assert group.lines == [("inputs", "0"), UserKnob("int", "n", {"l": "N"}, frozenset(), "3 n l N"), ("n", "4")]
    assert group.children == [NodeText("Input", [("inputs", "0")]), StackCommand("set", "A")]


@pytest.mark.parametrize("path", GIZMOS, ids=lambda path: path.stem)
def test_nkparser_reads_the_same_from_the_shipped_gizmos(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    ours = _nodes(parse(text))
    theirs = [node for node in nkparser.Script.from_string(text).all_nodes() if node.class_name != "end_group"]
    assert [node.kind for node in ours] == [node.class_name for node in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        names = [line[0] if isinstance(line, tuple) else "addUserKnob" for line in mine.lines]
        assert names == [knob.name for knob in other.knobs]


@pytest.mark.skipif(shutil.which("tclsh") is None, reason="no tclsh here")
@pytest.mark.parametrize("path", GIZMOS, ids=lambda path: path.stem)
def test_tcl_reads_the_same_from_the_shipped_gizmos(path: Path, tmp_path: Path) -> None:
    (tmp_path / "read.tcl").write_text(TCL)
    text = path.read_text(encoding="utf-8")
    done = subprocess.run(
        ["tclsh", str(tmp_path / "read.tcl")], input=text, capture_output=True, text=True, timeout=30, check=True
    )
    theirs = [[bytes.fromhex(item).decode() for item in line.split(" ")] for line in done.stdout.splitlines()]
    stack = {"set", "push", "add_layer", "version", "end_group"}
    ours = [
        [words[0], *(item for line in commands(words[1]) for item in line)]
        for words in commands(text)
        if words[0] not in stack
    ]
    assert ours == theirs
    assert len(ours) > 8


def _nodes(tree: list[NodeText | StackCommand]) -> list[NodeText]:
    found: list[NodeText] = []
    for command in tree:
        if isinstance(command, NodeText):
            found += [command, *_nodes(command.children or [])]
    return found
