"""What the command line writes: answers to stdout, notes and progress to stderr, and one object with
`--json`.

It owns the terminal. It must not know jobs, files or pixels. Off a terminal progress is plain lines, at most
one every few seconds, which never hold the word that farm managers take for a failure.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

Update = Callable[[str, int, int], None]
"""Called with the phase, what is done and the total (0 when it is not known)."""

LINE_EVERY_S = 5.0


def answer(text: str) -> None:
    """One line of the answer, on stdout."""
    print(text)


def note(text: str) -> None:
    """One line beside the answer, on stderr."""
    print(f"hdrgen: {text}", file=sys.stderr, flush=True)


def emit_json(value: object) -> None:
    """The one machine-readable object of `--json`, on stdout."""
    print(json.dumps(value, indent=2, sort_keys=True, default=str))


def table(rows: list[tuple[str, ...]]) -> None:
    """Rows as columns padded to their widest cell; the first row is the heading."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        answer("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@contextmanager
def progress(label: str) -> Generator[Update]:
    """A rich bar on a terminal, plain lines off it; yields the function that moves it."""
    if not sys.stderr.isatty():
        yield _Lines(label)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[phase]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None, phase="")

        def update(phase: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total or None, phase=phase)

        yield update


class _Lines:
    """Plain progress: a line when the phase changes, and every few seconds while it lasts."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._phase = ""
        self._said = 0.0

    def __call__(self, phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        if phase == self._phase and now - self._said < LINE_EVERY_S:
            return
        self._phase, self._said = phase, now
        note(f"{self._label}: {phase} {done}/{total}" if total else f"{self._label}: {phase}")


def plain(value: Any) -> Any:
    """A value as JSON can hold it: mappings, sequences, numbers and text stay, the rest becomes text."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
