"""The order in which waiting jobs start: round-robin over sessions, first come first served inside one.

Pure: it owns order, positions and the limit. It must not know sockets, workers, clocks or what a job is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

from nuke_hdrgen.wire.errors import Busy

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Waiting items by session. The session that was served last goes to the end of the round."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._waiting: OrderedDict[Hashable, list[T]] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(items) for items in self._waiting.values())

    def put(self, session: Hashable, item: T, retry_after_s: float = 1.0) -> None:
        """Append an item to its session's line. Raises Busy with `retry_after_s` when the queue is full."""
        if len(self) >= self.limit:
            raise Busy(
                f"the sidecar's queue is full ({self.limit} jobs); try again in {retry_after_s:.0f} s",
                retry_after_s=retry_after_s,
            )
        self._waiting.setdefault(session, []).append(item)

    def put_back(self, session: Hashable, item: T) -> None:
        """Put an item that had already been taken first in its session's line; the limit does not apply."""
        self._waiting.setdefault(session, []).insert(0, item)
        self._waiting.move_to_end(session, last=False)

    def take(self, ready: Callable[[T], bool]) -> T | None:
        """Remove and return the next item that is ready, or None; items that are not ready lose no place."""
        for session, items in self._waiting.items():
            for item in items:
                if ready(item):
                    self._waiting.move_to_end(session)
                    self._remove(session, item)
                    return item
        return None

    def remove(self, item: T) -> bool:
        """Remove an item wherever it waits; False when it does not."""
        for session, items in self._waiting.items():
            if item in items:
                self._remove(session, item)
                return True
        return False

    def position(self, item: T) -> int:
        """How many items start before this one, if all are ready; -1 when it does not wait."""
        for place, other in enumerate(self.in_order()):
            if other is item:
                return place
        return -1

    def in_order(self) -> Iterator[T]:
        """Every item in the order in which it would start."""
        lines = [list(items) for items in self._waiting.values()]
        for turn in range(max((len(line) for line in lines), default=0)):
            yield from (line[turn] for line in lines if turn < len(line))

    def _remove(self, session: Hashable, item: T) -> None:
        items = self._waiting[session]
        items.remove(item)
        if not items:
            del self._waiting[session]
