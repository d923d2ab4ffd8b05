"""The text of an .nk or .gizmo as a tree, and back.

It owns the grammar: nodes with knob lines, groups up to `end_group`, and the stack commands. It must not know what a
node class or a knob means; `loader` gives the tree its meaning.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Union

from tests.fakes.nuke.errors import NukeError
from tests.fakes.nuke.tcl import commands, list_items

GROUPS = ("Group", "Gizmo")
# Identifiers of addUserKnob: nuke.KnobType and the NDK's list of knob types; only what this Nuke can build.
USER_KNOB_KINDS = {
    1: "text", 2: "file", 3: "int", 4: "enum", 6: "bool", 7: "double", 20: "tab", 22: "script", 26: "divider",
    28: "text",
}  # fmt: skip
OPTIONS = ("l", "t", "T", "M", "R", "n")
FLAGS = ("STARTLINE", "HIDDEN", "INVISIBLE", "DISABLED", "DO_NOT_WRITE")


@dataclass(frozen=True)
class UserKnob:
    """One addUserKnob line: kind of knob, name, options by letter, flags set and cleared, and its text as written."""

    kind: str
    name: str
    options: dict[str, str]
    flags: frozenset[str]
    text: str


@dataclass
class NodeText:
    """One node: its class, its lines in order, and what stands inside it where it is a group."""

    kind: str
    lines: list[Line] = field(default_factory=list)
    children: list[Command] | None = None

    def value(self, name: str, default: str = "") -> str:
        """The last value given to a knob."""
        return next((line[1] for line in reversed(self.lines) if isinstance(line, tuple) and line[0] == name), default)


@dataclass(frozen=True)
class StackCommand:
    """`set NAME [stack 0]`, `push $NAME`, `push 0`, `add_layer {…}` or `version …`."""

    word: str
    argument: str


Line = Union[tuple[str, str], UserKnob]
Command = Union[NodeText, StackCommand]


def parse(text: str) -> list[Command]:
    """The commands of a script. Raises NukeError where Nuke would refuse, or do what no shipped script may ask."""
    lines = list(commands(text))
    tree, rest = _block(lines, 0, open_group=False)
    if rest != len(lines):
        raise NukeError("end_group without a group")
    check_stack(tree)
    return tree


def _block(lines: list[list[str]], at: int, *, open_group: bool) -> tuple[list[Command], int]:
    found: list[Command] = []
    while at < len(lines):
        words = lines[at]
        if words == ["end_group"]:
            if open_group:
                return found, at + 1
            return found, at
        at += 1
        if words[0] in {"set", "push", "add_layer", "version"}:
            found.append(_stack_command(words))
            continue
        if len(words) != 2:
            raise NukeError(f"{words[0]!r} is not a node with one block of knobs")
        node = NodeText(words[0], _knob_lines(words[1]))
        if words[0] in GROUPS:
            node.children, at = _block(lines, at, open_group=True)
        found.append(node)
    if open_group:
        raise NukeError("a group without end_group")
    return found, at


def _stack_command(words: list[str]) -> StackCommand:
    if words[0] == "set" and len(words) == 3 and words[2] == "[stack 0]":
        return StackCommand("set", words[1])
    if words[0] == "push" and len(words) == 2 and (words[1] == "0" or words[1].startswith("$")):
        return StackCommand("push", words[1])
    if (words[0] == "add_layer" and len(words) == 2) or words[0] == "version":
        return StackCommand(words[0], " ".join(words[1:]))
    raise NukeError(f"this Nuke does not know the command {' '.join(words)!r}")


def _knob_lines(body: str) -> list[Line]:
    lines: list[Line] = []
    for words in commands(body):
        if len(words) != 2:
            raise NukeError(f"a knob has one value, not {words!r}")
        lines.append(user_knob(words[1]) if words[0] == "addUserKnob" else (words[0], words[1]))
    return lines


def user_knob(text: str) -> UserKnob:
    """What the braces of an addUserKnob hold. Raises NukeError for an unknown number, option or flag."""
    words = list_items(text)
    if not words[0].isdigit() or int(words[0]) not in USER_KNOB_KINDS:
        raise NukeError(f"this Nuke does not know addUserKnob {words[0]}")
    name = words[1] if len(words) > 1 else ""
    options: dict[str, str] = {}
    flags = set[str]()
    rest = iter(words[2:])
    for word in rest:
        if word[0] in "+-" and word[1:] in FLAGS:
            if word[0] == "+":
                flags.add(word[1:])
        elif word in OPTIONS:
            options[word] = " ".join((next(rest, ""), next(rest, ""))) if word == "R" else next(rest, "")
        else:
            raise NukeError(f"addUserKnob {name}: this Nuke does not know {word!r}")
    return UserKnob(USER_KNOB_KINDS[int(words[0])], name, options, frozenset(flags), text)


def input_count(node: NodeText) -> int:
    """How many inputs a node takes off the stack: its `inputs` line (`1+1` counts a mask), else one."""
    text = node.value("inputs", "1")
    parts = text.split("+")
    if not all(part.isdigit() for part in parts):
        raise NukeError(f"{node.kind}: inputs {text!r}")
    return sum(map(int, parts))


def _stack_change(command: StackCommand, named: set[str], depth: int) -> int:
    if command.word == "set":
        if depth == 0 and command.argument != "cut_paste_input":
            raise NukeError(f"set {command.argument}: the stack is empty")
        named.add(command.argument)
    elif command.word == "push":
        if command.argument != "0" and command.argument[1:] not in named:
            raise NukeError(f"push {command.argument}: no such name")
        return 1
    return 0


def check_stack(tree: list[Command], depth: int = 0) -> None:
    """Raise NukeError where a node takes more off the stack than stands there, or a name is pushed that is not set."""
    named: set[str] = set()
    for command in tree:
        if isinstance(command, StackCommand):
            depth += _stack_change(command, named, depth)
            continue
        if command.kind == "Gizmo" and len(tree) > 1:
            raise NukeError("a Gizmo stands alone in its file")
        if command.kind == "Root":
            continue
        taken = 0 if command.kind == "Gizmo" else input_count(command)
        if taken > depth:
            raise NukeError(f"{command.kind} {command.value('name')}: the stack holds {depth} nodes, not {taken}")
        depth += 1 - taken
        if command.children is not None:
            check_stack(command.children)
