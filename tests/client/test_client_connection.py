"""The blocking connection: hello, deadlines, both ways at once, and how each kind of end is told."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nuke_hdrgen.client import connection as c
from nuke_hdrgen.client.address import Address, Endpoint, parse_address
from nuke_hdrgen.wire import messages as m
from nuke_hdrgen.wire.codec import encode
from nuke_hdrgen.wire.errors import (
    Busy,
    InvalidMessage,
    NoServer,
    PermissionRefused,
    ServerTimeout,
    Truncated,
    VersionMismatch,
)
from nuke_hdrgen.wire.limits import Limits
from tests.fakes.fake_gateway import HEALTH, FakeGateway, Side, echo

ACESCG = m.Colourspace("ACEScg", "lin_ap1_scene")
BIG = m.Frame("j", 0, 1, "f32", (1024, 1024, 4), ("R", "G", "B", "A"), ACESCG)
BIG_BODY = bytes(range(256)) * (BIG.shape[0] * BIG.shape[1] * 16 // 256)


def endpoint(gateway: FakeGateway, token: str | None = None) -> Endpoint:
    return Endpoint(parse_address(gateway.address), token=token)


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_hello_and_a_question(tmp_path: Path, kind: str) -> None:
    with (
        FakeGateway(tmp_path / "s" if kind == "unix" else None) as gateway,
        c.connect(endpoint(gateway, "token"), "session", "nuke 15") as connection,
    ):
        assert connection.welcome is not None
        assert connection.welcome.pid == os.getpid()
        assert connection.ask(m.Status(), m.Health) == HEALTH
        with connection.again() as second:
            assert second.ask(m.Status(), m.Health) == HEALTH
        assert gateway.hellos[0] == m.Hello("session", "nuke 15", token="token")
        assert gateway.hellos[1] == gateway.hellos[0]


def test_bodies_cross_both_ways_at_once(tmp_path: Path) -> None:
    with FakeGateway(tmp_path / "s") as gateway, c.connect(endpoint(gateway), "s") as connection:
        for _ in range(3):
            connection.post(BIG, BIG_BODY)
        connection.send(m.End("j"))
        assert not connection.sending
        received = [connection.receive() for _ in range(7)]
        bodies = [r.body for r in received if isinstance(r.message, m.Result)]
        assert [bytes(body) for body in bodies] == [BIG_BODY] * 3
        assert isinstance(received[-1].message, m.Done)


def test_nothing_listens(tmp_path: Path) -> None:
    with pytest.raises(NoServer, match="hdrgen serve"):
        c.connect(Endpoint(Address(str(tmp_path / "none"))), "s")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(NoServer, match="refused"):
            c.connect(Endpoint(Address(port=taken.getsockname()[1])), "s")


def test_a_system_without_unix_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    with pytest.raises(NoServer, match="cannot open"):
        c.connect(Endpoint(Address("/run/x")), "s")


def test_an_error_instead_of_welcome(tmp_path: Path) -> None:
    def refuse(side: Side) -> None:
        side.take(m.Hello)
        side.send(m.Error("busy", "full; try again in 3 s", {"retry_after_s": 3}))

    with FakeGateway(tmp_path / "s", refuse) as gateway, pytest.raises(Busy, match="full") as caught:
        c.connect(endpoint(gateway), "s")
    assert caught.value.details == {"retry_after_s": 3}


def test_an_answer_of_another_kind(tmp_path: Path) -> None:
    def confused(side: Side) -> None:
        side.take(m.Hello)
        side.send(HEALTH)

    with FakeGateway(tmp_path / "s", confused) as gateway, pytest.raises(InvalidMessage, match="hello with health"):
        c.connect(endpoint(gateway), "s")


def test_another_major_version(tmp_path: Path) -> None:
    def newer(side: Side) -> None:
        side.take(m.Hello)
        side.sock.sendall(b"HDRG\x02\x01" + bytes(14))
        side.receive()

    with FakeGateway(tmp_path / "s", newer) as gateway, pytest.raises(VersionMismatch, match=r"2\.1.*1\.0"):
        c.connect(endpoint(gateway), "s")


@pytest.mark.parametrize(("sent", "error"), [(b"", NoServer), (b"HDRG\x01", Truncated)])
def test_the_server_ends(tmp_path: Path, sent: bytes, error: type[Exception]) -> None:
    def leave(side: Side) -> None:
        side.greet()
        side.take(m.Status)
        side.sock.sendall(sent)

    with (
        FakeGateway(tmp_path / "s", leave) as gateway,
        c.connect(endpoint(gateway), "s") as connection,
        pytest.raises(error),
    ):
        connection.ask(m.Status(), m.Health)


def test_a_reset(tmp_path: Path) -> None:
    def reset(side: Side) -> None:
        side.greet()
        side.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        side.sock.close()

    with (
        FakeGateway(None, reset) as gateway,
        c.connect(endpoint(gateway), "s") as connection,
        pytest.raises(NoServer, match="gone"),
    ):
        connection.receive()


def test_a_server_that_stops_reading_is_still_heard() -> None:
    ours, theirs = socket.socketpair()
    with theirs, c.Connection(ours, c.Peer(Endpoint(Address("/x")), "s", "c")) as connection:
        theirs.sendall(encode(m.Error("too_large", "over the limit")))
        theirs.shutdown(socket.SHUT_RD)
        connection.post(BIG, BIG_BODY)
        connection._write()
        assert not connection.sending, "the rest is given up"
        message = connection.receive().message
        assert isinstance(message, m.Error)
        assert message.code == "too_large"


def test_what_comes_while_sending_waits_for_receive() -> None:
    ours, theirs = socket.socketpair()
    with theirs, c.Connection(ours, c.Peer(Endpoint(Address("/x")), "s", "c")) as connection:
        theirs.sendall(encode(HEALTH))
        connection.send(m.Status())
        assert connection.receive().message == HEALTH


def test_ten_seconds_of_silence(tmp_path: Path) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    def silent(side: Side) -> None:
        side.greet()
        side.take(m.Status)
        side.receive()

    limits = Limits(silence_s=3.0)
    with (
        FakeGateway(tmp_path / "s", silent) as gateway,
        c.connect(endpoint(gateway), "s", limits=limits, clock=clock) as connection,
    ):
        connection.send(m.Status())
        with pytest.raises(ServerTimeout, match="silent"):
            [connection.exchange(0.0) for _ in range(9)]


def test_a_full_or_an_empty_socket_is_no_fault() -> None:
    ours, theirs = socket.socketpair()
    with theirs, c.Connection(ours, c.Peer(Endpoint(Address("/x")), "s", "c")) as connection:
        connection.post(BIG, BIG_BODY)
        for _ in range(64):
            connection._write()
        assert connection.sending
        assert connection._read() is None


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="Linux only")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
def test_another_users_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    script = (
        "import os, socket, sys\n"
        "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1])\n"
        "os.setuid(12345); s.listen(); print('ready', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"ready\n"
        with pytest.raises(PermissionRefused, match="another user"):
            c.connect(Endpoint(Address(str(path))), "s")
        limits = Limits(silence_s=0.0)
        with pytest.raises((ServerTimeout, NoServer)):
            c.connect(Endpoint(Address(str(path)), named=True), "s", limits=limits)
        process.stdin.close()


def test_a_system_that_cannot_tell_the_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "SO_PEERCRED", raising=False)
    with FakeGateway(tmp_path / "s", echo) as gateway, c.connect(endpoint(gateway), "s") as connection:
        assert connection.welcome is not None
