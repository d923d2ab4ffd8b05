"""The module that Python code imports as `nuke`.

It owns exactly the API that nuke_hdrgen may use; any other name raises NukeError. What stands behind it is `running`; a
test's handles, which are no part of Nuke, are `bench`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.fakes.nuke import loader, render, saver
from tests.fakes.nuke.bench import Bench
from tests.fakes.nuke.errors import NukeError
from tests.fakes.nuke.knobs import Knob
from tests.fakes.nuke.nodes import Gizmo, Node, Root
from tests.fakes.nuke.script import NodeText, parse
from tests.fakes.nuke.tcl import list_items
from tests.fakes.nuke.widgets import Menu, ProgressRecord, ProgressTask


class FakeNuke(Bench):
    """One running Nuke. `gui` starts it with windows; `assist` and `nc` are editions that render less."""

    # The script and its nodes.

    def root(self) -> Root:
        return self._root

    def frame(self, number: int | None = None) -> int:
        if number is not None:
            self._main.check("nuke.frame")
            self._root["frame"]._load(str(number))
        return int(self._now())

    def views(self) -> list[str]:
        return self._views()

    def thisView(self) -> str:
        return self._view()

    def thisNode(self) -> Node | None:
        return self._this[-1][0] if self._this else self._context[-1]

    def thisKnob(self) -> Knob | None:
        return self._this[-1][1] if self._this else None

    def thisGroup(self) -> Node:
        return self._context[-1]

    def toNode(self, name: str) -> Node | None:
        self._main.check("nuke.toNode")
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
        self._main.check("nuke.allNodes")
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
