"""A test's handles on the fake Nuke: its event loop, plates, undo, menus, and what it recorded.

It owns what a test may ask of the fake beyond Nuke's own API: `executed`, `messages`, `answers`, `said`, `progress`,
`panels`, `plates` and the hooks `cancel_when`, `before_frame`, `write_frame` are attributes of it. It must not know
what the tests test.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.fakes.nuke import loader, saver
from tests.fakes.nuke.errors import NukeError
from tests.fakes.nuke.events import MainThread
from tests.fakes.nuke.nodes import Node
from tests.fakes.nuke.running import LAYERS, Running
from tests.fakes.nuke.script import parse


class Bench(Running):
    """A running Nuke on a test bench."""

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

    def modules(self) -> dict[str, ModuleType]:
        """What to put into sys.modules: this Nuke, and with a GUI the one function of nukescripts that is known."""
        if not self.GUI:
            return {"nuke": self}
        scripts, panels = ModuleType("nukescripts"), ModuleType("nukescripts.panels")
        vars(scripts)["panels"] = panels
        vars(panels)["registerWidgetAsPanel"] = self._register_panel
        return {"nuke": self, "nukescripts": scripts, "nukescripts.panels": panels}

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
        """A node that gives an array (H, W, C), a `Picture` or a `FlatPlate`, or what a function of the frame gives."""
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
