"""One worker process at a time for a device: started, heard, ended, and started again after a pause.

It owns the process, its socketpair and its silence. It must not know jobs' frames or clients; the dispatcher hears
what the worker says.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hdrgen_server.gateway.channel import Channel
from hdrgen_server.gateway.clock import Clock
from hdrgen_server.gateway.stream import ConnectionLost
from hdrgen_server.gateway.supervision import START_FAILURES_LIMIT, Fault, backoff_s, exit_text, silence_limit_s
from nuke_hdrgen.wire import messages as m
from nuke_hdrgen.wire import worker_messages as w
from nuke_hdrgen.wire.errors import ProtocolError
from nuke_hdrgen.wire.limits import Limits

log = logging.getLogger(__name__)

TERM_GRACE_S = 5.0
STOP_GRACE_S = 5.0


class Listener(Protocol):
    """Who hears of a worker."""

    def worker_ready(self, worker: Worker) -> None:
        """It can take jobs."""
        ...

    def worker_said(self, worker: Worker, message: m.Message) -> None:
        """It sent a message other than `w_ready` and `w_beat`."""
        ...

    def worker_lost(self, worker: Worker, fault: Fault, text: str) -> None:
        """It has ended; nothing reads or writes its slots any more."""
        ...

    def worker_cannot_start(self, worker: Worker, text: str) -> None:
        """It has failed several times before it was ready."""
        ...


@dataclass(frozen=True)
class WorkerPlan:
    """How workers are started and when they count as hung."""

    slots: Path
    log_path: Path | None
    silence_s: float
    load_silence_s: float
    command: tuple[str, ...] = (sys.executable, "-m", "hdrgen_server.worker")


class Worker:
    """The worker of one device, through all its processes. `state` is starting, ready, waiting or stopped."""

    def __init__(self, device: str, plan: WorkerPlan, clock: Clock, limits: Limits, listener: Listener) -> None:
        self.device = device
        self.state = "starting"
        self.phase = "starting"
        self.packs: tuple[str, ...] = ()
        self.memory_free_mib = 0.0
        self.memory_total_mib = 0.0
        self.restarts = 0
        self.failures = 0
        self.pid: int | None = None
        self._plan, self._clock, self._limits, self._listener = plan, clock, limits, listener
        self._channel: Channel | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._heard_at = 0.0
        self._fault: Fault = "died"
        self._killed_at: float | None = None
        self._was_ready = False
        self._stopping = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether it can take a job now."""
        return self.state == "ready" and self._killed_at is None

    def info(self) -> m.WorkerInfo:
        """What clients see of it."""
        return m.WorkerInfo(self.device, self.state, self.packs, self.memory_free_mib, self.memory_total_mib)

    async def run(self) -> None:
        """Keep a process running until `stop`."""
        while not self._stopping.is_set():
            ready_before = await self._one_life()
            if self._stopping.is_set():
                break
            self.failures += 1
            self.restarts += 1
            if not ready_before and self.failures >= START_FAILURES_LIMIT:
                self._listener.worker_cannot_start(self, f"the worker for {self.device} does not start")
            self.state = "waiting"
            await self._pause(backoff_s(self.failures))
        self.state = "stopped"

    def send(self, message: m.Message) -> None:
        """Send a message to the process; nothing happens when it has gone."""
        if self._channel is not None:
            self._channel.send(message)

    def did_well(self) -> None:
        """A job ended well: past failures no longer lengthen the pause."""
        self.failures = 0

    def check(self, now: float) -> None:
        """End the process when it has been silent too long; kill it when it does not end."""
        if self._process is None:
            return
        if self._killed_at is not None:
            if now - self._killed_at > TERM_GRACE_S:
                self._signal(signal.SIGKILL)
            return
        limit = silence_limit_s(self.phase, self._plan.silence_s, self._plan.load_silence_s)
        if now - self._heard_at > limit:
            self.end("hung", f"silent for {limit:.0f} s")

    def end(self, fault: Fault, why: str) -> None:
        """End the process; it is started again."""
        log.warning("worker ended on purpose", extra={"device": self.device, "pid": self.pid, "why": why})
        self._fault, self._killed_at = fault, self._clock.now()
        self._signal(signal.SIGTERM)

    async def stop(self) -> None:
        """Close the pipe, which ends the process; kill it when that takes too long."""
        self._stopping.set()
        if self._channel is not None:
            self._channel.close()
        process = self._process
        if process is not None:
            try:
                await asyncio.wait_for(process.wait(), STOP_GRACE_S)
            except TimeoutError:
                self._signal(signal.SIGKILL)
                await process.wait()

    async def _pause(self, seconds: float) -> None:
        sleeping = asyncio.ensure_future(self._clock.sleep(seconds))
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({sleeping, stopping}, return_when=asyncio.FIRST_COMPLETED)
        sleeping.cancel()
        stopping.cancel()

    async def _one_life(self) -> bool:
        """Start a process and hear it until it ends; whether it was ever ready."""
        self.state = self.phase = "starting"
        self.packs, self._fault, self._killed_at, self._was_ready = (), "died", None, False
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await self._start(theirs)
            except OSError as error:  # no memory or descriptors for a process: tried again after the pause
                ours.close()
                log.warning("worker cannot be started", extra={"device": self.device, "why": error.strerror})
                return False
        self._process, self.pid, self._heard_at = process, process.pid, self._clock.now()
        log.info("worker started", extra={"device": self.device, "pid": process.pid})
        channel = self._channel = Channel(ours, self._clock, w.WORKER_TYPES, lambda: None)
        if self._stopping.is_set():  # `stop` came while the process started, and had no pipe to close
            channel.close()
        try:
            await self._hear(channel)
        except (ConnectionLost, ProtocolError) as error:
            log.info("worker's pipe ended", extra={"device": self.device, "why": str(error)})
        finally:
            channel.close()
            self._channel, self.state = None, "waiting"  # what it is sent from here on would be lost
        ready = self._was_ready
        code = await self._reap(process)
        self._process = self.pid = None
        text = exit_text(code)
        if not self._stopping.is_set():
            log.warning("worker ended", extra={"device": self.device, "exit": text, "fault": self._fault})
        self._listener.worker_lost(self, self._fault, text)
        return ready

    async def _start(self, theirs: socket.socket) -> asyncio.subprocess.Process:
        stream = None if self._plan.log_path is None else self._plan.log_path.open("ab")
        try:
            return await asyncio.create_subprocess_exec(
                *self._plan.command,
                *("--device", self.device, "--fd", str(theirs.fileno()), "--slots", str(self._plan.slots)),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        finally:
            if stream is not None:
                stream.close()

    async def _reap(self, process: asyncio.subprocess.Process) -> int:
        try:
            return await asyncio.wait_for(asyncio.shield(process.wait()), TERM_GRACE_S)
        except TimeoutError:
            self._signal(signal.SIGKILL)
            return await process.wait()

    async def _hear(self, channel: Channel) -> None:
        while True:
            _, message = await channel.receive(self._limits)
            self._heard_at = self._clock.now()
            if isinstance(message, w.WBeat):
                self.phase, self.packs = message.phase, message.packs
                self.memory_free_mib = message.memory_free_mib
            elif isinstance(message, w.WReady):
                self.memory_free_mib, self.memory_total_mib = message.memory_free_mib, message.memory_total_mib
                self.state, self.phase, self._was_ready = "ready", "idle", True
                self._listener.worker_ready(self)
            else:
                self._listener.worker_said(self, message)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)
