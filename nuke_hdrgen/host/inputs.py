"""Inputs of a bake as files on local disk, exported through Nuke's main thread and identified.

It owns waiting for a busy Nuke, and exporting ahead of whoever sends. It must not know results or the sidecar.
"""

from __future__ import annotations

import queue
import threading
from concurrent import futures
from dataclasses import dataclass
from typing import Generic, Iterator, List, TypeVar

from nuke_hdrgen.bake.exr_header import exr_shape
from nuke_hdrgen.bake.plan import Source
from nuke_hdrgen.host import results
from nuke_hdrgen.host.export import export_frame
from nuke_hdrgen.host.main_thread import MainThread, ask
from nuke_hdrgen.host.nodes import write_of
from nuke_hdrgen.host.orders import Order
from nuke_hdrgen.wire.errors import BadInput, Busy, Cancelled
from nuke_hdrgen.wire.identity import input_identity
from nuke_hdrgen.wire.messages import Frame

BUSY_RETRIES = 240
BUSY_WAIT_S = 0.25
AHEAD = 2  # with the one that is rendered and the one that is sent, four frames are on local disk at most
POLL_S = 0.1

T = TypeVar("T")


@dataclass(frozen=True)
class Exported:
    """One input on local disk: its frame message and its identity."""

    path: str
    frame: Frame
    identity: str

    def read(self) -> bytes:
        """Its bytes. Raises BadInput when they cannot be read."""
        return _read(self.path)

    def take(self) -> bytes:
        """Its bytes, once: the file is removed."""
        body = self.read()
        self.remove()
        return body

    def remove(self) -> None:
        """Remove the file."""
        results.remove(self.path)


class Exporter:
    """Exports inputs of one order until `stop` is set."""

    def __init__(self, order: Order, main: MainThread, stop: threading.Event) -> None:
        self._order, self._main, self._stop = order, main, stop

    def export(self, source: Source, view: str, index: int, folder: str) -> Exported:
        """Have Nuke's main thread render an input, as number `index` of its job; waits while Nuke is busy.

        Raises Busy when that takes too long, Cancelled, and BadInput when Nuke cannot render.
        """
        order = self._order
        path = f"{folder}/in{index}.{source.frame:04d}.exr".replace("\\", "/")
        for _ in range(BUSY_RETRIES):
            try:
                ask(self._main, lambda: export_frame(write_of(order.node, source.number), source.frame, view, path),
                    self._stop)  # fmt: skip
                break
            except Busy:
                if self._stop.wait(BUSY_WAIT_S):
                    raise
            except ValueError as error:
                raise BadInput(f"{order.name} was deleted while it was baked; finished frames are kept") from error
            except futures.CancelledError as error:
                raise Cancelled("the bake was stopped") from error
        else:
            raise Busy(f"Nuke has been rendering something else for {BUSY_RETRIES * BUSY_WAIT_S:.0f} s; bake again")
        body = _read(path)
        shape, channels = exr_shape(body, f"input {source.number} of {order.name}")
        frame = Frame("", index, source.frame, "exr", shape, channels, order.space, source.ev)
        return Exported(path, frame, input_identity(frame, body))


class Ahead(Generic[T]):
    """Iterates over items that a thread makes, at most `AHEAD` of them waiting; leaving its context ends the thread.

    What the items' iterator raises is raised here, after the items before it.
    """

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self._queue: queue.Queue[T] = queue.Queue(AHEAD)
        self._failures: List[Exception] = []
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._make, name="hdrgen export", daemon=True)

    def __enter__(self) -> Ahead[T]:
        self._thread.start()
        return self

    def __exit__(self, *ended: object) -> None:
        """Waits for the item that is being made, at most."""
        self._left.set()
        self._thread.join()

    def ready(self) -> bool:
        """Whether the next item, the end or a failure comes without waiting."""
        return not self._queue.empty() or not self._thread.is_alive()

    def __iter__(self) -> Iterator[T]:
        while True:
            over = not self._thread.is_alive()
            try:
                yield self._queue.get(timeout=0.0 if over else POLL_S)
            except queue.Empty:
                if over:
                    break
        if self._failures:
            raise self._failures[0]

    def _make(self) -> None:
        """The top of the thread."""
        try:
            for item in self._items:
                while not self._put(item):
                    if self._left.is_set():
                        return
        except Exception as error:  # noqa: BLE001  # not swallowed: raised where the items are taken
            self._failures.append(error)

    def _put(self, item: T) -> bool:
        try:
            self._queue.put(item, timeout=POLL_S)
        except queue.Full:
            return False
        return True


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError as error:
        raise BadInput(
            f"Nuke left no file for an input ({error.strerror}); check that the local disk is not full and bake again"
        ) from error
