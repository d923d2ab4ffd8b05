"""Bytes in and out of a non-blocking socket, straight from and into the caller's buffers.

It owns reading exact lengths, writing in order, and cut-through (sending a body while it still arrives). It must not
know messages. One callback stays registered for a whole body: asyncio's streams copy every byte through a bytearray
and `sock_recv_into` registers and removes a callback a chunk; both cost more than the copy itself.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from hdrgen_server.gateway.clock import Clock
from nuke_hdrgen.wire.errors import Truncated

CHUNK = 1 << 20
CHUNKS_A_TURN = 4


class ConnectionLost(ConnectionError):
    """The peer went away; `clean` when it did so between messages."""

    def __init__(self, *, clean: bool) -> None:
        super().__init__("the peer closed the connection")
        self.clean = clean


@dataclass
class Transfer:
    """How a transfer goes: what the deadlines are checked against."""

    started: float
    last: float
    moved: int = 0


class Reader:
    """Reads exact lengths. One read at a time."""

    def __init__(self, sock: socket.socket, clock: Clock) -> None:
        self._sock, self._clock = sock, clock
        self._loop = asyncio.get_running_loop()
        self.transfer: Transfer | None = None
        self._waiting: asyncio.Future[None] | None = None

    async def read_into(
        self, view: memoryview, grew: Callable[[int], None] | None = None, *, at_start: bool = False
    ) -> None:
        """Fill the view; `grew` hears of the bytes so far after each chunk.

        Raises ConnectionLost when the peer closes before the first byte of a message (`at_start`), else Truncated.
        """
        if not view:
            return
        if self._sock.fileno() < 0:
            raise ConnectionLost(clean=at_start)
        now = self._clock.now()
        self.transfer = None if at_start else Transfer(now, now)
        self._waiting = self._loop.create_future()
        step = _ReadStep(self, self._sock, view, grew, self._waiting)
        self._loop.add_reader(self._sock, step.run, at_start)
        try:
            step.run(at_start)
            await self._waiting
        finally:
            if self._sock.fileno() >= 0:
                self._loop.remove_reader(self._sock)
            self.transfer = None

    def close(self) -> None:
        """End a read that waits, before the socket is closed."""
        self._loop.remove_reader(self._sock)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionLost(clean=True))

    def moved(self, count: int) -> None:
        """Note that this many bytes of the present read have come."""
        now = self._clock.now()
        if self.transfer is None:
            self.transfer = Transfer(now, now)
        self.transfer.last, self.transfer.moved = now, count


class _ReadStep:
    """One read in progress, run by the loop whenever bytes wait."""

    def __init__(
        self,
        reader: Reader,
        sock: socket.socket,
        view: memoryview,
        grew: Callable[[int], None] | None,
        done: asyncio.Future[None],
    ) -> None:
        self._reader, self._sock, self._view, self._grew, self._done = reader, sock, view, grew, done
        self._filled = 0

    def run(self, at_start: bool) -> None:
        """Take what is there, a few chunks at most."""
        if self._done.done():
            return
        for _ in range(CHUNKS_A_TURN):
            try:
                count = self._sock.recv_into(self._view[self._filled : self._filled + CHUNK])
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                count = 0
            if count == 0:
                clean = at_start and self._filled == 0
                self._done.set_exception(
                    ConnectionLost(clean=True) if clean else Truncated("the peer went away inside a message")
                )
                return
            self._filled += count
            self._reader.moved(self._filled)
            if self._grew is not None:
                self._grew(self._filled)
            if self._done.done():  # what grew was sent to a peer that has gone
                return
            if self._filled == len(self._view):
                self._done.set_result(None)
                return


@dataclass(eq=False)
class Outgoing:
    """One message on its way out. `ready` of the body's bytes may be sent; it grows while a body arrives."""

    head: memoryview
    body: memoryview = field(default_factory=lambda: memoryview(b""))
    ready: int = -1
    sent: Callable[[], None] | None = None
    dropped: bool = False
    _at: int = 0

    def __post_init__(self) -> None:
        """By default the whole body is ready."""
        if self.ready < 0:
            self.ready = len(self.body)

    def next_chunk(self) -> memoryview:
        """What may be sent now; empty when nothing may."""
        if self._at < len(self.head):
            return self.head[self._at :]
        at = self._at - len(self.head)
        return self.body[at : min(self.ready, at + CHUNK)]

    def advance(self, count: int) -> bool:
        """Note that bytes have been sent; True when that was all."""
        self._at += count
        return self.complete

    @property
    def complete(self) -> bool:
        """Whether every byte has been sent."""
        return self._at == len(self.head) + len(self.body)


class Writer:
    """Writes messages in order; nothing waits, `drained` tells when the line is empty."""

    def __init__(self, sock: socket.socket, clock: Clock, lost: Callable[[], None]) -> None:
        self._sock, self._clock, self._lost = sock, clock, lost
        self._loop = asyncio.get_running_loop()
        self._line: deque[Outgoing] = deque()
        self._registered = False
        self._closed = False
        self.drained = asyncio.Event()
        self.drained.set()
        self.transfer: Transfer | None = None

    def __len__(self) -> int:
        return len(self._line)

    def push(self, outgoing: Outgoing) -> None:
        """Put a message at the end of the line; dropped, with its `sent` called, when the peer is gone."""
        if self._closed:
            _finish(outgoing, dropped=True)
            return
        self._line.append(outgoing)
        self.drained.clear()
        if len(self._line) == 1:
            self.kick()

    def kick(self) -> None:
        """Send what may be sent now; called again by the loop while the socket is full."""
        for _ in range(CHUNKS_A_TURN):
            if not self._line or self._closed:
                break
            chunk = self._line[0].next_chunk()
            if not chunk:  # a body that still arrives: its reader kicks again
                self._watch(on=False)
                self.transfer = None
                return
            if not self._send(chunk):
                return
        self._watch(on=bool(self._line) and not self._closed)

    def close(self) -> None:
        """Drop the line; every message's `sent` is called, so that slots come back."""
        self._closed = True
        self._watch(on=False)
        while self._line:
            _finish(self._line.popleft(), dropped=True)
        self.transfer = None
        self.drained.set()

    def _send(self, chunk: memoryview) -> bool:
        now = self._clock.now()
        if self.transfer is None:
            self.transfer = Transfer(now, now)
        try:
            count = self._sock.send(chunk)
        except (BlockingIOError, InterruptedError):
            self._watch(on=True)
            return False
        except OSError:
            self.close()
            self._lost()
            return False
        self.transfer.last = now
        self.transfer.moved += count
        if self._line[0].advance(count):
            _finish(self._line.popleft(), dropped=False)
            self.transfer = None
            if not self._line:
                self.drained.set()
        return True

    def _watch(self, *, on: bool) -> None:
        if on and not self._registered:
            self._loop.add_writer(self._sock, self.kick)
        elif not on and self._registered:
            self._loop.remove_writer(self._sock)
        self._registered = on


def _finish(outgoing: Outgoing, *, dropped: bool) -> None:
    outgoing.dropped = dropped
    if outgoing.sent is not None:
        outgoing.sent()
