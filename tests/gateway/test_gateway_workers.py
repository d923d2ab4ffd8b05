"""Real processes that start badly, close their pipe or ignore signals, under the real supervisor and dispatcher."""

from __future__ import annotations

import asyncio
import resource
import sys
from contextlib import asynccontextmanager

import pytest

from hdrgen_server.gateway.runtime import write_endpoint
from hdrgen_server.gateway.slots import SlotPool, slots_folder
from hdrgen_server.gateway.workers import Worker, WorkerPlan
from nuke_hdrgen.wire import messages as m
from nuke_hdrgen.wire.errors import StorageError
from tests.gateway.test_gateway_clockwork import order, served

READY = """
import socket, sys, signal
from nuke_hdrgen.wire import codec, worker_messages as w
sock = socket.socket(fileno=int(sys.argv[sys.argv.index("--fd") + 1]))
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sock.sendall(codec.encode(w.WReady(device="cpu", memory_total_mib=100.0, memory_free_mib=50.0, versions={})))
"""


def plan_of(tmp_path, *command: str) -> WorkerPlan:
    return WorkerPlan(tmp_path, None, 30.0, 600.0, command)


@asynccontextmanager
async def supervised(tmp_path, *command: str, drain_s: float = 30.0):
    """A gateway whose only worker is this command."""
    async with served(tmp_path, drain_s=drain_s) as world:
        gateway = world.gateway
        worker = Worker("cpu", plan_of(tmp_path, *command), world.clock, gateway.limits, gateway.dispatcher)
        gateway.dispatcher.workers.append(worker)  # before the gateway's first step, in which it starts its workers
        yield world, worker


@pytest.mark.parametrize("command", [(sys.executable, "-S", "-c", "raise SystemExit(7)"), ("/nonexistent/python",)])
def test_a_worker_that_never_starts_is_tried_with_longer_pauses_and_jobs_get_a_typed_error(tmp_path, command):
    async def go() -> None:
        async with supervised(tmp_path, *command) as (world, worker):
            client = await world.greeted()
            client.send(order("waits"))
            await client.next(m.Progress)
            for failures, pause in ((1, 1.0), (2, 2.0)):
                await world.until(lambda n=failures: worker.failures == n)
                await world.until(lambda s=pause: world.clock.time + s in [due for due, _ in world.clock.sleepers])
                before = worker.restarts
                world.tick(pause / 2)
                assert worker.restarts == before
                assert worker.pid is None
                assert world.gauge("queue_depth") == 1
                world.tick(pause / 2)
            error = await client.next(m.Error)
            assert (error.code, error.id) == ("worker_died", "waits")
            assert "hdrgen doctor" in error.message
            assert worker.failures == 3
            client.send(m.Status())
            assert not (await client.next(m.Health)).ready

    asyncio.run(go())


def test_a_worker_whose_pipe_has_ended_gets_no_job_and_is_killed_when_it_lives_on(tmp_path, monkeypatch):
    monkeypatch.setattr("hdrgen_server.gateway.workers.TERM_GRACE_S", 0.2)

    async def go() -> None:
        command = (sys.executable, "-c", READY + "sock.close(); signal.pause()")
        async with supervised(tmp_path, *command) as (world, worker):
            await world.until(lambda: worker.memory_total_mib == 100.0)
            await world.until(lambda: not worker.ready)
            await world.until(lambda: worker.failures == 1)
            assert worker.pid is None

    asyncio.run(go())


def test_a_worker_that_ignores_sigterm_is_killed_after_its_grace(tmp_path):
    async def go() -> None:
        async with supervised(tmp_path, sys.executable, "-c", READY + "signal.pause()") as (world, worker):
            await world.until(lambda: worker.ready)
            world.tick(601.0)
            assert not worker.ready
            assert worker.pid is not None
            world.tick(5.5)
            await world.until(lambda: worker.failures == 1)

    asyncio.run(go())


def test_a_stop_while_the_process_starts_does_not_wait_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr("hdrgen_server.gateway.workers.TERM_GRACE_S", 0.2)

    async def go() -> None:
        async with served(tmp_path) as world:
            command = (sys.executable, "-c", READY + "sock.recv(1)")
            worker = Worker(
                "cpu", plan_of(tmp_path, *command), world.clock, world.gateway.limits, world.gateway.dispatcher
            )
            running = asyncio.ensure_future(worker.run())
            await asyncio.sleep(0)  # it is in the middle of starting
            assert worker.pid is None
            await worker.stop()
            await asyncio.wait_for(running, 20)
            assert worker.state == "stopped"

    asyncio.run(go())


def test_a_stop_kills_a_worker_that_does_not_end_with_its_pipe(tmp_path, monkeypatch):
    monkeypatch.setattr("hdrgen_server.gateway.workers.STOP_GRACE_S", 0.2)

    async def go() -> None:
        async with supervised(tmp_path, sys.executable, "-c", READY + "signal.pause()") as (world, worker):
            await world.until(lambda: worker.ready)
            await worker.stop()
            await world.until(lambda: worker.state == "stopped")
            assert worker.pid is None

    asyncio.run(go())


def test_a_full_file_system_is_a_storage_error_and_holds_nothing(tmp_path):
    """The kernel's own refusal, through a limit on the size of files."""

    async def go() -> None:
        pool = SlotPool(slots_folder(tmp_path))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, hard))
        try:
            with pytest.raises(StorageError, match="no room for 1 MiB"):
                await pool.acquire(1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (pool.held, pool.held_bytes, list(pool.folder.iterdir())) == (0, 0, [])
        pool.close()
        with pytest.raises(StorageError):  # the folder has gone
            await pool.acquire(1)

    asyncio.run(go())


def test_no_room_for_the_endpoint_file_is_a_storage_error_and_leaves_nothing(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, hard))
    try:
        with pytest.raises(StorageError, match="--runtime-dir"):
            write_endpoint(tmp_path, {"pid": 1})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())
