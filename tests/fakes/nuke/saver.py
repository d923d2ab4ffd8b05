"""Writes nodes as script text: what Nuke saves, copies, and puts into its undo.

It owns which values are kept: changed ones without DO_NOT_WRITE; of a gizmo its own knobs only. It must not know
pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.fakes.nuke.knobs import Knob
from tests.fakes.nuke.nodes import Gizmo, Group, Node
from tests.fakes.nuke.tables import NOT_SAVED
from tests.fakes.nuke.tcl import quote

TO_SCRIPT, WRITE_NON_DEFAULT_ONLY = 1, 4


def write_knobs(node: Node, flags: int) -> str:
    """What Node.writeKnobs gives: a line a knob, with its value where TO_SCRIPT is on, name and place among them."""
    knobs = [knob for knob in node.knobs().values() if "DO_NOT_WRITE" not in knob._spec.flags]
    if flags & WRITE_NON_DEFAULT_ONLY:
        knobs = [knob for knob in knobs if knob._script() != knob._saved_default]
    return "\n".join(f"{knob.name()} {knob._word()}" if flags & TO_SCRIPT else knob.name() for knob in knobs)


def saved_knobs(node: Node) -> list[Knob]:
    """The knobs whose values a script keeps."""
    return [
        knob
        for knob in node._knobs.values()
        if knob.name() not in NOT_SAVED
        and "DO_NOT_WRITE" not in knob._spec.flags
        and knob._script() != knob._saved_default
    ]


def script_text(root: Node, layers: dict[str, list[str]]) -> str:
    """A whole script."""
    lines = ["version 17.0 v3", "Root {", " inputs 0"]
    if root._knobs["name"]._state:
        lines.append(f" name {quote(root._knobs['name']._state)}")
    lines += [f" {knob.name()} {knob._word()}" for knob in saved_knobs(root)]
    lines.append("}")
    lines += [f"add_layer {{{' '.join([layer, *channels])}}}" for layer, channels in layers.items()]
    return "\n".join(lines + nodes_lines(list(root._children.values()))) + "\n"


def copy_text(nodes: Sequence[Node]) -> str:
    """Some nodes of one group, with the connections among them; the first open input 0 is left for a paste to fill."""
    lines = ["set cut_paste_input [stack 0]", "version 17.0 v3", *nodes_lines(nodes, pasting=True)]
    return "\n".join(lines) + "\n"


def nodes_lines(nodes: Sequence[Node], *, pasting: bool = False, indent: str = "") -> list[str]:
    """Nodes of one group in an order in which each comes after its inputs."""
    lines: list[str] = []
    names: dict[Node, str] = {}
    open_input = pasting
    for node in _ordered(nodes):
        for index in reversed(range(node.inputs())):
            source = node.input(index)
            if source in names:
                lines.append(f"{indent}push ${names[source]}")
            elif source is not None and index == 0 and open_input:
                lines.append(f"{indent}push $cut_paste_input")
                open_input = False
            else:
                lines.append(f"{indent}push 0")
        lines += _node_lines(node, indent)
        names[node] = f"N{len(names) + 1}"
        lines.append(f"{indent}set {names[node]} [stack 0]")
    return lines


def _ordered(nodes: Sequence[Node]) -> list[Node]:
    found: dict[Node, None] = {}

    def visit(node: Node) -> None:
        if node in found or node not in nodes:
            return
        for source in node._inputs:
            if source is not None:
                visit(source)
        found[node] = None

    for node in nodes:
        visit(node)
    return list(found)


def _node_lines(node: Node, indent: str) -> list[str]:
    lines = [
        f"{indent}{node._kind} {{",
        f"{indent} inputs {node.inputs()}",
        f"{indent} name {node._knobs['name']._state}",
    ]
    whole = isinstance(node, Group) and not isinstance(node, Gizmo)
    if whole:
        lines += [f"{indent} addUserKnob {{{line.text}}}" for line in node._user_lines]
    lines += [f"{indent} {knob.name()} {knob._word()}" for knob in saved_knobs(node)]
    lines.append(f"{indent}}}")
    if whole:
        lines += nodes_lines(list(node._children.values()), indent=indent + " ")
        lines.append(f"{indent}end_group")
    return lines
