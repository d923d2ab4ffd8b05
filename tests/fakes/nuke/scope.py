"""What names mean in an expression on a knob: own knobs, `parent.`, `root.`, `this.`, siblings, `frame` and `$gui`.

It owns the lookup and nothing else. It must not know pictures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.fakes.nuke.errors import NukeError

if TYPE_CHECKING:
    from tests.fakes.nuke.expressions import Names
    from tests.fakes.nuke.knobs import Knob
    from tests.fakes.nuke.nodes import Node


def knob(node: Node, path: str) -> Knob:
    """The knob that `path` means on this node. Raises NukeError when there is none."""
    *steps, name = path.split(".")
    at = node
    for step in steps:
        at = _step(at, step, path)
    found = at._knobs.get(name)
    if found is None:
        raise NukeError(f"{node._path()}: {path!r} is no knob")
    return found


def _step(node: Node, step: str, path: str) -> Node:
    if step == "this":
        return node
    if step == "root":
        return node._nuke.root()
    if step == "parent":
        if node._group is None:
            raise NukeError(f"{node._path()}: {path!r} leaves the root")
        return node._group
    group = node if step in node._children else node._group
    if group is None or step not in group._children:
        raise NukeError(f"{node._path()}: no node {step!r} for {path!r}")
    return group._children[step]


def names(node: Node, frame: float) -> Names:
    """The names of an expression on this node at a frame."""

    def name(path: str, at: float | None) -> float:
        if at is None and path == "frame":
            return float(frame)
        if at is None and path == "$gui":
            return float(node._nuke.GUI)
        value = knob(node, path).getValueAt(frame if at is None else at)
        if not isinstance(value, (int, float)):
            raise NukeError(f"{node._path()}: {path!r} is {value!r}, no number")
        return float(value)

    return name
