"""Builds nodes from the tree of a script: what Nuke does when it opens, pastes, or creates a node.

It owns the stack, the order of steps (knobs, inputs, nodes inside, onCreate, inputChange) and finding gizmos. It must
not know pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.fakes.nuke import tables
from tests.fakes.nuke.errors import NukeError
from tests.fakes.nuke.knobs import Knob, Spec
from tests.fakes.nuke.nodes import Gizmo, Group, Node
from tests.fakes.nuke.script import Command, NodeText, StackCommand, UserKnob, input_count, parse

if TYPE_CHECKING:
    from tests.fakes.nuke.running import Running


def load(nuke: Running, tree: Sequence[Command], group: Node, selected: Node | None = None) -> list[Node]:
    """Add what a script holds to a group; the new nodes in their order. `selected` is what a paste connects to."""
    stack: list[Node | None] = []
    named: dict[str, Node | None] = {}
    made: list[Node] = []
    for command in tree:
        if isinstance(command, NodeText):
            if command.kind == "Root":
                fill(nuke._root, command)
                continue
            node = make(nuke, command.kind, group, command)
            connect(node, [stack.pop() for _ in range(input_count(command))])
            announce(nuke, node)
            stack.append(node)
            made.append(node)
        else:
            _stack_command(nuke, command, stack, named, selected)
    return made


def _stack_command(
    nuke: Running,
    command: StackCommand,
    stack: list[Node | None],
    named: dict[str, Node | None],
    selected: Node | None,
) -> None:
    if command.word == "set":
        named[command.argument] = stack[-1] if stack else selected
    elif command.word == "push":
        stack.append(None if command.argument == "0" else named[command.argument[1:]])
    elif command.word == "add_layer":
        layer, *channels = command.argument.split()
        nuke._layers.setdefault(layer, []).extend(c for c in channels if c not in nuke._layers.get(layer, []))


def make(nuke: Running, kind: str, group: Node, text: NodeText | None = None) -> Node:
    """A node with its knobs set and the nodes inside it, not connected and not announced.

    Raises RuntimeError where the class is unknown and no gizmo of that name stands on the plugin path.
    """
    if isinstance(group, Gizmo) and nuke._building != group:
        raise NukeError(f"{group._path()} is a gizmo: nodes cannot be added to it")
    if kind == "Group":
        node: Node = Group(nuke, "Group", group)
    elif tables.is_class(kind):
        node = Node(nuke, kind, group)
    else:
        node = _gizmo(nuke, kind, group)
    wanted = text.value("name") if text is not None else ""
    node._load_name(wanted or f"{kind}1")
    if text is not None:
        fill(node, text)
        if kind == "Group":
            node._most_inputs = sum(isinstance(c, NodeText) and c.kind == "Input" for c in text.children or [])
            _inside(nuke, node, text)
    return node


def _gizmo(nuke: Running, kind: str, group: Node) -> Gizmo:
    path = nuke._find_plugin(f"{kind}.gizmo")
    if path is None:
        raise RuntimeError(f"{kind}: Unknown command")
    tree = [command for command in parse(path.read_text(encoding="utf-8")) if command != StackCommand("version", "")]
    definitions = [command for command in tree if isinstance(command, NodeText)]
    if len(definitions) != 1 or definitions[0].kind not in {"Gizmo", "Group"}:
        raise NukeError(f"{path} holds no gizmo")
    node = Gizmo(nuke, kind, group, like="Group")
    node._definition = definitions[0]
    node._most_inputs = input_count(definitions[0])
    for command in tree:
        if isinstance(command, StackCommand) and command.word == "add_layer":
            _stack_command(nuke, command, [], {}, None)
    fill(node, definitions[0])
    for knob in node._knobs.values():
        knob._saved_default = knob._script()
    _inside(nuke, node, definitions[0])
    numbers = sorted(child["number"].value() for child in node._children.values() if child._kind == "Input")
    if numbers != list(range(node._most_inputs)):
        raise NukeError(f"{path}: its Inputs are numbered {numbers}, and it takes {node._most_inputs}")
    return node


def _inside(nuke: Running, node: Node, text: NodeText) -> None:
    before, nuke._building = nuke._building, node
    try:
        load(nuke, text.children or [], node)
    finally:
        nuke._building = before
    outputs = [child for child in node._children.values() if child._kind == "Output"]
    if len(outputs) > 1:
        raise NukeError(f"{node._kind} has {len(outputs)} Outputs")


def fill(node: Node, text: NodeText) -> None:
    """Set knobs from their lines. Raises NukeError for a knob that the class does not have."""
    for line in text.lines:
        if isinstance(line, UserKnob):
            if not isinstance(node, Group) or (isinstance(node, Gizmo) and text is not node._definition):
                raise NukeError(f"{node._kind} takes no addUserKnob {line.name} here")
            node._user_lines.append(line)
            if line.name in node._knobs:
                raise NukeError(f"{node._kind} has two knobs {line.name!r}")
            if line.name:
                node._knobs[line.name] = Knob(node, tables.user_spec(line))
            continue
        name, word = line
        if name == "inputs" or (name == "name" and node._group is not None):
            continue
        knob = node.knob(name)
        if knob is None:
            raise NukeError(f"{node._kind} has no knob {name!r} here")
        knob._load(word)


def connect(node: Node, inputs: Sequence[Node | None]) -> None:
    """Give a node its inputs. Raises NukeError for more than its class takes."""
    if len(inputs) > node._most_inputs:
        raise NukeError(f"{node._path()} takes {node._most_inputs} inputs, not {len(inputs)}")
    node._inputs = list(inputs)


def announce(nuke: Running, node: Node) -> None:
    """Run a new node's onCreate, then its inputChange where something is connected."""
    nuke._run_hook(node, "onCreate", None)
    if not node._dead and node.inputs():
        nuke._run_knob_changed(node, pseudo_knob(node, "inputChange"))


def pseudo_knob(node: Node, name: str) -> Knob:
    """What thisKnob() is when no knob changed: `inputChange` or `showPanel`."""
    return Knob(node, Spec(name, "text"))
