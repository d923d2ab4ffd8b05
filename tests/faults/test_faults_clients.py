"""What a client, a stranger or a second server can do to the gateway, which must answer in one line and go on."""

from __future__ import annotations

import grp
import hashlib
import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from hdrgen_server.image.exr import read_exr_frame
from nuke_hdrgen.client.address import parse_address
from nuke_hdrgen.client.connection import connect
from nuke_hdrgen.client.job import cancel_job, run_job
from nuke_hdrgen.wire import codec
from nuke_hdrgen.wire import messages as m
from nuke_hdrgen.wire.errors import (
    BadInput,
    BadParameter,
    Busy,
    Cancelled,
    PermissionRefused,
    UnknownPack,
)
from tests.faults.sidecar import SPACE, body, echo, frame, frames_of, order, sidecar

HELLO = codec.encode(m.Hello(session="raw", client="test"))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clients")
    with sidecar(folder, limit_header_deadline_s=1, limit_queue_jobs=2, limit_frame_bytes=1 << 20) as running:
        running.until(lambda h: h.ready)
        yield running
        assert running.process.poll() is None
        assert "Traceback" not in running.text()


def raw(server) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(str(server.runtime / "hdrgen.sock"))
    return sock


def read_message(sock: socket.socket):
    def exactly(count):
        data = b""
        while len(data) < count:
            part = sock.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    prefix = codec.parse_prefix(exactly(codec.PREFIX_BYTES))
    return codec.parse_header(prefix, exactly(prefix.header_length))


def answer_to(server, data: bytes, *, hello: bool = True, skip: tuple[type[m.Message], ...] = ()):
    """The error that bytes get, after which the connection must have ended."""
    with closing(raw(server)) as sock:
        if hello:
            sock.sendall(HELLO)
            assert isinstance(read_message(sock), m.Welcome)
        with suppress(BrokenPipeError, ConnectionResetError):  # the rest of a body that was refused
            sock.sendall(data)
        while isinstance(error := read_message(sock), skip):
            pass
        with pytest.raises((EOFError, ConnectionResetError)):  # reset: what was sent after the fault is not read
            read_message(sock)
        return error


def test_folder_socket_and_endpoint_are_private(server):
    assert stat.S_IMODE(server.runtime.stat().st_mode) == 0o700
    assert stat.S_IMODE((server.runtime / "hdrgen.sock").stat().st_mode) == 0o600
    endpoint = server.runtime / "endpoint.json"
    assert stat.S_IMODE(endpoint.stat().st_mode) == 0o600
    said = json.loads(endpoint.read_text())
    assert said["pid"] == server.process.pid
    assert parse_address(said["address"]).path == str(server.runtime / "hdrgen.sock")


def test_the_gateway_has_no_torch_nor_numpy(server):
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "python" in maps
    assert "torch" not in maps
    assert "numpy" not in maps


def test_hello_is_answered_within_half_a_second_of_the_start(tmp_path):
    """In the process's own time: what else runs on the machine must not decide. `hdrgen bench wire` has wall time."""
    with sidecar(tmp_path) as running:
        running.connect().close()
        used = psutil.Process(running.process.pid).cpu_times()
        assert used.user + used.system <= 0.5


def test_a_bracket_is_merged_by_the_worker_into_a_tagged_file(server):
    light = np.random.default_rng(2).random((9, 16, 3), dtype=np.float32)
    request = m.Open(
        id="merge", operation="hdrfuse", frames=3, output=SPACE, pack="merge", parameters={"reference": 1}
    )  # fmt: skip
    bracket = [
        (
            replace(frame(i, "merge"), format="f32", shape=(9, 16, 3), ev=ev),
            np.clip(light * 2**ev, 0, 1).astype("<f4").tobytes(),
        )
        for i, ev in enumerate((-2.0, 0.0, 2.0))
    ]
    with server.connect() as connection:
        ((result, data),) = run_job(connection, request, bracket)
        health = connection.ask(m.Status(), m.Health)
    assert hashlib.sha256(data).hexdigest() == result.sha256
    merged = read_exr_frame(bytes(data))
    assert merged.colourspace.interop_id == "lin_rec709_scene"
    assert merged.metadata["hdrgen/key"] == result.key
    np.testing.assert_allclose(merged.rgb, light, atol=2e-3)
    assert health.packs_ready["merge"]


def test_a_silent_client_is_told_and_closed(server):
    with closing(raw(server)) as sock:
        assert read_message(sock).code == "timeout"


def test_a_header_that_drips_is_closed(server):
    with closing(raw(server)) as sock:
        sock.sendall(HELLO)
        read_message(sock)
        sock.sendall(codec.encode(m.Status())[:10])
        assert read_message(sock).code == "timeout"


@pytest.mark.parametrize(
    ("data", "hello", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", False, "invalid_message"),
        (codec.PREFIX.pack(b"HDRG", 9, 0, 1, 2, 0), False, "version_mismatch"),
        (codec.PREFIX.pack(b"HDRG", 1, 0, 1, 1 << 20, 0), False, "too_large"),
        (codec.encode(m.Status()), False, "invalid_message"),
        (HELLO, True, "invalid_message"),
        (codec.PREFIX.pack(b"HDRG", 1, 0, 4, 2, 1 << 40), True, "too_large"),
        (codec.PREFIX.pack(b"HDRG", 1, 0, 64, 2, 0) + b"{}", True, "invalid_message"),
        (codec.PREFIX.pack(b"HDRG", 1, 0, 11, 9, 0) + b'{"a":NaN}', True, "invalid_message"),
        (codec.encode(frame(0, "never"), len(body())) + body(), True, "invalid_message"),
        (codec.encode(m.End("never")), True, "invalid_message"),
        (codec.encode(echo("gap")) + codec.encode(frame(1, "gap"), len(body())), True, "invalid_message"),
        (codec.encode(echo("short", 2)) + codec.encode(m.End("short")), True, "invalid_message"),
        (codec.encode(echo("same")) + codec.encode(echo("same")), True, "invalid_message"),
    ],
)
def test_what_the_protocol_forbids_ends_the_connection_with_its_code(server, data, hello, code):
    assert answer_to(server, data, hello=hello).code == code


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (replace(order("p"), pack="nowhere"), UnknownPack),
        (order("p", depth=3), BadParameter),
        (order("p", at="two"), BadParameter),
        (order("p", 0), BadInput),
        (replace(order("p"), operation="txt2hdr"), BadParameter),
    ],
)
def test_a_job_that_cannot_run_is_refused_at_open_and_the_connection_stays(server, request_, error):
    with server.connect() as connection, pytest.raises(error):
        list(run_job(connection, request_, frames_of(request_)))
    server.works()


def test_frames_for_a_refused_job_are_read_and_dropped(server):
    with server.connect() as connection:
        connection.post(replace(order("no", 2), pack="nowhere"))
        for index in range(2):
            connection.post(frame(index, "no"), body())
        connection.post(m.End("no"))
        connection.post(m.Status())
        assert connection.receive().message.code == "unknown_pack"
        assert isinstance(connection.receive().message, m.Health)


def test_the_queue_has_an_end_and_says_when_to_come_back(server):
    with server.connect("many") as connection:
        for number in range(3):  # none has a frame, so none starts
            connection.post(order(f"wait-{number}"))
        while not isinstance(message := connection.receive().message, m.Error):
            assert isinstance(message, m.Progress)
        assert message.id == "wait-2"
        assert isinstance(message.exception(), Busy)
        assert message.details["retry_after_s"] > 0
    server.until(lambda h: h.queue.depth == 0)


def test_cancel_of_a_queued_job_from_a_second_connection_is_idempotent(server):
    with server.connect("canceller") as connection:
        connection.post(order("queued"))
        assert isinstance(connection.receive().message, m.Progress)
        with server.connect("stranger") as stranger:  # another session's cancel does nothing
            stranger.post(m.Cancel("queued"))
            assert stranger.ask(m.Status(), m.Health).queue.depth == 1
        cancel_job(connection, "queued")
        cancel_job(connection, "queued")
        cancel_job(connection, "unknown")
        while isinstance(message := connection.receive().message, m.Progress):
            pass
        assert message.code == Cancelled.code
        connection.post(m.Status())
        assert isinstance(connection.receive().message, m.Health)
        ((result, _),) = run_job(connection, order("after"), frames_of(order("after")))
        cancel_job(connection, "after")
        assert result.index == 0


@pytest.mark.parametrize("cut", ["open", "half a header", "half a body", "a frame", "end"])
def test_a_client_that_goes_away_leaves_nothing_behind(server, cut):
    head = codec.encode(frame(0, "gone"), len(body()))
    sent = {
        "open": b"",
        "half a header": head[:30],
        "half a body": head + body()[:100],
        "a frame": head + body(),
        "end": head + body() + codec.encode(m.End("gone")),
    }[cut]
    request = order("gone", fault="slow", gate="/nonexistent/gate")
    with closing(raw(server)) as sock:
        sock.sendall(HELLO + codec.encode(request) + sent)
        read_message(sock)
        read_message(sock)
    server.until(lambda h: h.counters["slots_held"] == 0 and h.queue.depth == 0)
    server.works()


def test_echo_gives_back_every_byte_of_many_frames(server):
    request = echo("bytes", 9)
    sent = [(frame(i, "bytes"), os.urandom(len(body()))) for i in range(9)]
    with server.connect() as connection:
        got = [bytes(data) for _, data in run_job(connection, request, sent)]
    assert got == [data for _, data in sent]
    server.until(lambda h: h.counters["slots_held"] == 0)


def test_a_client_that_writes_all_before_it_reads_is_no_deadlock(server):
    frames = [codec.encode(frame(i, "greedy"), len(body())) + bytes([i]) * len(body()) for i in range(200)]
    data = HELLO + codec.encode(echo("greedy", 200)) + b"".join(frames) + codec.encode(m.End("greedy"))
    with closing(raw(server)) as sock:
        sender = threading.Thread(target=sock.sendall, args=(data,))
        sender.start()
        sender.join(30)
        assert not sender.is_alive()
        assert isinstance(read_message(sock), m.Welcome)


def second(server, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hdrgen_server.gateway", "--device", "cpu", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_a_second_server_ends_with_3_and_names_the_first(server, tmp_path):
    for arguments in (
        ("--runtime-dir", str(server.runtime)),
        ("--runtime-dir", str(tmp_path), "--socket", str(server.runtime / "hdrgen.sock")),
    ):
        ended = second(server, *arguments)
        assert ended.returncode == 3
        assert f"pid {server.process.pid}" in ended.stderr
        assert ended.stderr.count("\n") == 1
    server.works()


def test_a_file_at_the_sockets_path_is_left_alone(tmp_path):
    there = tmp_path / "precious"
    there.write_text("mine")
    ended = second(None, "--runtime-dir", str(tmp_path / "run"), "--socket", str(there))
    assert ended.returncode == 4
    assert there.read_text() == "mine"


def test_a_socket_path_that_is_too_long_is_named(tmp_path):
    ended = second(None, "--runtime-dir", str(tmp_path / "run"), "--socket", "/tmp/" + "x" * 120)
    assert ended.returncode == 2
    assert "107" in ended.stderr


def test_a_stale_socket_is_replaced_and_everything_goes_at_sigterm(tmp_path):
    (tmp_path / "run").mkdir()
    with closing(socket.socket(socket.AF_UNIX)) as stale:
        stale.bind(str(tmp_path / "run" / "hdrgen.sock"))
    with sidecar(tmp_path) as running:
        running.works()
        assert running.end() == 0
        left = {path.name for path in running.runtime.iterdir()}
        assert left == {"server.lock", "gateway.log", "worker.log"}


def test_sigterm_lets_a_running_job_finish(tmp_path):
    gate = tmp_path / "gate"
    with sidecar(tmp_path) as running:
        stepping, results = threading.Event(), []
        request = order("last", fault="slow", gate=str(gate))

        def work():
            with running.connect() as connection:
                progress = lambda p: stepping.set() if p.phase == "step" else None  # noqa: E731
                results.extend(r.index for r, _ in run_job(connection, request, frames_of(request), progress))

        thread = threading.Thread(target=work)
        thread.start()
        assert stepping.wait(30)
        running.process.send_signal(signal.SIGTERM)
        gate.touch()
        thread.join(30)
        assert results == [0]
        assert running.process.wait(20) == 0


def test_the_gateway_and_its_worker_end_with_the_parent(tmp_path):
    with sidecar(tmp_path, "--parent-fd", "0") as running:
        running.until(lambda h: h.ready)
        with open(f"/proc/{running.process.pid}/task/{running.process.pid}/children") as stream:
            worker = int(stream.read().split()[0])
        running.process.stdin.close()
        assert running.process.wait(20) == 0
        assert not Path(f"/proc/{worker}").exists()


def test_a_worker_does_not_outlive_a_killed_gateway(tmp_path):
    with sidecar(tmp_path) as running:
        running.until(lambda h: h.ready)
        with open(f"/proc/{running.process.pid}/task/{running.process.pid}/children") as stream:
            worker = os.pidfd_open(int(stream.read().split()[0]))
        running.process.kill()
        running.process.wait()
        assert select.select([worker], [], [], 10)[0], "the worker lives on"
        os.close(worker)


def test_tcp_needs_the_token(tmp_path):
    with sidecar(tmp_path, "--tcp") as running:
        path = running.runtime / "endpoint.json"
        deadline = time.monotonic() + 20
        while not path.exists():
            assert time.monotonic() < deadline
        said = json.loads(path.read_text())
        endpoint = replace(running.endpoint, address=parse_address(said["address"]), token=said["token"])
        with connect(endpoint, "tcp") as connection:
            assert connection.ask(m.Status(), m.Health).live
        for token in (None, "wrong"):
            with pytest.raises(PermissionRefused, match="token"):
                connect(replace(endpoint, token=token), "tcp")
        assert said["token"] not in running.text() + (running.runtime / "gateway.log").read_text()


def test_an_idle_server_ends_by_itself(tmp_path):
    with sidecar(tmp_path, "--idle-exit", "0.5") as running:
        running.connect().close()
        assert running.process.wait(20) == 0


def test_a_body_over_the_limit_that_is_really_sent_is_refused_and_the_next_client_served(server):
    big = replace(frame(0, "huge"), shape=(512, 512, 3))
    data = codec.encode(big, 512 * 512 * 6) + bytes(512 * 512 * 6)
    error = answer_to(server, codec.encode(order("huge")) + data, skip=(m.Progress,))
    assert error.code == "too_large"
    server.until(lambda h: h.counters["slots_held"] == 0)
    server.works()


def test_a_server_shared_with_a_group_lets_its_members_reach_it(tmp_path):
    name = grp.getgrgid(os.getgid()).gr_name
    with sidecar(tmp_path, "--socket-group", name) as running:
        running.connect().close()
        modes = {p: stat.S_IMODE((running.runtime / p).stat().st_mode) for p in (".", "hdrgen.sock", "endpoint.json")}
        assert modes == {".": 0o750, "hdrgen.sock": 0o660, "endpoint.json": 0o640}


def test_an_unknown_group_is_named(tmp_path):
    ended = second(None, "--runtime-dir", str(tmp_path / "run"), "--socket-group", "no-such-group")
    assert ended.returncode == 2
    assert "no-such-group" in ended.stderr
