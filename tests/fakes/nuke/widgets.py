"""What Nuke's windows offer to Python, as records: progress bars, undo, menus, the environment.

It owns what was asked and answered there. It must not know nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.nuke.errors import NukeError


class Strict:
    """An object of Nuke's: what it does not know, it refuses."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise NukeError(f"this Nuke does not know {type(self).__name__}.{name}")


@dataclass
class ProgressRecord:
    """What one ProgressTask showed; a test sets `cancelled` as an artist presses Cancel."""

    name: str
    messages: list[str] = field(default_factory=list)
    values: list[int] = field(default_factory=list)
    cancelled: bool = False
    open: bool = True


class ProgressTask(Strict):
    """nuke.ProgressTask: the bar closes when the object goes."""

    def __init__(self, record: ProgressRecord) -> None:
        self._record = record

    def __del__(self) -> None:
        self._record.open = False

    def setProgress(self, percent: int) -> None:
        if type(percent) is not int:
            raise TypeError(f"setProgress takes an int, not {percent!r}")
        if not 0 <= percent <= 100:
            raise NukeError(f"a progress of {percent}")
        self._record.values.append(percent)

    def setMessage(self, message: str) -> None:
        if type(message) is not str:
            raise TypeError(f"setMessage takes a string, not {message!r}")
        self._record.messages.append(message)

    def isCancelled(self) -> bool:
        return self._record.cancelled


class Undo(Strict):
    """nuke.Undo, which nests; `_entries` holds (title, knob path) of every change that could be undone."""

    def __init__(self) -> None:
        self._off = 0
        self._titles: list[str] = []
        self._entries: list[tuple[str, str]] = []

    def disable(self) -> None:
        self._off += 1

    def enable(self) -> None:
        if not self._off:
            raise NukeError("Undo.enable() without Undo.disable()")
        self._off -= 1

    def disabled(self) -> bool:
        return self._off > 0

    def begin(self, title: str = "") -> None:
        self._titles.append(title)

    def end(self) -> None:
        if not self._titles:
            raise NukeError("Undo.end() without Undo.begin()")
        self._titles.pop()

    def _note(self, what: str) -> None:
        if not self._off:
            self._entries.append((self._titles[-1] if self._titles else "", what))


class Menu(Strict):
    """A menu and what is in it: other menus, and commands as text or callables."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._menus: dict[str, Menu] = {}
        self._commands: dict[str, str | Callable[[], object]] = {}

    def addMenu(self, name: str, icon: str = "", tooltip: str = "") -> Menu:
        return self._menus.setdefault(name, Menu(name))

    def addCommand(
        self, name: str, command: str | Callable[[], object], shortcut: str = "", icon: str = "", tooltip: str = ""
    ) -> None:
        *folders, last = name.split("/")
        menu = self
        for folder in folders:
            menu = menu.addMenu(folder)
        if isinstance(command, str):
            compile(command, name, "exec")
        menu._commands[last] = command


class Environment(Strict):
    """nuke.env: no Mapping; only [] and get()."""

    def __init__(self, values: dict[str, object]) -> None:
        self._values = values

    def __getitem__(self, key: str) -> Any:
        if key not in self._values:
            raise NukeError(f"this Nuke has no nuke.env[{key!r}]")
        return self._values[key]

    def get(self, key: str, default: object = None) -> Any:
        return self[key]
