"""The gateway: what connections and workers share, its clockwork, and its end.

It owns start, tick, drain and stop. It must not know the bytes of messages nor how workers compute.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from hdrgen_server import __version__
from hdrgen_server.gateway.clock import Clock
from hdrgen_server.gateway.connection import Connection
from hdrgen_server.gateway.dispatch import Dispatcher
from hdrgen_server.gateway.job import Job
from hdrgen_server.gateway.listen import Listener, check_peer, peer_of
from hdrgen_server.gateway.metrics import Metrics
from hdrgen_server.gateway.runtime import remove_endpoint, write_endpoint
from hdrgen_server.gateway.slots import SlotPool, slots_folder
from hdrgen_server.gateway.tasks import TaskKeeper
from hdrgen_server.gateway.workers import Worker, WorkerPlan
from hdrgen_server.packs import licence
from hdrgen_server.packs.manifest import Pack
from hdrgen_server.packs.registry import Registry, load_registry
from hdrgen_server.settings import Settings
from nuke_hdrgen.wire import messages as m
from nuke_hdrgen.wire.errors import Busy, HDRGenError, TooLarge
from nuke_hdrgen.wire.windows import Windows

log = logging.getLogger(__name__)

TICK_S = 0.25
METRICS_S = 15.0
TOLD_JOBS = 64  # health names no more than these, the running ones first
SLOT_IDLE_S = 60.0
SOCKET_BUFFER = 4 << 20


@dataclass(frozen=True)
class Plan:
    """How one gateway runs: its folder, who may connect, its devices and when it ends."""

    runtime: Path
    devices: tuple[str, ...]
    idle_exit_s: float = 0.0
    members: frozenset[int] = frozenset()
    group: int | None = None
    worker_log: Path | None = None


class Gateway:
    """Everything that lives as long as the process. Use `run`; `stop` ends it from a signal or a test."""

    def __init__(self, settings: Settings, plan: Plan, listener: Listener, clock: Clock, token: str | None) -> None:
        self.settings, self.plan, self.clock, self.token = settings, plan, clock, token
        self.limits = settings.limits
        self.metrics = Metrics()
        self.registry: Registry = load_registry(settings)
        self.pool = SlotPool(slots_folder(plan.runtime))
        self.dispatcher = Dispatcher(
            self.pool, clock, self.metrics, self.limits.queue_jobs, self.limits.session_frames, settings.cancel_grace_s
        )
        self.tasks = TaskKeeper(self._failed)
        self.dispatcher.keep_tasks(self.tasks)
        self._listener = listener
        self._connections: set[Connection] = set()
        self._numbers = count(1)
        self._started = self._busy_at = clock.now()
        self._metrics_at = self._started
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._broken: BaseException | None = None
        plan_of_workers = WorkerPlan(
            self.pool.folder, plan.worker_log, self.limits.worker_silence_s, self.limits.worker_loading_s
        )
        self.dispatcher.workers.extend(
            Worker(device, plan_of_workers, clock, self.limits, self.dispatcher) for device in plan.devices
        )

    async def run(self) -> None:
        """Serve until `stop`, the end of idleness, or a failure that nobody expected (which is raised)."""
        workers = [self.tasks.keep(worker.run()) for worker in self.dispatcher.workers]
        accepting = self.tasks.keep(self._accept())
        ticking = self.tasks.keep(self._tick_for_ever())
        try:
            write_endpoint(
                self.plan.runtime,
                {"address": self._listener.address, "pid": os.getpid(), "version": __version__, "token": self.token},
                group=self.plan.group,
            )
            log.info("gateway ready", extra={"pid": os.getpid(), "slots": self.pool.folder.name})
            await self._stopping.wait()
            accepting.cancel()
            self._listener.close()
            await self._drain()
        finally:
            ticking.cancel()
            for connection in list(self._connections):
                await connection.finish()
            await asyncio.gather(*(worker.stop() for worker in self.dispatcher.workers), return_exceptions=True)
            await asyncio.gather(*workers, return_exceptions=True)
            await self.tasks.cancel_all()
            self._listener.close()
            remove_endpoint(self.plan.runtime)
            self.pool.close()
        if self._broken is not None:
            raise self._broken

    def stop(self, *, hurry: bool = False) -> None:
        """End: no new jobs, open ones get `drain_s`, none when in a hurry or asked twice."""
        if hurry or self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    # What connections ask

    def refuse_when_stopping(self) -> None:
        """Raises Busy once the gateway ends."""
        if self._stopping.is_set():
            raise Busy("the sidecar is ending; start it again or try in 5 s", retry_after_s=5.0)

    def require_licence(self, pack: Pack) -> None:
        """Raises LicenceNotAccepted."""
        licence.require(pack, self.settings)

    def new_job(self, connection: Connection, request: m.Open, pack: Pack) -> Job:
        """A job of this connection, not yet in the queue."""
        assert connection.session is not None
        return Job(
            f"j{next(self._numbers)}",
            connection.session,
            connection,
            request,
            pack,
            self.clock.now(),
        )

    def cancel(self, session: tuple[int, str], name: str) -> None:
        """Cancel a session's job by its name, whichever connection opened it."""
        for connection in self._connections:
            job = connection.jobs.get(name)
            if job is not None and connection.session == session:
                self.dispatcher.cancel(job)
                return

    def disconnected(self, connection: Connection) -> None:
        """A connection has ended."""
        self._connections.discard(connection)
        self._busy_at = self.clock.now()

    def welcome(self) -> m.Welcome:
        """The answer to hello."""
        return m.Welcome(
            package=__version__,
            pid=os.getpid(),
            limits=self.limits.as_numbers(),
            queue=self._queue_info(),
            packs=tuple(self._pack_info(pack) for pack in self.registry.all()),
            workers=tuple(worker.info() for worker in self.dispatcher.workers),
            settings=self.settings.digest,
            defaults=self.registry.default_names(),
        )

    def health(self) -> m.Health:
        """Live, ready and ready for each pack, with what explains them."""
        now = self.clock.now()
        workers = self.dispatcher.workers
        ready = any(worker.ready for worker in workers) and not self._stopping.is_set()
        loaded = {name for worker in workers if worker.ready for name in worker.packs}
        return m.Health(
            live=True,
            ready=ready,
            packs_ready={pack.name: ready and pack.name in loaded for pack in self.registry.all()},
            uptime_s=now - self._started,
            queue=self._queue_info(),
            sessions=len({c.session for c in self._connections if c.session is not None}),
            workers=tuple(worker.info() for worker in workers),
            recent_errors=self.metrics.recent_errors(now),
            counters=self.metrics.counters(self._gauges()),
            jobs=tuple(
                job.info(max(0, self.dispatcher.queue.position(job))) for job in self.dispatcher.open_jobs[:TOLD_JOBS]
            ),
        )

    def tick(self, now: float) -> None:
        """Everything that time decides: deadlines, progress, silence, idleness."""
        for connection in list(self._connections):
            connection.check(now)
        for worker in self.dispatcher.workers:
            worker.check(now)
        self.dispatcher.check(now)
        for job in self.dispatcher.open_jobs:
            if now - job.told_at >= self.limits.progress_s / 2:
                self.dispatcher.tell_progress(job)
        self.pool.look_again()
        self.pool.trim(now - SLOT_IDLE_S)
        if self._connections or self.dispatcher.open_jobs:
            self._busy_at = now
        if self.plan.idle_exit_s and now - self._busy_at > self.plan.idle_exit_s:
            log.info("gateway idle, ending")
            self.stop()
        if now - self._metrics_at >= METRICS_S:
            self._metrics_at = now
            writing = asyncio.to_thread(self.metrics.write_file, self.plan.runtime, self._gauges())
            self.tasks.keep(writing, fatal=False)

    async def _tick_for_ever(self) -> None:
        while True:
            await self.clock.sleep(TICK_S)
            self.tick(self.clock.now())

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(self._listener.socket)
            except OSError as error:  # out of descriptors: those that are open go on
                log.warning("cannot accept a connection", extra={"why": error.strerror})
                await self.clock.sleep(TICK_S)
                continue
            self.tasks.keep(self._welcome_peer(sock), fatal=False)

    async def _welcome_peer(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
        peer = peer_of(sock)
        connection = Connection(self, sock, peer)
        try:
            if sock.family == socket.AF_UNIX:
                check_peer(peer, self.plan.members)
            if len(self._connections) >= self.limits.connections:
                raise TooLarge(
                    f"the sidecar has {self.limits.connections} connections, its limit; close one, or raise "
                    "limit_connections"
                )
        except HDRGenError as error:
            await connection.refuse(error)
            return
        self._connections.add(connection)
        await connection.serve()

    async def _drain(self) -> None:
        """Wait for open jobs, up to the limit, then cancel them."""
        log.info("gateway draining", extra={"jobs": len(self.dispatcher.open_jobs)})
        deadline = self.clock.now() + self.settings.drain_s
        while self.dispatcher.open_jobs and not self._hurry.is_set() and self.clock.now() < deadline:
            await self.clock.sleep(TICK_S)
        for job in self.dispatcher.open_jobs:
            self.dispatcher.cancel(job)

    def _failed(self, error: BaseException) -> None:
        self._broken = error
        self.stop(hurry=True)

    def _queue_info(self) -> m.QueueInfo:
        return m.QueueInfo(len(self.dispatcher.queue), self.dispatcher.queue.limit)

    def _gauges(self) -> dict[str, float]:
        return {
            "queue_depth": float(len(self.dispatcher.queue)),
            "connections": float(len(self._connections)),
            "slot_bytes": float(self.pool.held_bytes),
            "slots_held": float(self.pool.held),
            "worker_restarts": float(sum(worker.restarts for worker in self.dispatcher.workers)),
        }

    def _pack_info(self, pack: Pack) -> m.PackInfo:
        descriptor = pack.descriptor
        windows = descriptor.windows(descriptor.resolve({})) if descriptor.temporal else Windows(1, 0)
        return m.PackInfo(
            name=pack.name,
            system=pack.system,
            digest=pack.digest,
            revision=pack.revision,
            operations=descriptor.operations,
            preview=pack.preview,
            licence=pack.licence,
            licence_ok=licence.accepted(pack, self.settings),
            window=windows.size,
            overlap=windows.overlap,
        )


def new_token() -> str:
    """A token that nobody guesses, short enough for the wire."""
    return secrets.token_urlsafe(32)
