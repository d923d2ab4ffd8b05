"""Nuke's main thread and the calls that other threads leave for it.

It owns the queue and how long each call took. It must not know what a call does.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.fakes.nuke.errors import NukeError

TICK = 0.005  # s between looks at the test's condition while nothing is queued


@dataclass(frozen=True)
class MainThreadCall:
    """One call that the event loop ran: seconds in all, and of those inside nuke.execute."""

    name: str
    seconds: float
    execute_seconds: float

    @property
    def blocked(self) -> float:
        """Seconds for which Nuke could not answer the artist outside a render."""
        return self.seconds - self.execute_seconds


class MainThread:
    """The thread that may change nodes, and its queue."""

    def __init__(self) -> None:
        self.calls: list[MainThreadCall] = []
        self.execute_seconds = 0.0
        self._thread = threading.get_ident()
        self._queue: queue.Queue[tuple[Callable[..., object], tuple[Any, ...], dict[str, Any]]] = queue.Queue()

    def is_current(self) -> bool:
        return threading.get_ident() == self._thread

    def check(self, what: str) -> None:
        """Raise NukeError in any other thread: Nuke's nodes and knobs belong to the main thread."""
        if not self.is_current():
            raise NukeError(f"{what} in thread {threading.current_thread().name!r}, not in Nuke's main thread")

    def put(self, call: Callable[..., object], args: Any, kwargs: dict[str, Any] | None) -> None:
        """Leave a call; what is no tuple is its only argument."""
        self._queue.put((call, args if isinstance(args, tuple) else (args,), kwargs or {}))

    def measure(self, call: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Run a call here and note how long it took."""
        start, before = time.perf_counter(), self.execute_seconds
        try:
            call(*args, **kwargs)
        finally:
            name = getattr(call, "__qualname__", repr(call))
            self.calls.append(MainThreadCall(name, time.perf_counter() - start, self.execute_seconds - before))

    def run(self, until: Callable[[], object], timeout: float) -> None:
        """Run what comes in until the condition holds. Raises NukeError after `timeout` seconds."""
        self.check("the event loop")
        deadline = time.monotonic() + timeout
        while not until():
            if time.monotonic() > deadline:
                raise NukeError(f"nothing came of it in {timeout} s")
            try:
                call, args, kwargs = self._queue.get(timeout=TICK)
            except queue.Empty:
                continue
            self.measure(call, args, kwargs)

    def pending(self) -> int:
        """How many calls wait."""
        return self._queue.qsize()
