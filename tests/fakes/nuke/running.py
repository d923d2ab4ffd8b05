"""The state of one running Nuke and what happens inside it: hooks, callbacks, plugin paths, the current frame.

It owns everything that has no name in Nuke's API. It must not know that API: `api` builds it from this.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.fakes.nuke import loader, plain_plates, render, saver
from tests.fakes.nuke.errors import NukeError
from tests.fakes.nuke.events import MainThread
from tests.fakes.nuke.knobs import Knob
from tests.fakes.nuke.nodes import Gizmo, Group, Node, Root
from tests.fakes.nuke.script import Command
from tests.fakes.nuke.widgets import Environment, Menu, ProgressRecord, Undo

VERSION = (17, 0, 3)
LAYERS = {"rgba": ["rgba.red", "rgba.green", "rgba.blue", "rgba.alpha"], "depth": ["depth.Z"]}


class Running(ModuleType):
    """One running Nuke without its API."""

    def __init__(self, *, gui: bool = False, assist: bool = False, nc: bool = False, indie: bool = False) -> None:
        super().__init__("nuke")
        self.GUI = gui
        self.NUKE_VERSION_MAJOR = VERSION[0]
        self.NUKE_VERSION_STRING = f"{VERSION[0]}.{VERSION[1]}v{VERSION[2]}"
        self.TO_SCRIPT, self.WRITE_NON_DEFAULT_ONLY = saver.TO_SCRIPT, saver.WRITE_NON_DEFAULT_ONLY
        self.rawArgs: list[str] = ["nuke"]
        self.env = Environment({"gui": gui, "nc": nc, "assist": assist, "indie": indie, "NukeVersionMajor": VERSION[0]})
        self.Group, self.Undo = Group, Undo()
        self.executed: list[tuple[str, int, str]] = []
        self.messages: list[str] = []
        self.answers: list[bool] = []
        self.said: list[str] = []
        self.panels: list[tuple[str, str, str]] = []
        self.progress: list[ProgressRecord] = []
        self.plates: dict[str, Any] = {}
        self.panels_open = True
        self.knob_defaults: dict[str, dict[str, str]] = {}
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

    def _register_panel(self, widget: str, name: str, id: str, create: bool = False) -> None:  # noqa: A002
        if create:
            raise NukeError("registerWidgetAsPanel(create=True)")
        self.panels.append((widget, name, id))

    def _clear(self) -> None:
        for node in [] if "_root" not in self.__dict__ else self._root._everyone():
            node._dead = True
        self._root = Root(self, "Root", None)
        self._context: list[Node] = [self._root]
        self._this: list[tuple[Node, Knob | None]] = []
        self._layers = {layer: list(channels) for layer, channels in LAYERS.items()}
        self._deleted: list[Any] = []
        self._modified = False
        self._failed_reads: set[tuple[Node, str]] = set()
        self._building: Node | None = None
        self._loading = 0
        self._hooks = 0
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

    def _views(self) -> list[str]:
        return [line.split()[0] for line in self._root._knobs["views"]._state.splitlines() if line.strip()]

    def _now(self) -> float:
        return self._executing[0] if self._executing is not None else self._root._knobs["frame"]._numbers(0)[0]

    def _view(self) -> str:
        return self._executing[1] if self._executing is not None else self._views()[0]

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
        if self.panels_open:
            self._run_hook(node, "knobChanged", knob)

    def _run_hook(self, node: Node, name: str, knob: Knob | None) -> None:
        script = node._knobs[name]._state if name in node._knobs else ""
        if script:
            self._hooks += 1
            try:
                with self._as_this(node, knob):
                    self._run(script, f"{node._path()}.{name}")
            finally:
                self._hooks -= 1

    def _press(self, knob: Knob) -> None:
        node = knob._owner
        if isinstance(node, Group):
            with self._as_this(node, knob):
                self._run(knob._state, f"{node._path()}.{knob.name()}")
        elif knob.name() == "reload":
            self._failed_reads = {(reader, path) for reader, path in self._failed_reads if reader is not node}
        else:
            raise NukeError(f"this Nuke does not know the button {node._kind}.{knob.name()}")

    @contextmanager
    def _as_this(self, node: Node, knob: Knob | None) -> Generator[None, None, None]:
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
        self._main.check(f"{node._path()}.metadata")
        if self._loading:
            raise NukeError(f"{node._path()}.metadata() while a script loads")
        flat = plain_plates.find(node, frame)
        return flat.metadata if flat is not None else self.pixels(node, int(frame)).metadata

    def _size(self, node: Node) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
        self._main.check(f"{node._path()}.format")
        flat = plain_plates.find(node, self._now())
        if flat is not None:
            return (flat.width, flat.height), (0, 0, flat.width, flat.height)
        picture = self.pixels(node)
        return picture.format, picture.nuke_box()
