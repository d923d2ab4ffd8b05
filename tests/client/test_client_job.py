"""Jobs over a real socket: streaming both ways, cancel, errors in the middle, and storing results."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nuke_hdrgen.client.address import Endpoint, parse_address
from nuke_hdrgen.client.connection import Connection, connect
from nuke_hdrgen.client.job import cancel_job, run_job, write_result
from nuke_hdrgen.wire import messages as m
from nuke_hdrgen.wire.errors import BadInput, Cancelled, InvalidMessage, NoServer, OperatorFailed, StorageError
from tests.fakes.fake_gateway import HEALTH, FakeGateway, Side, echo, result_of

ACESCG = m.Colourspace("ACEScg", "lin_ap1_scene")
SIDE = 512
BODY = os.urandom(SIDE * SIDE * 16)


def opened(frames: int, name: str = "job") -> m.Open:
    return m.Open(name, "echo", frames, ACESCG, "echo", encoding="raw")


def frame(index: int) -> m.Frame:
    return m.Frame("any", index, 1001 + index, "f32", (SIDE, SIDE, 4), ("R", "G", "B", "A"), ACESCG)


def frames(count: int) -> Iterator[tuple[m.Frame, bytes]]:
    return ((frame(i), BODY) for i in range(count))


def link(gateway: FakeGateway) -> Connection:
    return connect(Endpoint(parse_address(gateway.address)), "session")


def test_frames_go_up_while_results_come_down(tmp_path: Path) -> None:
    pulled: list[int] = []
    progress: list[m.Progress] = []

    def source() -> Iterator[tuple[m.Frame, bytes]]:
        for i in range(8):
            pulled.append(i)
            yield frame(i), BODY

    with FakeGateway(tmp_path / "s") as gateway, link(gateway) as connection:
        job = run_job(connection, opened(8), source(), progress.append)
        first, body = next(job)
        assert bytes(body) == BODY
        assert len(pulled) < 8, "the first result came before the last frame was asked for"
        rest = list(job)
        assert [first.index, *(r.index for r, _ in rest)] == list(range(8))
        assert all(bytes(b) == BODY for _, b in rest)
        assert [p.frame for p in progress] == list(range(8))
        assert {p.id for p in progress} == {"job"}
        assert list(run_job(connection, opened(0, "next"), ())) == [], "the connection serves the next job"


def test_cancel_takes_a_second_connection(tmp_path: Path) -> None:
    event = threading.Event()

    def stuck(side: Side) -> None:
        side.greet()
        side.take(m.Open)
        side.take(m.Frame)
        event.set()
        assert side.gateway.cancelled.wait(10)
        side.send(m.Error("cancelled", "cancelled", id="job"))
        side.receive()

    with FakeGateway(tmp_path / "s", stuck, echo) as gateway, link(gateway) as connection:
        with pytest.raises(Cancelled):
            list(run_job(connection, opened(9), frames(9), cancel_event=event))
        assert gateway.seen == [m.Cancel("job"), m.Status()]
        assert gateway.hellos[1].session == "session"


def test_a_job_that_ends_before_its_cancel_is_done(tmp_path: Path) -> None:
    event = threading.Event()

    def late(side: Side) -> None:
        side.greet()
        for kind in (m.Open, m.End):
            side.take(kind)
        event.set()
        assert side.gateway.cancelled.wait(10)
        side.send(m.Done("job", 0, 0.1))
        side.receive()

    with FakeGateway(tmp_path / "s", late, echo) as gateway, link(gateway) as connection:
        assert list(run_job(connection, opened(0), (), cancel_event=event)) == []
        cancel_job(connection, "job")
        assert gateway.seen.count(m.Cancel("job")) == 2


def test_results_before_an_error_stay(tmp_path: Path) -> None:
    def half(side: Side) -> None:
        side.greet()
        side.take(m.Open)
        received = side.receive()
        assert isinstance(received.message, m.Frame)
        side.send(result_of(received.message, received.body), received.body)
        side.send(m.Error("operator_failed", "it broke; see the log", {"frame": 1}, id="job"))
        while not isinstance(side.receive().message, m.Status):
            pass
        side.send(HEALTH)

    with FakeGateway(tmp_path / "s", half) as gateway, link(gateway) as connection:
        got: list[m.Result] = []
        small = m.Frame("x", 1, 2, "f32", (1, 1, 1), ("Y",), ACESCG)
        source = [(frame(0), BODY), (small, bytes(4))]
        with pytest.raises(OperatorFailed, match="it broke") as caught:
            got.extend(result for result, _ in run_job(connection, opened(2), source))
        assert [r.index for r in got] == [0]
        assert caught.value.details == {"frame": 1}
        assert connection.ask(m.Status(), m.Health).live, "the connection can be used again"


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (m.Error("bad_input", "a frame is broken"), BadInput, "broken"),
        (m.Progress("other", "queued"), InvalidMessage, "something else"),
        (m.Error("bad_input", "not ours", id="other"), InvalidMessage, "something else"),
        (m.End("job"), InvalidMessage, "something else"),
        (m.Done("job", 3, 0.1), InvalidMessage, "announced 3 results and sent 0"),
    ],
)
def test_what_may_not_come_ends_the_connection(
    tmp_path: Path, answer: m.Message, error: type[Exception], says: str
) -> None:
    def wrong(side: Side) -> None:
        side.greet()
        side.take(m.Open)
        side.take(m.End)
        side.send(answer)
        side.receive()

    with (
        FakeGateway(tmp_path / "s", wrong) as gateway,
        link(gateway) as connection,
        pytest.raises(error, match=says),
    ):
        list(run_job(connection, opened(0), ()))


def test_done_before_end_is_refused(tmp_path: Path) -> None:
    hold = threading.Event()

    def early(side: Side) -> None:
        side.greet()
        side.take(m.Open)
        side.send(m.Done("job", 0, 0.1))
        hold.set()
        side.receive()

    def source() -> Iterator[tuple[m.Frame, bytes]]:
        assert hold.wait(10)
        yield frame(0), BODY
        yield frame(1), BODY

    with (
        FakeGateway(tmp_path / "s", early) as gateway,
        link(gateway) as connection,
        pytest.raises(InvalidMessage, match="done may not come while uploading"),
    ):
        list(run_job(connection, opened(2), source()))


@pytest.mark.parametrize("how", ["leave", "source fails"])
def test_leaving_early_ends_the_job(tmp_path: Path, how: str) -> None:
    gone = threading.Event()

    def watch(side: Side) -> None:
        try:
            echo(side)
        finally:
            gone.set()

    def source() -> Iterator[tuple[m.Frame, bytes]]:
        yield frame(0), BODY
        if how == "source fails":
            raise ZeroDivisionError
        yield frame(1), BODY

    with FakeGateway(tmp_path / "s", watch) as gateway:
        connection = link(gateway)
        job = run_job(connection, opened(5), source())
        if how == "leave":
            next(job)
            job.close()  # type: ignore[attr-defined]
        else:
            with pytest.raises(ZeroDivisionError):
                list(job)
        assert gone.wait(10), "the gateway hears of it"


def test_the_server_dies_in_the_middle(tmp_path: Path) -> None:
    def die(side: Side) -> None:
        side.greet()
        side.take(m.Open)
        side.take(m.Frame)

    with FakeGateway(tmp_path / "s", die) as gateway, link(gateway) as connection, pytest.raises(NoServer):
        list(run_job(connection, opened(3), frames(3)))


def test_a_result_is_stored_as_it_is(tmp_path: Path) -> None:
    result = result_of(frame(0), BODY)
    path = tmp_path / "out.0001.exr"
    path.write_bytes(b"old")
    write_result(result, memoryview(BODY), str(path))
    assert path.read_bytes() == BODY
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InvalidMessage, match="damaged"):
        write_result(result, BODY[:-1], str(path))
    assert path.read_bytes() == BODY
    unsigned = m.Result("j", 0, 1, "exr", (1, 1, 1), (), ACESCG)
    write_result(unsigned, b"x", str(tmp_path / "new.exr"))
    assert (tmp_path / "new.exr").read_bytes() == b"x"


def test_no_partial_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = result_of(frame(0), BODY)
    with pytest.raises(StorageError, match="No such file"):
        write_result(result, BODY, str(tmp_path / "missing" / "out.exr"))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        write_result(result, BODY, str(tmp_path / "out.exr"))
    assert list(tmp_path.iterdir()) == []
