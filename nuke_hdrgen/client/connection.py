"""One blocking conversation with the sidecar: bytes move both ways at once, and silence has a limit.

It owns the socket, hello, the peer's check and deadlines by the monotonic clock. It must not know what a job is.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Callable, Deque, Optional, Type, TypeVar

from nuke_hdrgen.client.address import Address, Endpoint
from nuke_hdrgen.wire.codec import Buffer, encode
from nuke_hdrgen.wire.errors import InvalidMessage, NoServer, PermissionRefused, ServerTimeout
from nuke_hdrgen.wire.limits import Limits
from nuke_hdrgen.wire.messages import Error, Hello, Message, Welcome
from nuke_hdrgen.wire.stream import Received, Receiver, Reused

Clock = Callable[[], float]
M = TypeVar("M", bound=Message)

DEFAULT_LIMITS = Limits()
_SOCKET_BUFFER = 4 * 1024 * 1024
_WAIT_S = 0.25
_UCRED = struct.Struct("3i")


@dataclass(frozen=True)
class Peer:
    """How to reach a server again: its endpoint, and who is asking."""

    endpoint: Endpoint
    session: str
    client: str


class Connection:
    """A greeted connection. Use `connect` to get one; close it, or use it in a `with` block. One thread at a time."""

    def __init__(
        self,
        sock: socket.socket,
        peer: Peer,
        limits: Limits = DEFAULT_LIMITS,
        clock: Clock = time.monotonic,
    ) -> None:
        sock.setblocking(False)
        self.peer = peer
        self.limits = limits
        self.clock = clock
        self.welcome: Optional[Welcome] = None
        self._socket = sock
        self._receiver = Receiver(limits, allocate=Reused())
        self._outgoing: Deque[memoryview] = deque()
        self._incoming: Deque[Received] = deque()
        self._silent_s = 0.0
        self._selector = selectors.DefaultSelector()
        self._selector.register(sock, selectors.EVENT_READ)

    def __enter__(self) -> Connection:
        """The connection itself."""
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """End the connection; the server cancels what was still open on it."""
        self._selector.close()
        self._socket.close()

    @property
    def sending(self) -> bool:
        """Whether posted bytes still wait to be taken by the server."""
        return bool(self._outgoing)

    def post(self, message: Message, body: Buffer = b"") -> None:
        """Queue a message; `exchange` sends it. The body must not change until it has gone."""
        view = memoryview(body).cast("B")
        self._outgoing.append(memoryview(encode(message, view.nbytes)))
        if view.nbytes:
            self._outgoing.append(view)

    def exchange(self, wait_s: float) -> Optional[Received]:
        """Move bytes both ways for at most `wait_s`; give back one whole message as soon as there is one.

        Raises ServerTimeout after `limits.silence_s` in which nothing moved while waiting, NoServer when the server
        is gone, Truncated when it went inside a message, and ProtocolError for what the codec refuses.
        """
        if self._incoming:
            return self._incoming.popleft()
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._outgoing else 0)
        self._selector.modify(self._socket, wanted)
        started = self.clock()
        ready = self._selector.select(wait_s)
        if not ready:
            self._silent_s += self.clock() - started
            if self._silent_s > self.limits.silence_s:
                raise ServerTimeout(
                    f"the sidecar has been silent for {self._silent_s:.0f} s; see `hdrgen status`, or restart it"
                )
            return None
        self._silent_s = 0.0
        if ready[0][1] & selectors.EVENT_READ:
            received = self._read()
            if received is not None:
                return received
        if ready[0][1] & selectors.EVENT_WRITE:
            self._write()
        return None

    def send(self, message: Message, body: Buffer = b"") -> None:
        """Send a message and wait until it has gone; what comes meanwhile waits for `receive`."""
        self.post(message, body)
        arrived: Deque[Received] = deque()
        while self._outgoing:
            received = self.exchange(_WAIT_S)
            if received is not None:
                arrived.append(received)
        self._incoming.extend(arrived)

    def receive(self) -> Received:
        """The next message."""
        while True:
            received = self.exchange(_WAIT_S)
            if received is not None:
                return received

    def ask(self, question: Message, answer: Type[M]) -> M:
        """Send a message and return its answer. Raises what the server reports, or InvalidMessage."""
        self.send(question)
        message = self.receive().message
        if isinstance(message, Error):
            raise message.exception()
        if not isinstance(message, answer):
            raise InvalidMessage(f"the server answered {question.NAME} with {message.NAME}")
        return message

    def again(self) -> Connection:
        """A second connection of the same session."""
        return connect(self.peer.endpoint, self.peer.session, self.peer.client, self.limits, self.clock)

    def _read(self) -> Optional[Received]:
        try:
            while True:
                count = self._socket.recv_into(self._receiver.wanted())
                if count == 0:
                    self._receiver.finish()
                    raise NoServer("the sidecar ended the connection; see `hdrgen status`, or restart it")
                received = self._receiver.advance(count)
                if received is not None:
                    return received
        except BlockingIOError:
            return None
        except ConnectionError as error:
            raise NoServer("the sidecar has gone; see `hdrgen status`, or restart it") from error

    def _write(self) -> None:
        try:
            count = self._socket.send(self._outgoing[0])
        except BlockingIOError:
            return
        except ConnectionError:
            # The server has stopped reading; what it said before that is still to be read.
            self._outgoing.clear()
            return
        if count == self._outgoing[0].nbytes:
            self._outgoing.popleft()
        else:
            self._outgoing[0] = self._outgoing[0][count:]


def connect(
    endpoint: Endpoint,
    session: str,
    client: str = "nuke-hdrgen",
    limits: Limits = DEFAULT_LIMITS,
    clock: Clock = time.monotonic,
) -> Connection:
    """Connect and greet. `session` groups the connections of one user interface or shell.

    Raises NoServer, PermissionRefused when the socket is another user's, VersionMismatch, ServerTimeout, or what the
    server reports instead of its welcome.
    """
    with ExitStack() as undo:
        sock = _open_socket(endpoint.address, limits.silence_s)
        undo.callback(sock.close)
        if endpoint.address.path and not endpoint.named:
            check_peer(sock)
        connection = Connection(sock, Peer(endpoint, session, client), limits, clock)
        undo.callback(connection.close)
        connection.welcome = connection.ask(Hello(session=session, client=client, token=endpoint.token), Welcome)
        undo.pop_all()
    return connection


def check_peer(sock: socket.socket) -> None:
    """Raises PermissionRefused unless this user or root listens (SO_PEERCRED, Linux only: unix(7))."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return
    _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, option, _UCRED.size))
    if uid not in (os.getuid(), 0):
        raise PermissionRefused("the sidecar's socket belongs to another user; name it with --server if it is meant")


def _open_socket(address: Address, timeout_s: float) -> socket.socket:
    try:
        if address.path:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            target: object = address.path
        else:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            target = ("127.0.0.1", address.port)
    except (AttributeError, OSError) as error:
        raise NoServer(f"this system cannot open {address}") from error
    try:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER)
        sock.settimeout(timeout_s)
        sock.connect(target)
    except OSError as error:
        sock.close()
        reason = error.strerror or "it did not answer in time"
        raise NoServer(f"no sidecar answers at {address} ({reason}); start one with `hdrgen serve`") from error
    return sock
