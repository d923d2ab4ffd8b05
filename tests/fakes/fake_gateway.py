"""A gateway of a hundred lines on a real socket, scripted by each test; as a program it stands in for the sidecar.

It owns no policy: a script says what to answer. It must not be used where the real gateway can run.
"""

# ruff: noqa: E402

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from nuke_hdrgen.wire import messages as m
from nuke_hdrgen.wire.codec import encode
from nuke_hdrgen.wire.limits import Limits
from nuke_hdrgen.wire.stream import Received, Receiver

VERSION = "0.1.0"
HEALTH = m.Health(True, True, {}, 1.0, m.QueueInfo(0, 1), 1)


class Gone(Exception):
    """The client closed its end."""


class Side:
    """The gateway's end of one connection: blocking, one message at a time."""

    def __init__(self, sock: socket.socket, gateway: FakeGateway) -> None:
        self.sock = sock
        self.gateway = gateway
        self._receiver = Receiver()

    def receive(self) -> Received:
        while True:
            try:
                count = self.sock.recv_into(self._receiver.wanted())
            except ConnectionError as error:
                raise Gone from error
            if not count:
                raise Gone
            received = self._receiver.advance(count)
            if received is not None:
                return received

    def take(self, kind: type[m.Message]) -> m.Message:
        message = self.receive().message
        assert isinstance(message, kind), f"expected {kind.NAME}, got {message}"
        return message

    def send(self, message: m.Message, body: bytes | memoryview = b"") -> None:
        try:
            self.sock.sendall(encode(message, len(body)))
            if len(body):  # a client that has its answer may be gone
                self.sock.sendall(body)
        except ConnectionError as error:
            raise Gone from error

    def greet(self, **changes: object) -> m.Hello:
        hello = self.take(m.Hello)
        assert isinstance(hello, m.Hello)
        self.gateway.hellos.append(hello)
        fields = {"package": VERSION, "pid": os.getpid(), "settings": "s1", **changes}
        self.send(m.Welcome(limits=Limits().as_numbers(), queue=m.QueueInfo(0, 1), **fields))
        return hello


def end(sock: socket.socket) -> None:
    """Wake whoever waits on either end; the other end may have gone already."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


Script = Callable[[Side], None]


def result_of(frame: m.Frame, body: bytes | memoryview) -> m.Result:
    """The frame as a result."""
    digest = hashlib.sha256(body).hexdigest()
    return m.Result(
        frame.id, frame.index, frame.number, frame.format, frame.shape, frame.channels, frame.colourspace, sha256=digest
    )


def echo(side: Side) -> None:
    """Greets, gives every frame back, answers status, cancels what it is told to."""
    side.greet()
    results = 0
    while True:
        received = side.receive()
        message = received.message
        side.gateway.seen.append(message)
        if isinstance(message, m.Frame):
            side.send(m.Progress(message.id, "step", message.index, 1, 1))
            side.send(result_of(message, received.body), received.body)
            results += 1
        elif isinstance(message, m.End):
            side.send(m.Done(message.id, results, 0.5))
            results = 0
        elif isinstance(message, m.Status):
            side.send(HEALTH)
        elif isinstance(message, m.Cancel):
            side.gateway.cancelled.set()


class FakeGateway:
    """Listens on a Unix socket, or loopback TCP, and runs the next script for each connection, the last one again."""

    def __init__(self, path: Path | None, *scripts: Script) -> None:
        self.scripts = list(scripts) or [echo]
        self.hellos: list[m.Hello] = []
        self.seen: list[m.Message] = []
        self.cancelled = threading.Event()
        self.failures: list[BaseException] = []
        self._sides: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_INET if path is None else socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(("127.0.0.1", 0) if path is None else str(path))
        self._listener.listen()
        name = self._listener.getsockname()
        self.address = f"unix:{name}" if path is not None else f"tcp:127.0.0.1:{name[1]}"
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> FakeGateway:
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(10)
        for side in tuple(self._sides):
            end(side)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), "a script of the fake gateway hangs"
        assert not self.failures, self.failures

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
            self._sides.append(sock)
            thread = threading.Thread(target=self._run, args=(script, sock), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, script: Script, sock: socket.socket) -> None:
        try:
            script(Side(sock, self))
        except Gone:
            pass
        except (AssertionError, OSError, ValueError) as error:
            self.failures.append(error)  # raised where the gateway is left
        finally:
            self._sides.remove(sock)
            end(sock)
            sock.close()


def main() -> int:
    """A sidecar's outside: endpoint file, socket, one line of log; ends with its standard input when told so."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent-fd", type=int)
    parser.add_argument("--fail", action="store_true")
    parser.add_argument("--never-ready", action="store_true")
    parser.add_argument("--deaf", action="store_true")
    options = parser.parse_args()
    folder = Path(os.environ["XDG_RUNTIME_DIR"]) / "hdrgen"
    with (folder / "starts").open("a") as stream:
        stream.write(f"{os.getpid()}\n")
    (folder / "environment.json").write_text(json.dumps(dict(os.environ)))
    if options.fail:
        sys.stderr.write("first line\nthe device is on fire\n\n")
        return 5
    if not options.never_ready:
        socket_path = folder / "socket"
        socket_path.unlink(missing_ok=True)
        with FakeGateway(socket_path) as gateway:
            said = {"address": gateway.address, "pid": os.getpid(), "version": VERSION, "token": None}
            beside = folder / "beside"
            beside.write_text(json.dumps(said))
            beside.chmod(0o600)
            beside.replace(folder / "endpoint.json")
            wait_for_end(options)
        return 0
    wait_for_end(options)
    return 0


def wait_for_end(options: argparse.Namespace) -> None:
    """Until the parent's pipe ends; without one, or deaf to it, until a signal."""
    if options.parent_fd is not None and not options.deaf:
        os.read(options.parent_fd, 1)
    else:
        threading.Event().wait()


if __name__ == "__main__":
    sys.exit(main())
