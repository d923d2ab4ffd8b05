"""What a client meets when the worker dies, hangs or runs out of memory: a typed error or the result, never silence."""

from __future__ import annotations

import os
import resource
import signal
import threading

import pytest

from nuke_hdrgen.client.job import run_job
from nuke_hdrgen.wire.errors import Cancelled, OperatorFailed, OutOfMemory, StorageError, WorkerDied, WorkerHung
from tests.faults.sidecar import Sidecar, body, frames_of, order, sidecar


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with sidecar(tmp_path_factory.mktemp("faults"), limit_worker_silence_s=3, limit_progress_s=0.5) as running:
        yield running
        assert running.process.poll() is None


def no_slots_held(server: Sidecar) -> None:
    server.until(lambda h: h.counters["slots_held"] == 0)


@pytest.mark.parametrize("fault", ["kill", "quit", "abort"])
def test_a_worker_that_dies_once_costs_a_retry_and_no_result(server, fault):
    pid = server.process.pid
    results = server.run(order("once", 3, fault=fault, at=1, until=1))
    assert [result.index for result, _ in results] == [0, 1, 2]
    assert all(len(data) == 2 * len(body()) for _, data in results)
    assert server.health().live
    assert server.process.poll() is None
    assert server.process.pid == pid
    no_slots_held(server)


def test_sigkill_from_outside_in_the_middle_of_a_job(server, tmp_path):
    gate = tmp_path / "gate"
    stepping, killed = threading.Event(), threading.Event()
    results = []

    def work():
        with server.connect("victim") as connection:
            request = order("outside", fault="slow", gate=str(gate))
            for result, _ in run_job(
                connection, request, frames_of(request), lambda p: stepping.set() if p.phase == "step" else None
            ):
                results.append(result)
        killed.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert stepping.wait(30)
    os.kill(worker_pid(server), signal.SIGKILL)
    gate.touch()
    thread.join(60)
    assert killed.is_set()
    assert [r.index for r in results] == [0]
    server.works()


def test_a_job_that_kills_every_worker_ends_with_a_typed_error(server):
    with pytest.raises(WorkerDied, match=r"twice \(killed.*MiB needed"):
        server.run(order("twice", fault="kill"))
    server.works()
    no_slots_held(server)


def test_results_before_the_error_stay_valid(server):
    arrived = []
    with server.connect() as connection, pytest.raises(WorkerDied):  # noqa: PT012
        request = order("late", 2, fault="kill", at=1)
        arrived.extend(result.index for result, _ in run_job(connection, request, frames_of(request)))
    server.works()


def test_a_hung_worker_is_killed_and_named(server):
    with pytest.raises(WorkerHung, match="fell silent"):
        server.run(order("hung", fault="hold"))
    server.works()


def test_an_operator_that_raises_is_named_without_its_text(server):
    with pytest.raises(OperatorFailed) as caught:
        server.run(order("raise", fault="raise"))
    assert "somebody" not in caught.value.message
    assert "ZeroDivisionError" in caught.value.message
    assert "Traceback" in server.text()


def test_sys_exit_in_an_operator_does_not_end_anything(server):
    with pytest.raises((OperatorFailed, WorkerDied)):
        server.run(order("exit", fault="exit"))
    server.works()


@pytest.mark.parametrize("fault", ["memory", "torch-memory"])
def test_memory_goes_down_the_ladder_and_then_names_what_was_free(server, fault):
    with pytest.raises(OutOfMemory) as caught:
        server.run(order("oom", fault=fault))
    assert caught.value.details["free_mib"] > 0
    assert caught.value.details["needed_mib"] > 0
    for rung in (2, 3):
        assert len(server.run(order("oom", fault=fault, until=rung))) == 1


def test_cancel_reaches_a_running_job_and_frees_its_slots(server):
    stop = threading.Event()
    with server.connect() as connection, pytest.raises(Cancelled):  # noqa: PT012
        request = order("stop", 2, fault="slow", gate="/nonexistent/gate")
        for _ in run_job(
            connection, request, frames_of(request), lambda p: stop.set() if p.phase == "step" else None, stop
        ):
            pass
    no_slots_held(server)
    server.works()


def test_progress_comes_while_a_step_is_slow(server, tmp_path):
    gate = tmp_path / "gate"
    seen = []

    def progressed(progress):
        seen.append(progress.phase)
        if seen.count("step") == 4:
            gate.touch()

    server.run(order("slow", fault="slow", gate=str(gate)), on_progress=progressed)
    assert seen[0] == "queued"
    assert seen.count("step") >= 4


def test_another_session_is_served_while_a_job_waits_for_its_frames(server):
    request = order("patient", 2)
    first, second = frames_of(request)
    with server.connect("patient") as connection:

        def frames():
            yield first
            server.works()  # the worker has taken the first frame and waits
            yield second

        assert len(list(run_job(connection, request, frames()))) == 2


def worker_pid(server: Sidecar) -> int:
    children = f"/proc/{server.process.pid}/task/{server.process.pid}/children"
    with open(children) as stream:
        return int(stream.read().split()[-1])


def test_a_worker_that_ignores_a_cancel_is_killed(tmp_path):
    gate, stop = tmp_path / "held", threading.Event()

    def cancel_once_held():
        while not gate.exists():
            stop.wait(0.005)
        stop.set()

    with sidecar(tmp_path / "server", cancel_grace_s=0.3) as running:
        threading.Thread(target=cancel_once_held, daemon=True).start()
        with running.connect() as connection, pytest.raises(Cancelled):  # noqa: PT012
            request = order("deaf", fault="hold", gate=str(gate))
            for _ in run_job(connection, request, frames_of(request), None, stop):
                pass
        running.until(lambda h: h.counters["worker_restarts"] == 1)
        no_slots_held(running)
        running.works()


def test_a_full_disk_ends_the_job_that_needs_room_and_no_other(tmp_path):
    """The kernel refuses the gateway a larger file just when a result needs its slot."""
    gate = tmp_path / "gate"
    with sidecar(tmp_path / "server") as running:
        pid = running.process.pid
        no_limit = resource.prlimit(pid, resource.RLIMIT_FSIZE)

        def fill(progress):
            if progress.phase == "step":
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (1 << 19, no_limit[1]))
                gate.touch()

        with pytest.raises(StorageError, match="no room for 1 MiB"):
            running.run(order("result", fault="slow", gate=str(gate)), on_progress=fill)
        no_slots_held(running)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, no_limit)
        running.works()
        assert "Traceback" not in running.text()
