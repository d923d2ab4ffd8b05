"""The module that Python code imports as `nuke`, and a test's handles on it.

It owns the running state: script, groups, callbacks, the frame. It knows exactly the API that nuke_hdrgen may use; any
other name raises NukeError. Lower-case names below the line "a test's handles" are no part of Nuke.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.fakes.nuke import loader, plain_plates, render, saver
from tests.fakes.nuke.errors import NukeError
from tests.fakes.nuke.events import MainThread
from tests.fakes.nuke.knobs import Knob
from tests.fakes.nuke.nodes import Gizmo, Group, Node, Root
from tests.fakes.nuke.script import Command, NodeText, parse
from tests.fakes.nuke.tcl import list_items
from tests.fakes.nuke.widgets import Environment, Menu, ProgressRecord, ProgressTask, Undo

VERSION = (17, 0, 3)
LAYERS = {"rgba": ["rgba.red", "rgba.green", "rgba.blue", "rgba.alpha"], "depth": ["depth.Z"]}


class FakeNuke(ModuleType):
    """One running Nuke. `gui` starts it with windows; `assist` and `nc` are editions that render less."""

    def __init__(self, *, gui: bool = False, assist: bool = False, nc: bool = False, indie: bool = False) -> None:
        super().__init__("nuke")
        self.GUI = gui
        self.NUKE_VERSION_MAJOR = VERSION[0]
        self.NUKE_VERSION_STRING = f"{VERSION[0]}.{VERSION[1]}v{VERSION[2]}"
        self.TO_SCRIPT, self.WRITE_NON_DEFAULT_ONLY = saver.TO_SCRIPT, saver.WRITE_NON_DEFAULT_ONLY
        self.rawArgs: list[str] = ["nuke"]
        self.env = Environment({"gui": gui, "nc": nc, "assist": assist, "indie": indie, "NukeVersionMajor": VERSION[0]})
        self.Undo = Undo()
        self.executed: list[tuple[str, int, str]] = []
        self.messages: list[str] = []
        self.answers: list[bool] = []
        self.said: list[str] = []
        self.progress: list[ProgressRecord] = []
        self.plates: dict[str, Any] = {}
        self.cancel_when: Callable[[Node, int], bool] = lambda node, frame: False
        self.before_frame: Callable[[Node, int, str, Path], object] = lambda node, frame, view, path: None
        self.write_frame: Callable[[Node, int, Path], object] = self._write_frame
        self._main = MainThread()
        self._folders: list[Path] = []
        self._callbacks: dict[str, list[Any]] = {name: [] for name in (*render.EVENTS, "onScriptSave", "onScriptLoad")}
        self._menus: dict[str, Menu] = {}
        self._clipboard = ""
        self._running_file: Path | None = None
        self._clear()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise NukeError(f"this Nuke does not know nuke.{name}")

    # The script and its nodes.

    def root(self) -> Root:
        return self._root

    def frame(self, number: int | None = None) -> int:
        if number is not None:
            self._main.check("nuke.frame")
            self._root["frame"]._load(str(number))
        return int(self._now())

    def views(self) -> list[str]:
        return [line.split()[0] for line in self._root._knobs["views"]._state.splitlines() if line.strip()]

    def thisView(self) -> str:
        return self._view()

    def thisNode(self) -> Node | None:
        return self._this[-1][0] if self._this else self._context[-1]

    def thisKnob(self) -> Knob | None:
        return self._this[-1][1] if self._this else None

    def thisGroup(self) -> Node:
        return self._context[-1]

    def toNode(self, name: str) -> Node | None:
        if name == "root":
            return self._root
        for group in dict.fromkeys((self._context[-1], self._root)):
            node: Node | None = group
            for part in name.split("."):
                node = node._children.get(part) if node is not None else None
            if node is not None:
                return node
        return None

    def allNodes(self, filter: str | None = None, group: Node | None = None, recurseGroups: bool = False) -> list[Node]:  # noqa: A002
        at = group or self._context[-1]
        nodes = at._everyone() if recurseGroups else list(at._children.values())
        return [node for node in nodes if not filter or filter == node._kind]

    def selectedNodes(self) -> list[Node]:
        return [node for node in self._context[-1]._children.values() if node._knobs["selected"].value()]

    def createNode(self, node_class: str, knobs: str = "", inpanel: bool = True) -> Node:
        self._main.check("nuke.createNode")
        selected = self.selectedNodes()
        node = loader.make(self, node_class, self._context[-1])
        words = list_items(knobs)
        if len(words) % 2:
            raise NukeError(f"createNode: {knobs!r} is no list of names and values")
        loader.fill(node, NodeText(node_class, list(zip(words[::2], words[1::2]))))
        if selected and node._most_inputs:
            loader.connect(node, [selected[-1]])
        self._select([node])
        self._modified = True
        self.Undo._note(f"create {node._path()}")
        loader.announce(self, node)
        if self.GUI and inpanel and not node._dead:
            self._run_knob_changed(node, loader.pseudo_knob(node, "showPanel"))
        return node

    def delete(self, node: Node) -> None:
        self._main.check("nuke.delete")
        node._alive()
        if isinstance(node, Root) or isinstance(node._group, Gizmo):
            raise NukeError(f"{node._path()} cannot be deleted")
        assert node._group is not None
        users = [
            (other, index)
            for other in node._group._children.values()
            for index, source in enumerate(other._inputs)
            if source is node
        ]
        self._deleted.append((node._group, saver.copy_text([node]), list(node._inputs), users))
        for other, index in users:
            other._inputs[index] = None
        del node._group._children[node._knobs["name"]._state]
        self._run_hook(node, "onDestroy", None)
        node._die()
        self._modified = True

    def nodeCopy(self, path: str) -> None:
        text = saver.copy_text(self.selectedNodes())
        if path == "%clipboard%":
            self._clipboard = text
        else:
            Path(path).write_text(text, encoding="utf-8")

    def nodePaste(self, path: str) -> Node | None:
        self._main.check("nuke.nodePaste")
        text = self._clipboard if path == "%clipboard%" else self._script_file(path)
        selected = self.selectedNodes()
        made = self._load(parse(text), self._context[-1], selected[-1] if selected else None)
        self._select(made)
        self._modified = True
        return made[-1] if made else None

    def scriptClear(self) -> None:
        self._main.check("nuke.scriptClear")
        self._clear()

    def scriptOpen(self, path: str) -> None:
        self._main.check("nuke.scriptOpen")
        text = self._script_file(path)
        self._clear()
        self._root["name"]._load(str(path))
        self._load(parse(text))
        self._root["name"]._load(str(path))
        self._call("onScriptLoad")

    def scriptReadFile(self, path: str) -> None:
        self._main.check("nuke.scriptReadFile")
        self._load(parse(self._script_file(path)), self._context[-1])

    def scriptSave(self, path: str | None = None) -> bool:
        self._main.check("nuke.scriptSave")
        target = path or self._root._knobs["name"]._state
        if not target:
            raise RuntimeError("the script has no name")
        self._root["name"]._load(target)
        self._call("onScriptSave")
        Path(target).write_text(self.script_text(), encoding="utf-8")
        self._modified = False
        return True

    def scriptSaveAs(self, path: str, overwrite: int = -1) -> None:
        if Path(path).exists() and overwrite != 1:
            raise RuntimeError(f"{path} exists")
        self.scriptSave(path)

    # Running things.

    def execute(
        self,
        node: Node | str,
        start: int | None = None,
        end: int | None = None,
        incr: int = 1,
        views: Sequence[str] | None = None,
        continueOnError: bool = False,
    ) -> None:
        self._main.check("nuke.execute")
        found = self.toNode(node) if isinstance(node, str) else node
        if found is None:
            raise RuntimeError(f"no node {node!r}")
        first = self.frame() if start is None else start
        last = first if end is None else end
        for number in (first, last, incr):
            if type(number) is not int:
                raise TypeError(f"nuke.execute takes whole frames, not {number!r}")
        if last < first or incr < 1:
            raise NukeError(f"nuke.execute of {first} to {last} by {incr}")
        wanted = list(views or self.views())
        render.execute(self, found, range(first, last + 1, incr), wanted, continue_on_error=continueOnError)

    def executeInMainThread(
        self, call: Callable[..., object], args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> None:
        if not self.GUI:
            raise NukeError("executeInMainThread without a GUI: nothing runs the queue; call directly")
        self._main.put(call, args, kwargs)

    def ProgressTask(self, name: str) -> ProgressTask:
        record = ProgressRecord(name)
        self.progress.append(record)
        return ProgressTask(record)

    def message(self, text: str) -> None:
        self._window("nuke.message", text)
        self.messages.append(text)

    def ask(self, text: str) -> bool:
        self._window("nuke.ask", text)
        self.messages.append(text)
        if not self.answers:
            raise NukeError(f"nuke.ask({text!r}): the test gave no answer")
        return self.answers.pop(0)

    def tprint(self, *values: object) -> None:
        self._say(" ".join(map(str, values)))

    # Start-up.

    def pluginAddPath(self, path: str) -> None:
        folder = Path(path)
        if not folder.is_absolute():
            caller = sys._getframe(1).f_globals.get("__file__")
            folder = (Path(caller).parent if caller else Path.cwd()) / folder
        if not folder.is_dir():
            raise RuntimeError(f"pluginAddPath: {folder} is no folder")
        self._add_folder(folder.resolve())
        if self._running_file is not None and (folder / "init.py").is_file():
            self._run_file(folder / "init.py")

    def menu(self, name: str) -> Menu | None:
        if not self.GUI:
            raise NukeError("nuke.menu without a GUI")
        if name not in {"Nuke", "Nodes", "Node Graph", "Properties", "Animation", "Viewer", "Pane"}:
            return None
        return self._menus.setdefault(name, Menu(name))

    def addOnScriptSave(
        self, call: Callable[..., object], args: Any = (), kwargs: dict[str, Any] | None = None, nodeClass: str = "Root"
    ) -> None:
        self._add("onScriptSave", call, args, kwargs, nodeClass)

    def addOnScriptLoad(
        self, call: Callable[..., object], args: Any = (), kwargs: dict[str, Any] | None = None, nodeClass: str = "Root"
    ) -> None:
        self._add("onScriptLoad", call, args, kwargs, nodeClass)

    def addBeforeRender(
        self,
        call: Callable[..., object],
        args: Any = (),
        kwargs: dict[str, Any] | None = None,
        nodeClass: str = "Write",
    ) -> None:
        self._add("beforeRender", call, args, kwargs, nodeClass)

    def addBeforeFrameRender(
        self,
        call: Callable[..., object],
        args: Any = (),
        kwargs: dict[str, Any] | None = None,
        nodeClass: str = "Write",
    ) -> None:
        self._add("beforeFrameRender", call, args, kwargs, nodeClass)

    def addAfterRender(
        self,
        call: Callable[..., object],
        args: Any = (),
        kwargs: dict[str, Any] | None = None,
        nodeClass: str = "Write",
    ) -> None:
        self._add("afterRender", call, args, kwargs, nodeClass)

    # A test's handles.

    def start(self, folders: Sequence[Path]) -> None:
        """Start up with these folders as NUKE_PATH: the first counts most, its init.py runs last; then menu.py."""
        if sys.modules.get("nuke") is not self:
            raise NukeError("start() of a Nuke that is not sys.modules['nuke']")
        for folder in reversed(folders):
            self._add_folder(folder.resolve())
        for name in ("init.py", "menu.py") if self.GUI else ("init.py",):
            for folder in reversed(folders):
                if (folder / name).is_file():
                    self._run_file(folder / name)

    def run_events(self, until: Callable[[], object], timeout: float = 30.0) -> None:
        """Be Nuke's event loop until a condition holds."""
        self._main.run(until, timeout)

    def main_thread(self) -> MainThread:
        """The main thread's record."""
        return self._main

    def script_text(self) -> str:
        """The script as it would be saved."""
        return saver.script_text(self._root, {k: v for k, v in self._layers.items() if k not in LAYERS})

    def load_text(self, text: str) -> list[Node]:
        """Add the nodes of a script's text to the current group, as a paste does."""
        return self._load(parse(text), self._context[-1])

    def undo_delete(self) -> Node:
        """Undo the last delete: a new node from its script text, connected as the old one was."""
        group, text, inputs, users = self._deleted.pop()
        self._context.append(group)
        try:
            (node,) = self._load(parse(text), group)
            node._inputs = [source if source is not None and not source._dead else None for source in inputs]
        finally:
            self._context.pop()
        for other, index in users:
            if not other._dead:
                other._inputs[index] = node
        return node

    def plate(self, picture: Any, name: str = "Plate1") -> Node:
        """A node that gives an array (H, W, C), a `pixels.Picture` or a `FlatPlate`, or what a function of the frame gives."""
        node = loader.make(self, "Plate", self._context[-1])
        node._load_name(name)
        self.plates[node.name()] = picture
        node._knobs["picture"]._load(node.name())
        return node

    def pixels(self, node: Node, frame: int | None = None, view: str | None = None) -> Any:
        """What flows out of a node at a frame: a `pixels.Picture`."""
        from tests.fakes.nuke import pixels

        at = int(self._now()) if frame is None else frame
        before, self._executing = self._executing, (at, view or self._view())
        try:
            return pixels.pull(node, at)
        finally:
            self._executing = before

    def run_menu(self, path: str) -> None:
        """Choose a command of a menu, as `Nodes/HDRGen/HDRFuse`."""
        first, *rest, last = path.split("/")
        menu = self._menus[first]
        for name in rest:
            menu = menu._menus[name]
        command = menu._commands[last]
        if isinstance(command, str):
            self._run(command, path)
        else:
            command()

    # Inside.

    def _clear(self) -> None:
        for node in [] if "_root" not in self.__dict__ else self._root._everyone():
            node._dead = True
        self._root = Root(self, "Root", None)
        self._context: list[Node] = [self._root]
        self._this: list[tuple[Node, Knob | None]] = []
        self._layers = {layer: list(channels) for layer, channels in LAYERS.items()}
        self._deleted: list[Any] = []
        self._modified = False
        self._building: Node | None = None
        self._loading = 0
        self._executing: tuple[int, str] | None = None

    def _load(self, tree: Sequence[Command], group: Node | None = None, selected: Node | None = None) -> list[Node]:
        self._loading += 1
        try:
            return loader.load(self, tree, group or self._root, selected)
        finally:
            self._loading -= 1

    def _script_file(self, path: str) -> str:
        file = Path(path)
        if not file.is_file():
            raise RuntimeError(f"{path}: No such file or directory")
        return file.read_text(encoding="utf-8")

    def _now(self) -> float:
        return self._executing[0] if self._executing is not None else self._root._knobs["frame"]._numbers(0)[0]

    def _view(self) -> str:
        return self._executing[1] if self._executing is not None else self.views()[0]

    def _on_main_thread(self, what: str) -> None:
        self._main.check(what)

    def _select(self, nodes: Sequence[Node]) -> None:
        for node in self._context[-1]._children.values():
            node._knobs["selected"]._load("true" if node in nodes else "false")

    def _make_group(self, gizmo: Gizmo) -> Group:
        self._main.check("makeGroup")
        assert gizmo._group is not None
        node = Group(self, "Group", gizmo._group)
        node._load_name("Group1")
        node._most_inputs = gizmo._most_inputs
        loader.fill(node, gizmo._definition)
        for name, knob in gizmo._knobs.items():
            if name != "name":
                node._knobs[name]._state = knob._state
        loader._inside(self, node, gizmo._definition)
        for name, child in gizmo._children.items():
            for knob_name, knob in child._knobs.items():
                node._children[name]._knobs[knob_name]._state = knob._state
        self._modified = True
        loader.announce(self, node)
        return node

    def _knob_changed(self, knob: Knob, before: str) -> None:
        node = knob._owner
        if knob.name() == "name" and node._group is not None:
            node._load_name(knob._state)
        unsaved = "DO_NOT_WRITE" in knob._spec.flags or knob.name() == "selected"
        if not unsaved and knob is not self._root._knobs["frame"]:
            self._modified = True
            self.Undo._note(f"{node._path()}.{knob.name()}")
        self._run_knob_changed(node, knob)

    def _run_knob_changed(self, node: Node, knob: Knob) -> None:
        self._run_hook(node, "knobChanged", knob)

    def _run_hook(self, node: Node, name: str, knob: Knob | None) -> None:
        script = node._knobs[name]._state if name in node._knobs else ""
        if script:
            with self._as_this(node, knob):
                self._run(script, f"{node._path()}.{name}")

    def _press(self, knob: Knob) -> None:
        node = knob._owner
        if isinstance(node, Group):
            with self._as_this(node, knob):
                self._run(knob._state, f"{node._path()}.{knob.name()}")
        elif knob.name() != "reload":
            raise NukeError(f"this Nuke does not know the button {node._kind}.{knob.name()}")

    @contextmanager
    def _as_this(self, node: Node, knob: Knob | None) -> Iterator[None]:
        self._this.append((node, knob))
        self._context.append(node._group or self._root)
        depth = len(self._context)
        try:
            yield
            if len(self._context) != depth:
                raise NukeError(f"{node._kind}: begin() without end()")
        finally:
            del self._context[depth - 1 :]
            self._this.pop()

    def _run(self, code: str, name: str) -> None:
        exec(compile(code, f"<{name}>", "exec"), {"__name__": "__main__", "nuke": self})

    def _run_file(self, path: Path) -> None:
        before, self._running_file = self._running_file, path
        try:
            runpy.run_path(str(path))
        finally:
            self._running_file = before

    def _add_folder(self, folder: Path) -> None:
        self._folders = [folder, *(other for other in self._folders if other != folder)]
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))

    def _find_plugin(self, name: str) -> Path | None:
        return next((folder / name for folder in self._folders if (folder / name).is_file()), None)

    def _add(
        self, event: str, call: Callable[..., object], args: Any, kwargs: dict[str, Any] | None, kind: str
    ) -> None:
        arguments = args if isinstance(args, tuple) else (args,)
        self._callbacks[event].append((call, arguments, kwargs or {}, kind))

    def _call(self, event: str) -> None:
        with self._as_this(self._root, None):
            for call, args, kwargs, kind in list(self._callbacks[event]):
                if kind in {"*", "Root"}:
                    call(*args, **kwargs)
        self._run_hook(self._root, event, None)

    @staticmethod
    def _write_knobs(node: Node, flags: int) -> str:
        return saver.write_knobs(node, flags)

    def _window(self, what: str, text: str) -> None:
        self._main.check(what)
        if not self.GUI:
            raise NukeError(f"{what}({text!r}) without a GUI would wait for ever")
        if type(text) is not str:
            raise TypeError(f"{what} takes a string")

    def _say(self, line: str) -> None:
        self.said.append(line)

    def _write_frame(self, node: Node, frame: int, path: Path) -> None:
        flat = plain_plates.find(node.input(0), frame)
        if flat is not None:
            plain_plates.write(node, flat, path)
            return
        from tests.fakes.nuke import exr_files

        exr_files.write(node, frame, path)

    def _metadata(self, node: Node, frame: float) -> dict[str, Any]:
        if self._loading:
            raise NukeError(f"{node._path()}.metadata() while a script loads")
        flat = plain_plates.find(node, frame)
        return flat.metadata if flat is not None else self.pixels(node, int(frame)).metadata

    def _size(self, node: Node) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
        flat = plain_plates.find(node, self._now())
        if flat is not None:
            return (flat.width, flat.height), (0, 0, flat.width, flat.height)
        picture = self.pixels(node)
        return picture.format, picture.nuke_box()
