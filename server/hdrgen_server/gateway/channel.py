"""Messages over one non-blocking socket: heads parsed, bodies left to the caller's buffers.

It owns the use of the codec on the gateway's side. It must not know sessions or jobs.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping

from hdrgen_server.gateway.clock import Clock
from hdrgen_server.gateway.stream import Outgoing, Reader, Writer
from nuke_hdrgen.wire import codec
from nuke_hdrgen.wire.limits import Limits
from nuke_hdrgen.wire.messages import Message

Head = tuple[codec.Prefix, Message]


class Channel:
    """One connection with the codec on top. Not thread-safe."""

    def __init__(
        self,
        sock: socket.socket,
        clock: Clock,
        types: Mapping[int, type[Message]],
        lost: Callable[[], None],
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.types = types
        self.reader = Reader(sock, clock)
        self.writer = Writer(sock, clock, lost)
        self._prefix = bytearray(codec.PREFIX_BYTES)

    async def receive(self, limits: Limits) -> Head:
        """The next message's prefix and header, of one of `types`; its body is still in the socket.

        Raises ProtocolError, or ConnectionLost when the peer has gone.
        """
        await self.reader.read_into(memoryview(self._prefix), at_start=True)
        prefix = codec.parse_prefix(self._prefix, limits, self.types)
        header = bytearray(prefix.header_length)
        await self.reader.read_into(memoryview(header))
        return prefix, codec.parse_header(prefix, header, limits)

    def send(
        self, message: Message, body: memoryview | None = None, sent: Callable[[], None] | None = None
    ) -> Outgoing:
        """Put a message in the line; `sent` is called when it has gone, or has been dropped."""
        length = 0 if body is None else len(body)
        head = memoryview(codec.encode(message, length))
        outgoing = Outgoing(head, memoryview(b"") if body is None else body, sent=sent)
        self.writer.push(outgoing)
        return outgoing

    def send_growing(self, message: Message, body: memoryview, sent: Callable[[], None]) -> Outgoing:
        """As `send`, for a body of which nothing has arrived yet: raise `ready`, then call `writer.kick`."""
        outgoing = Outgoing(memoryview(codec.encode(message, len(body))), body, ready=0, sent=sent)
        self.writer.push(outgoing)
        return outgoing

    async def flush(self, seconds: float) -> None:
        """Wait until everything has been sent, but not longer than this."""
        try:
            await asyncio.wait_for(self.writer.drained.wait(), seconds)
        except TimeoutError:
            return

    def close(self) -> None:
        """Drop what waits and close the socket; once is enough."""
        if self._sock.fileno() >= 0:
            self.writer.close()
            self.reader.close()
            self._sock.close()
