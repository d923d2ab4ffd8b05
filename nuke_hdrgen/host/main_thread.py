"""Runs calls in Nuke's main thread for threads that may not touch Nuke: by its event loop, or by the caller's own.

It owns handing a call over and its answer back. It must not know what the calls do.
"""

from __future__ import annotations

import queue
import threading
from concurrent import futures
from typing import Callable, TypeVar, Union

import nuke

T = TypeVar("T")
_POLL_S = 0.05


class GuiThread:
    """Nuke's own event loop makes the calls, one at a time, between its other work."""

    def post(self, call: Callable[[], object]) -> None:
        """Have a call made soon; returns at once."""
        nuke.executeInMainThread(call)

    def serve(self, done: threading.Event) -> None:
        """Nothing: the event loop serves by itself, and this returns at once."""


class TerminalThread:
    """In terminal mode nothing runs Nuke's queue, so its main thread serves this one until the work is done."""

    def __init__(self) -> None:
        self._calls: queue.Queue[Callable[[], object]] = queue.Queue()

    def post(self, call: Callable[[], object]) -> None:
        """Have a call made by `serve`; returns at once."""
        self._calls.put(call)

    def serve(self, done: threading.Event) -> None:
        """Make calls in the thread that is here, until `done` is set and none waits."""
        while not (done.is_set() and self._calls.empty()):
            try:
                call = self._calls.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            call()


MainThread = Union[GuiThread, TerminalThread]


def ask(main: MainThread, call: Callable[[], T], stop: threading.Event) -> T:
    """What a call in the main thread returns or raises; it is withdrawn when `stop` is set before it begins.

    Raises CancelledError when it was withdrawn.
    """
    answer: futures.Future[T] = futures.Future()
    main.post(lambda: _answer(call, answer))
    while not answer.done():
        if stop.is_set():
            answer.cancel()
        futures.wait((answer,), _POLL_S)
    return answer.result()


def _answer(call: Callable[[], T], answer: futures.Future[T]) -> None:
    if not answer.set_running_or_notify_cancel():
        return
    try:
        value = call()
    except Exception as error:  # noqa: BLE001  # not swallowed: it is raised in the thread that asked
        answer.set_exception(error)
    else:
        answer.set_result(value)
