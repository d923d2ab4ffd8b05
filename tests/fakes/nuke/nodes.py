"""Nodes and groups of nodes as Python sees them in Nuke.

It owns names, connections and the life of a node: what is deleted answers nothing. It must not know script text
(`loader`, `saver`) nor pixels; both are reached through the running Nuke.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tests.fakes.nuke import tables
from tests.fakes.nuke.errors import NukeError
from tests.fakes.nuke.knobs import Knob, Spec

if TYPE_CHECKING:
    from tests.fakes.nuke.running import Running
    from tests.fakes.nuke.script import NodeText, UserKnob

NAME = re.compile(r"[A-Za-z_]\w*")


class Format:
    """A format as `Node.format()` gives it."""

    def __init__(self, width: int, height: int) -> None:
        self._size = (width, height)

    def width(self) -> int:
        return self._size[0]

    def height(self) -> int:
        return self._size[1]

    def pixelAspect(self) -> float:
        return 1.0


class Box:
    """A bounding box as `Node.bbox()` gives it: x and y of the lower left corner, width and height."""

    def __init__(self, x: int, y: int, width: int, height: int) -> None:
        self._box = (x, y, width, height)

    def x(self) -> int:
        return self._box[0]

    def y(self) -> int:
        return self._box[1]

    def w(self) -> int:
        return self._box[2]

    def h(self) -> int:
        return self._box[3]


class Node:
    """One node. A method of a deleted node raises ValueError, as do those of its knobs."""

    def __init__(self, nuke: Running, kind: str, group: Node | None, like: str | None = None) -> None:
        self._nuke, self._kind, self._group = nuke, kind, group
        self._dead = False
        self._inputs: list[Node | None] = []
        self._children: dict[str, Node] = {}
        self._user_lines: list[UserKnob] = []
        self._most_inputs = tables.most_inputs(kind)
        self._knobs: dict[str, Knob] = {spec.name: Knob(self, spec) for spec in tables.specs(like or kind)}
        for name, script in nuke.knob_defaults.get(kind, {}).items():
            self._knobs[name]._load(script)
            self._knobs[name]._saved_default = self._knobs[name]._script()

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_"):
            object.__getattribute__(self, "_alive")()
        return object.__getattribute__(self, name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise NukeError(f"this Nuke does not know Node.{name}")

    def __getitem__(self, name: str) -> Knob:
        self._alive()
        knob = self.knob(name)
        if knob is None:
            raise NameError(f"knob {name} does not exist")
        return knob

    def __repr__(self) -> str:
        return f"<{self._kind} {'deleted' if self._dead else self._path()}>"

    # What a node says.

    def name(self) -> str:
        return self._knobs["name"]._state

    def fullName(self) -> str:
        return self._path()

    def Class(self) -> str:
        return self._kind

    def knobs(self) -> dict[str, Knob]:
        return {name: knob for name, knob in self._knobs.items() if self.knob(name) is not None}

    def knob(self, name: str) -> Knob | None:
        if self._kind == "Write" and name in tables.EXR_ONLY and self._knobs["file_type"]._state != "exr":
            return None
        return self._knobs.get(name)

    def input(self, index: int) -> Node | None:
        return self._inputs[index] if 0 <= index < len(self._inputs) else None

    def inputs(self) -> int:
        return max((index + 1 for index, node in enumerate(self._inputs) if node is not None), default=0)

    def maxInputs(self) -> int:
        return self._most_inputs

    def dependencies(self) -> list[Node]:
        return list(dict.fromkeys(node for node in self._inputs if node is not None))

    def xpos(self) -> int:
        return self["xpos"].value()

    def ypos(self) -> int:
        return self["ypos"].value()

    def metadata(self, key: str | None = None, time: float | None = None) -> Any:
        found = self._nuke._metadata(self, self._nuke._now() if time is None else time)
        return dict(found) if key is None else found.get(key)

    def format(self) -> Format:
        return Format(*self._nuke._size(self)[0])

    def bbox(self) -> Box:
        return Box(*self._nuke._size(self)[1])

    def width(self) -> int:
        return self.format().width()

    def height(self) -> int:
        return self.format().height()

    def writeKnobs(self, flags: int = 0) -> str:
        return self._nuke._write_knobs(self, flags)

    # What changes a node.

    def setInput(self, index: int, node: Node | None) -> bool:
        self._nuke._on_main_thread(f"{self._path()}.setInput")
        if not 0 <= index < self._most_inputs:
            return False
        if node is not None and (node._alive() or node._group is not self._group):
            raise NukeError(f"{node._path()} is in another group than {self._path()}")
        self._inputs += [None] * (index + 1 - len(self._inputs))
        before, self._inputs[index] = self._inputs[index], node
        if before is not node:
            self._nuke._modified = True
            self._nuke.Undo._note(f"{self._path()}.setInput")
            self._nuke._run_knob_changed(self, Knob(self, Spec("inputChange", "text")))
        return True

    def setSelected(self, selected: bool) -> None:
        self._nuke._on_main_thread(f"{self._path()}.setSelected")
        self._knobs["selected"]._load("true" if selected else "false")

    def setName(self, name: str, uncollide: bool = True) -> None:
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name for a node")
        if not uncollide:
            raise NukeError("this Nuke knows only setName(…, uncollide=True)")
        self["name"].setValue(name)

    def setXYpos(self, x: int, y: int) -> None:
        self["xpos"].setValue(x)
        self["ypos"].setValue(y)

    # Inside.

    def _alive(self) -> None:
        if object.__getattribute__(self, "_dead"):
            raise ValueError("A PythonObject is not attached to a node")

    def _path(self) -> str:
        name = self._knobs["name"]._state
        if self._group is None or self._group._group is None:
            return name
        return f"{self._group._path()}.{name}"

    def _load_name(self, wanted: str) -> None:
        """Join the group under this name, or the next that is free."""
        assert self._group is not None
        siblings = self._group._children
        for name in [name for name, node in siblings.items() if node is self]:
            del siblings[name]
        name = wanted
        if name in siblings:
            base = wanted.rstrip("0123456789")
            name = next(
                f"{base}{number}" for number in range(1, len(siblings) + 2) if f"{base}{number}" not in siblings
            )
        self._knobs["name"]._load(name)
        siblings[name] = self

    def _die(self) -> None:
        for child in list(self._children.values()):
            child._die()
        self._dead = True

    def _everyone(self) -> list[Node]:
        """The nodes inside, and those inside them."""
        return [found for child in self._children.values() for found in (child, *child._everyone())]


class Group(Node):
    """A node with nodes inside that a script saves whole."""

    def node(self, name: str) -> Node | None:
        first, _, rest = name.partition(".")
        found = self._children.get(first)
        return found if found is None or not rest else found.node(rest)

    def nodes(self) -> list[Node]:
        return list(self._children.values())

    def begin(self) -> Group:
        self._nuke._context.append(self)
        return self

    def end(self) -> None:
        if self._nuke._context.pop() is not self:
            raise NukeError(f"{self._path()}.end() without its begin()")

    def __enter__(self) -> Group:
        return self.begin()

    def __exit__(self, *_: object) -> None:
        self.end()


class Gizmo(Group):
    """A node of a .gizmo file: scripts keep its class and its own changed knobs, never what is inside."""

    _definition: NodeText

    def makeGroup(self) -> Group:
        """A Group with the same knobs and the same nodes inside, beside this node and not connected."""
        return self._nuke._make_group(self)


class Root(Group):
    """The script itself."""

    def name(self) -> str:
        return self._knobs["name"]._state or "Root"

    def fullName(self) -> str:
        return "root"

    def modified(self) -> bool:
        return self._nuke._modified

    def setModified(self, modified: bool) -> None:
        self._nuke._on_main_thread("setModified")
        if not isinstance(modified, bool):
            raise TypeError("setModified takes a bool")
        self._nuke._modified = modified
