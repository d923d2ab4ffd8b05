"""What a bake has done so far: which pieces are in their place, in which take, and what is reported of them.

It owns giving results their names without overwriting any, and the summary. Safe for several threads. It must not know
Nuke, the sidecar or how a result is made.
"""

from __future__ import annotations

import os
import threading
import uuid
from dataclasses import dataclass, field
from typing import Dict, List, Protocol

from nuke_hdrgen.client.job import write_result
from nuke_hdrgen.host import results
from nuke_hdrgen.host.orders import Order, Piece
from nuke_hdrgen.wire.errors import BadInput, BadParameter, InvalidMessage
from nuke_hdrgen.wire.messages import Progress, Result

PIXELS_PER_MEGAPIXEL = 1e6


class Report(Protocol):
    """Who follows a bake; called from its threads, one at a time."""

    def begin(self, pieces: int, pack: str, device: str) -> None:
        """Work starts."""
        ...

    def step(self, piece: Piece, progress: Progress) -> None:
        """The sidecar says what it does for a piece."""
        ...

    def ready(self, piece: Piece, pattern: str, done: int, sent: bool) -> None:
        """A piece is in its place, as the `done`th; `sent` when it was made now."""
        ...

    def cancelled(self) -> bool:
        """Whether the user wants the bake to end; asked about ten times a second."""
        ...

    def end(self) -> None:
        """Nothing more comes."""
        ...


@dataclass
class Summary:
    """What a bake did: pieces made and found, its take, what the sidecar warned of; seconds in all, megapixels made."""

    sent: int = 0
    found: int = 0
    take: int = 0
    pack: str = ""
    device: str = ""
    warnings: List[str] = field(default_factory=list[str])
    counts: Dict[str, int] = field(default_factory=dict[str, int])
    seconds: float = 0.0
    megapixels: float = 0.0


class Ledger:
    """The pieces of one order and what became of each."""

    def __init__(self, order: Order, report: Report) -> None:
        self.summary = Summary(take=order.take)
        self._order, self._report = order, report
        self._lock = threading.RLock()
        self._unfinished = set(range(len(order.pieces)))

    def step(self, piece: Piece, progress: Progress) -> None:
        """The sidecar says what it does for a piece."""
        with self._lock:
            self._report.step(piece, progress)

    def known(self, piece: Piece) -> bool:
        """Whether this take or an earlier one has a result of this name, whatever it was made from."""
        with self._lock:
            return any(os.path.exists(self._order.path(piece, take)) for take in range(self.summary.take + 1))

    def there(self, piece: Piece, key: str) -> bool:
        """Whether the result is in its place, now if it lay elsewhere; else its name is free in the current take."""
        with self._lock:
            while True:
                path = self._order.path(piece, self.summary.take)
                found = results.read_key(path)
                if found == key:
                    return True
                if found is None:
                    same = results.same_elsewhere(path, key)
                    return same is not None and (results.adopt(same, path) or results.read_key(path) == key)
                self._next_take()

    def keep(self, piece: Piece, result: Result, body: memoryview, key: str) -> None:
        """Store a result under its name, in the next take where another holds it.

        Raises InvalidMessage for a result of another key, BadParameter for one that says none, StorageError.
        """
        if result.key != key:
            raise InvalidMessage("the sidecar made a frame with other packs or versions than it announced; bake again")
        path = self._order.path(piece, self.summary.take)
        folder, name = os.path.split(path)
        results.check_writable(folder)
        part = f"{folder}/.{name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.part"
        write_result(result, body, part)
        try:
            if results.read_key(part) != key:
                raise BadParameter(
                    "the sidecar's setting provenance=none leaves a bake without the key that tells it is still right; "
                    "set it to digest"
                )
            with self._lock:
                while not results.adopt(part, path) and results.read_key(path) != key:
                    self._next_take()
                    path = self._order.path(piece, self.summary.take)
                self.summary.warnings += [text for text in result.warnings if text not in self.summary.warnings]
                self.summary.megapixels += result.shape[0] * result.shape[1] / PIXELS_PER_MEGAPIXEL
                for count, value in result.counts.items():
                    self.summary.counts[count] = self.summary.counts.get(count, 0) + value
        finally:
            results.remove(part)

    def settle(self, piece: Piece, *, sent: bool) -> None:
        """A piece is in its place; `sent` when it was made now."""
        with self._lock:
            self._unfinished.discard(self._order.pieces.index(piece))
            self.summary.sent += sent
            self.summary.found += not sent
            done = self.summary.sent + self.summary.found
            self._report.ready(piece, self._order.pattern(piece, self.summary.take), done, sent)

    def _next_take(self) -> None:
        """Go to a new take: other results hold the names. What is not baked anew is carried over. Under the lock."""
        order, take = self._order, self.summary.take
        if not order.may_change_take:
            raise BadInput(
                f"{order.name} was baked from other pixels, as another shot or by another pack, and that bake may be "
                "in use; bake it in Nuke and save, or add --save-as NEW.nk or --then-render=WRITE"
            )
        anew = {os.path.basename(order.path(order.pieces[index], take)) for index in self._unfinished}
        moves = {order.pattern(piece, take): order.pattern(piece, take + 1) for piece in order.pieces}
        for old, new in moves.items():
            results.carry(old, new, anew)
        self.summary.take = take + 1
