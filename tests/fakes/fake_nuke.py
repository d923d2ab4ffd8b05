"""A small, strict Nuke: loads the gizmos that we ship, runs their graphs far enough to write real EXRs.

It owns the few node classes, knobs and API calls that nuke_hdrgen uses; anything else raises. It must not be kinder
than Nuke: a child's knobs are not saved, a disabled Write does not execute, and execution does not nest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import OpenEXR

BOOL, INT, DOUBLE, TEXT, FILE, SCRIPT = "bool", "int", "double", "text", "file", "script"
BLACK = ("hold", "loop", "bounce", "black")
COMMON = {"name": TEXT, "inputs": INT, "xpos": INT, "ypos": INT, "disable": BOOL}
CLASSES: dict[str, dict[str, str | tuple[str, ...]]] = {
    "Plate": {},  # a test's picture; the one class that Nuke does not have
    "Input": {"number": INT},
    "Output": {},
    "Switch": {"which": DOUBLE},
    "Read": {
        "file": FILE, "file_type": (" ", "exr"), "first": INT, "last": INT, "before": BLACK, "after": BLACK,
        "on_error": ("error", "black", "checkerboard", "nearest frame"), "raw": BOOL, "premultiplied": BOOL,
        "auto_alpha": BOOL, "localizationPolicy": ("on", "fromAutoLocalizePath", "onDemand", "off"),
    },
    "Write": {
        "file": FILE, "file_type": (" ", "exr"), "datatype": ("16 bit half", "32 bit float"),
        "compression": ("none", "Zip (1 scanline)", "Zip (16 scanlines)"), "autocrop": BOOL, "raw": BOOL,
        "interleave": ("channels, layers and views", "channels and layers", "channels"), "channels": ("rgb", "rgba"),
        "metadata": ("no metadata", "default metadata", "all metadata"), "premultiplied": BOOL,
        "create_directories": BOOL, "checkHashOnRead": BOOL, "render_order": INT, "use_limit": BOOL,
    },
}  # fmt: skip
USER_KNOBS = {1: TEXT, 2: FILE, 3: INT, 6: BOOL, 7: DOUBLE, 22: SCRIPT}
PARENT_VALUE = re.compile(r"\[value parent\.(\w+)\]")
BAKING = {"file_type": "exr", "datatype": "32 bit float", "compression": "none", "raw": True}


class NukeError(Exception):
    """What this Nuke does not know; real Nuke might, so nothing may catch it."""


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a Tcl text: braces nest and are taken off, quotes may hide only escaped brackets."""
    words: list[str] = []
    at = 0
    while at < len(text):
        if text[at] == "\n":
            if words:
                yield words
            words, at = [], at + 1
        elif text[at].isspace():
            at += 1
        else:
            word, at = _word(text, at)
            words.append(word)
    if words:
        yield words


def _word(text: str, at: int) -> tuple[str, int]:
    if text[at] == "{":
        depth, end = 0, at
        while end < len(text):
            depth += (text[end] == "{") - (text[end] == "}")
            end += 1
            if depth == 0:
                return text[at + 1 : end - 1], end
        raise NukeError(f"unbalanced brace in {text[at : at + 40]!r}")
    match = re.compile(r'"((?:[^"\\]|\\.)*)"|(\[stack 0\]|[^\s"{}\[\];]+)').match(text, at)
    if match is None or re.search(r"(?<!\\)[\[$]", match[1] or ""):
        raise NukeError(f"Tcl would evaluate or refuse {text[at : at + 40]!r}")
    return (match[2] if match[1] is None else re.sub(r"\\(.)", r"\1", match[1])), match.end()


@dataclass
class Knob:
    owner: Node
    name: str
    kind: str | tuple[str, ...]
    script: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.kind, tuple) and self.script not in self.kind and self.script:
            raise NukeError(f"{self.name} has no item {self.script!r}")
        self.default = self.script

    def value(self):
        text = self.script
        if text.startswith("{"):
            text = self.owner.link(text[1:-1]).script
        if self.kind == BOOL:
            return {"true": True, "false": False, "": False}[text]
        if self.kind in {INT, DOUBLE}:
            number = {"true": 1.0, "false": 0.0}[text] if text in {"true", "false"} else float(text or 0)
            return int(number) if self.kind == INT else number
        return text

    def setValue(self, value) -> bool:
        wanted = {BOOL: bool, INT: int, DOUBLE: float}.get(self.kind, str) if isinstance(self.kind, str) else str
        if type(value) is not wanted:
            raise TypeError(f"{self.name} takes {wanted.__name__}, got {value!r}")
        Knob(self.owner, self.name, self.kind, str(value))
        self.script = str(value).lower() if wanted is bool else str(value)
        return True

    def toScript(self) -> str:
        return self.script

    def evaluate(self) -> str:
        return PARENT_VALUE.sub(lambda found: self.owner.link(f"parent.{found[1]}").script, self.script)


class Node:
    def __init__(self, kind: str, parent: Node | None = None, *, shipped: bool = False) -> None:
        if kind not in CLASSES and not shipped:
            raise NukeError(f"no node class {kind!r}")
        self._kind, self._parent = kind, parent
        self._inputs: list[Node | None] = []
        self._children: dict[str, Node] = {}
        self._knobs = {n: Knob(self, n, k) for n, k in {**COMMON, **CLASSES.get(kind, {})}.items()}
        self._picture: np.ndarray | None = None

    def __getitem__(self, name: str) -> Knob:
        if name not in self._knobs:
            raise NameError(f"knob {name} does not exist")
        return self._knobs[name]

    def fullName(self) -> str:
        name = self["name"].script
        return f"{self._parent.fullName()}.{name}" if self._parent else name

    def input(self, index: int) -> Node | None:
        return self._inputs[index] if index < len(self._inputs) else None

    def setInput(self, index: int, node: Node | None) -> bool:
        self._inputs += [None] * (index + 1 - len(self._inputs))
        self._inputs[index] = node
        return True

    def node(self, name: str) -> Node | None:
        return self._children.get(name)

    def link(self, text: str) -> Knob:
        if not text.startswith("parent.") or self._parent is None:
            raise NukeError(f"expression {text!r} is none that this Nuke knows")
        return self._parent[text.removeprefix("parent.")]

    def add_user_knob(self, words: Sequence[str]) -> None:
        number, name = int(words[0]), words[1]
        if number in {20, 26}:
            return
        options = dict(zip(words[2::2], words[3::2], strict=False))
        if number == 4:
            self._knobs[name] = Knob(self, name, tuple(options["M"].split()), options["M"].split()[0])
        elif number in USER_KNOBS:
            self._knobs[name] = Knob(self, name, USER_KNOBS[number], options.get("T", ""))
        else:
            raise NukeError(f"no user knob of type {number}")

    def set_knobs(self, body: str) -> None:
        for words in commands(body):
            if words[0] == "addUserKnob":
                self.add_user_knob(list(*commands(words[1])))
                continue
            name, script = words
            knob = self[name]
            self._knobs[name] = Knob(self, name, knob.kind, script)


def pixels(node: Node | None, frame: int) -> np.ndarray:
    """What flows out of a node: scene_linear_hwc float32 RGBA."""
    if node is None:
        raise RuntimeError("no input")
    if node._picture is not None:
        return node._picture
    if node._kind == "Read":
        return _read(node, frame)
    if node._kind == "Input":
        return pixels(node._parent.input(node["number"].value()), frame)
    if node._kind == "Switch":
        return pixels(node.input(int(node["which"].value())), frame)
    if node._children:
        (output,) = (child for child in node._children.values() if child._kind == "Output")
        return pixels(output, frame)
    return pixels(node.input(0), frame)


def _read(node: Node, frame: int) -> np.ndarray:
    path = Path(node["file"].evaluate().replace("####", f"{frame:04d}"))
    if not node["first"].value() <= frame <= node["last"].value():
        raise NukeError(f"frame {frame} is outside the Read's range; a test means another one")
    if not path.is_file():
        raise RuntimeError(f"{node.fullName()}: {path}: No such file or directory")
    with OpenEXR.File(str(path)) as file:
        return np.array(next(iter(file.channels().values())).pixels)


class FakeNuke(ModuleType):
    """One running Nuke without a GUI; put it in sys.modules as `nuke`."""

    GUI = False

    def __init__(self) -> None:
        super().__init__("nuke")
        self._folders: list[Path] = []
        self._nodes: dict[str, Node] = {}
        self._this: Node | None = None
        self._executing = False
        self._frame = 1
        self._executed: list[str] = []

    def pluginAddPath(self, path: str) -> None:
        self._folders.insert(0, Path(path).resolve(strict=True))

    def frame(self) -> int:
        return self._frame

    def thisNode(self) -> Node | None:
        return self._this

    def toNode(self, name: str) -> Node | None:
        return self._nodes.get(name)

    def createNode(self, kind: str) -> Node:
        node = self._make(kind, None)
        node["name"].setValue(f"{kind}{len(self._nodes) + 1}")
        self._nodes[node["name"].script] = node
        return node

    def execute(self, node: Node, start: int, end: int) -> None:
        if self._executing:
            raise RuntimeError("I'm already executing something else")
        if node._kind != "Write" or node["disable"].value():
            raise RuntimeError(f"{node.fullName()} is not an enabled Write")
        wrong = {name: node[name].value() for name, wanted in BAKING.items() if node[name].value() != wanted}
        if wrong or start != end:
            raise NukeError(f"this Nuke writes one raw, uncompressed float EXR, not {wrong or (start, end)}")
        path = Path(node["file"].evaluate())
        if node["create_directories"].value():
            path.parent.mkdir(parents=True, exist_ok=True)
        self._executing = True
        try:
            header = {"compression": OpenEXR.NO_COMPRESSION, "type": OpenEXR.scanlineimage}
            OpenEXR.File(header, {"RGBA": pixels(node.input(0), start)}).write(str(path))
            self._executed.append(node.fullName())
        finally:
            self._executing = False

    def _make(self, kind: str, parent: Node | None) -> Node:
        if kind in CLASSES:
            return Node(kind, parent)
        for folder in self._folders:
            path = folder / f"{kind}.gizmo"
            if path.is_file():
                return self._gizmo(kind, path.read_text(encoding="utf-8"))
        raise NukeError(f"no node class and no gizmo {kind!r}")

    def _gizmo(self, kind: str, text: str) -> Node:
        (_, body), *rest = commands(text)
        gizmo = Node(kind, shipped=True)
        gizmo.set_knobs(body)
        if rest.pop() != ["end_group"]:
            raise NukeError("a gizmo ends with end_group")
        self._load(rest, gizmo, gizmo._children)
        return gizmo

    def _load(self, lines: Sequence[list[str]], parent: Node | None, nodes: dict[str, Node]) -> None:
        stack: list[Node | None] = []
        named: dict[str, Node | None] = {}
        for words in lines:
            if words[0] == "set" and words[2] == "[stack 0]":
                named[words[1]] = stack[-1]
            elif words[0] == "push":
                stack.append(named[words[1].removeprefix("$")] if words[1] != "0" else None)
            else:
                node = self._make(words[0], parent)
                node._knobs["inputs"].script = "1"
                node.set_knobs(words[1])
                for index in range(node["inputs"].value()):
                    node.setInput(index, stack.pop())
                nodes[node["name"].script] = node
                stack.append(node)


def load_script(nuke: FakeNuke, text: str) -> None:
    """Load the text of an .nk."""
    nuke._load(list(commands(text)), None, nuke._nodes)


def save_gizmo(node: Node) -> str:
    """What a script keeps of a gizmo: its class and its own changed knobs."""
    changed = [f' {k.name} "{k.script}"' for k in node._knobs.values() if k.script != k.default and k.name != "inputs"]
    return "\n".join((f"{node._kind} {{", " inputs 0", *changed, "}\n"))


def plate(scene_linear_hwc: np.ndarray) -> Node:
    """A node whose output is this RGBA picture."""
    node = Node("Plate")
    node._picture = scene_linear_hwc
    return node


@contextmanager
def _this(nuke: FakeNuke, node: Node) -> Iterator[None]:
    nuke._this = node
    try:
        yield
    finally:
        nuke._this = None


def press(nuke: FakeNuke, node: Node, name: str) -> None:
    """Press a PyScript button."""
    knob = node[name]
    if knob.kind != SCRIPT:
        raise NukeError(f"{name} is no button")
    with _this(nuke, node):
        exec(compile(knob.script, name, "exec"), {"nuke": nuke})
