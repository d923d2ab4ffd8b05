"""Two lanes beside the one that talks to the sidecar: frames are read ahead of it, and results written behind it.

It owns the threads, their bounded queues and how busy each was. It must not know what passes through.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")

DEPTH = 3
POLL_S = 0.1


class Watch:
    """Adds up the time between `start` and `stop`, in seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._since: float | None = None

    def start(self) -> None:
        """Begin, unless it runs already."""
        self._since = time.monotonic() if self._since is None else self._since

    def stop(self) -> None:
        """Stop and add, if it runs."""
        if self._since is not None:
            self.seconds += time.monotonic() - self._since
            self._since = None

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *ended: object) -> None:
        self.stop()


class _Ended:
    """Goes through a queue last."""


class Ahead(Generic[T]):
    """Iterates over items that a thread makes, at most `depth` of them ahead; `watch` is the time spent making them.

    What the items' iterator raises is raised here, after the items before it.
    """

    def __init__(self, items: Iterable[T], depth: int = DEPTH) -> None:
        self.watch = Watch()
        self._items = items
        self._queue: queue.Queue[T] = queue.Queue(depth)
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(1, "hdrgen-ahead")
        self._work: Future[None] | None = None

    def __enter__(self) -> Ahead[T]:
        self._work = self._pool.submit(self._make)
        return self

    def __exit__(self, *ended: object) -> None:
        """Ends the thread; what it made and nobody took is dropped."""
        self._stop.set()
        self._pool.shutdown()

    def ready(self) -> bool:
        """Whether the next item, the end or a failure comes without waiting."""
        assert self._work is not None
        return self._work.done() or not self._queue.empty()

    def __iter__(self) -> Iterator[T]:
        assert self._work is not None
        while True:
            over = self._work.done()
            try:
                yield self._queue.get(timeout=0 if over else POLL_S)
            except queue.Empty:
                if over:
                    self._work.result()
                    return

    def _make(self) -> None:
        iterator = iter(self._items)
        ended = _Ended()
        while True:
            with self.watch:
                item = next(iterator, ended)
            if isinstance(item, _Ended) or not self._put(item):
                return

    def _put(self, item: T) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=POLL_S)
            except queue.Full:
                continue
            return True
        return False


class Behind(Generic[T]):
    """Hands items to `consume` in a thread, in their order; `watch` is the time spent on them.

    Nothing here waits before the end: `put` is called while messages are half sent and half received, which must go
    on. `has_room` tells whether fewer than `depth` are left. Leaving its context waits for all of them, whatever made
    it end: what was put is done. A failure of `consume` is raised by the next call, or there.
    """

    def __init__(self, consume: Callable[[T], None], depth: int = DEPTH) -> None:
        self.watch = Watch()
        self._consume, self._depth = consume, depth
        self._queue: queue.Queue[T | _Ended] = queue.Queue()
        self._pool = ThreadPoolExecutor(1, "hdrgen-behind")
        self._work: Future[None] | None = None

    def __enter__(self) -> Behind[T]:
        self._work = self._pool.submit(self._run)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._work is not None
        self._queue.put(_Ended())
        self._pool.shutdown()
        if kind is None:
            self._work.result()

    def put(self, item: T) -> None:
        """Queue one item."""
        self._queue.put(item)
        self._raise_failure()

    def has_room(self) -> bool:
        """Whether fewer than `depth` items are left."""
        self._raise_failure()
        return self._queue.qsize() < self._depth

    def _raise_failure(self) -> None:
        assert self._work is not None
        if self._work.done():
            self._work.result()

    def _run(self) -> None:
        while not isinstance(item := self._queue.get(), _Ended):
            with self.watch:
                self._consume(item)
