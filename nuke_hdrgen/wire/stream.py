"""Bytes in, messages out: assembles messages from a stream that arrives in pieces of any size; no I/O.

It owns the position inside the message being received and the buffers for it. It must not know sockets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, List, Optional

from nuke_hdrgen.wire.codec import DEFAULT_LIMITS, PREFIX_BYTES, Prefix, Types, parse_header, parse_prefix
from nuke_hdrgen.wire.errors import Truncated
from nuke_hdrgen.wire.limits import Limits
from nuke_hdrgen.wire.messages import TYPES, Message

Allocate = Callable[[Message, int], memoryview]


@dataclass(frozen=True)
class Received:
    """One whole message with its body (empty for most)."""

    message: Message
    body: memoryview


def fresh(message: Message, length: int) -> memoryview:
    """A new buffer for a body of `length` bytes."""
    return memoryview(bytearray(length))


class Reused:
    """Gives a body's buffer again once nothing refers to it: touching new pages costs more than the copy into them.

    Keeps the last two, which is what a consumer needs that looks at one body while the next arrives.
    """

    KEPT = 2

    def __init__(self) -> None:
        self._buffers: List[bytearray] = []

    def __call__(self, message: Message, length: int) -> memoryview:
        """A buffer of `length` bytes that no one else holds."""
        for buffer in self._buffers:
            if len(buffer) == length and _is_free(buffer):
                return memoryview(buffer)
        buffer = bytearray(length)
        self._buffers = [*self._buffers[1 - self.KEPT :], buffer]
        return memoryview(buffer)


def _is_free(buffer: bytearray) -> bool:
    """Whether no view of it is left: only then Python lets it change its size."""
    try:
        buffer.append(0)
    except BufferError:
        return False
    buffer.pop()
    return True


class Receiver:
    """Receives messages: fill `wanted()`, then say how much came with `advance(count)`.

    `allocate(message, length)` gives the buffer that a body is received into; it is called once the header has been
    checked. After an exception the stream cannot be used any more.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS, types: Types = TYPES, allocate: Allocate = fresh) -> None:
        self._limits = limits
        self._types = types
        self._allocate = allocate
        self._restart()

    def _restart(self) -> None:
        self._prefix: Optional[Prefix] = None
        self._message: Optional[Message] = None
        self._buffer = memoryview(bytearray(PREFIX_BYTES))
        self._filled = 0

    @property
    def between_messages(self) -> bool:
        """Whether no byte of an unfinished message has come."""
        return self._prefix is None and self._filled == 0

    def wanted(self) -> memoryview:
        """The rest of the buffer being filled, never empty: the next bytes of the stream belong there."""
        return self._buffer[self._filled :]

    def advance(self, count: int) -> Optional[Received]:
        """`count` bytes have been put into `wanted()`; the message, if that was its last byte.

        Raises ProtocolError for what the codec refuses.
        """
        self._filled += count
        while self._filled == len(self._buffer):
            received = self._next_part()
            if received is not None:
                return received
        return None

    def finish(self) -> None:
        """The stream has ended. Raises Truncated inside a message."""
        if not self.between_messages:
            raise Truncated("the connection ended inside a message; the peer may have died")

    def _next_part(self) -> Optional[Received]:
        if self._prefix is None:
            self._prefix = parse_prefix(self._buffer, self._limits, self._types)
            self._buffer = memoryview(bytearray(self._prefix.header_length))
        elif self._message is None:
            self._message = parse_header(self._prefix, self._buffer, self._limits)
            length = self._prefix.body_length
            self._buffer = self._allocate(self._message, length) if length else memoryview(b"")
        else:
            received = Received(self._message, self._buffer)
            self._restart()
            return received
        self._filled = 0
        return None
