"""The worker's end of the pipe: whole messages in, messages out from any thread.

It owns the socket and the codec's use. It must not know jobs.
"""

from __future__ import annotations

import socket
import threading

from nuke_hdrgen.wire import codec
from nuke_hdrgen.wire.limits import Limits
from nuke_hdrgen.wire.messages import Message
from nuke_hdrgen.wire.worker_messages import WORKER_TYPES


class PipeEnded(Exception):
    """The gateway closed the pipe, or has gone."""


class Link:
    """A blocking connection to the gateway."""

    def __init__(self, sock: socket.socket, limits: Limits) -> None:
        self._sock, self._limits = sock, limits
        self._sending = threading.Lock()

    def send(self, message: Message) -> None:
        """Send a message. Raises PipeEnded."""
        data = codec.encode(message)
        with self._sending:
            try:
                self._sock.sendall(data)
            except OSError as error:
                raise PipeEnded(str(error)) from error

    def receive(self) -> Message:
        """Wait for the next message. Raises PipeEnded, or ProtocolError when the gateway is at fault."""
        prefix = codec.parse_prefix(self._exactly(codec.PREFIX_BYTES), self._limits, WORKER_TYPES)
        return codec.parse_header(prefix, self._exactly(prefix.header_length), self._limits)

    def _exactly(self, count: int) -> bytearray:
        data = bytearray(count)
        view = memoryview(data)
        while view:
            try:
                got = self._sock.recv_into(view)
            except OSError as error:
                raise PipeEnded(str(error)) from error
            if got == 0:
                raise PipeEnded("the gateway closed the pipe")
            view = view[got:]
        return data
