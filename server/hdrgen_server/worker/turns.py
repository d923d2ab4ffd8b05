"""Lets several open jobs share one worker: exactly one computes at a time, in the order in which they asked.

It owns the turn. It must not know jobs, messages or devices. A job gives its turn up while it waits for a frame and
after each result, so that a long shot does not hold up another session's still.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager


class Turns:
    """A first-come-first-served lock for threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._line: deque[object] = deque()

    @property
    def waiting(self) -> int:
        """How many threads wait for the turn."""
        return max(0, len(self._line) - 1)

    def take(self) -> None:
        """Wait for the turn."""
        ticket = object()
        with self._changed:
            self._line.append(ticket)
            self._changed.wait_for(lambda: self._line[0] is ticket)

    def give_up(self) -> None:
        """Let the next in line go on."""
        with self._changed:
            self._line.popleft()
            self._changed.notify_all()

    @contextmanager
    def paused(self) -> Generator[None]:
        """Give the turn up for the length of a block, and wait for it again."""
        self.give_up()
        try:
            yield
        finally:
            self.take()
