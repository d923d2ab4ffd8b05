"""The worker process: hears the gateway, runs jobs, beats, and ends with its pipe.

It owns threads and the process's one broad except. It must not know sockets of clients, nor any system by name.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hdrgen_server import __version__
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.contracts.operator import Operator, Request
from hdrgen_server.packs.manifest import Pack
from hdrgen_server.packs.registry import load_registry
from hdrgen_server.settings import Settings
from hdrgen_server.worker.identity import record
from hdrgen_server.worker.job import Reports, WorkerJob, incoming, wait_for_slot
from hdrgen_server.worker.link import Link, PipeEnded
from hdrgen_server.worker.memory import MemoryState, free_caches, is_out_of_memory, memory_state
from hdrgen_server.worker.pixels import colourspace_of, encode, stated, system_space
from hdrgen_server.worker.shelf import Shelf
from hdrgen_server.worker.slots import SlotMap
from hdrgen_server.worker.turns import Turns
from nuke_hdrgen.wire import messages as m
from nuke_hdrgen.wire import worker_messages as w
from nuke_hdrgen.wire.errors import HDRGenError, OutOfMemory, UnknownPack
from nuke_hdrgen.wire.identity import result_key

log = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1


class Process:
    """Everything that the worker's threads share."""

    def __init__(self, device: str, sock: socket.socket, slots: Path, settings: Settings) -> None:
        self.device, self.settings = device, settings
        self.link = Link(sock, settings.limits)
        self.slots = SlotMap(slots)
        self.turns = Turns()
        self.shelf = Shelf(device, time.monotonic, self.memory)
        self._registry = load_registry(settings)
        self._jobs: dict[str, WorkerJob] = {}
        self._over = threading.Event()
        self.versions = {"hdrgen": __version__, "python": platform.python_version(), "numpy": np.__version__}

    def memory(self) -> MemoryState:
        """The device's memory within the budget of the settings."""
        return memory_state(self.device, self.settings.memory_budget_mib)

    def run(self) -> None:
        """Serve until the pipe ends."""
        state = self.memory()
        self.link.send(w.WReady(self.device, state.free_mib, state.total_mib, self.versions))
        threading.Thread(target=self._beat, name="beat", daemon=True).start()
        try:
            while True:
                self._hear(self.link.receive())
        except PipeEnded:
            log.info("pipe ended")
        finally:
            self._over.set()

    def pack(self, order: w.WOpen) -> Pack:
        """The pack of an order. Raises UnknownPack when another one has that name by now."""
        pack = self._registry.get(order.open.pack or "")
        if pack.digest != order.pack_digest:
            self._registry = load_registry(self.settings)
            pack = self._registry.get(order.open.pack or "")
        if pack.digest != order.pack_digest:
            raise UnknownPack(f"pack {pack.name} has changed since the sidecar started; restart the sidecar")
        return pack

    def _hear(self, message: m.Message) -> None:
        if isinstance(message, w.WOpen):
            job = WorkerJob(message)
            self._jobs[job.id] = job
            threading.Thread(target=self._run_job, args=(job,), name=job.id, daemon=True).start()
        elif isinstance(message, w.WFree):
            self.shelf.drop(message.pack or "")
        else:
            name = message.frame.id if isinstance(message, w.WFrame) else getattr(message, "id", "")
            job = self._jobs.get(name)
            if job is not None:
                job.hear(message)

    def _beat(self) -> None:
        while not self._over.wait(min(1.0, self.settings.limit_beat_s / 2)):
            if not self._beat_once():
                return
            self.shelf.drop_idle(self.settings.pack_idle_s)

    def _beat_once(self) -> bool:
        """Say what the worker does and holds; False when the pipe has ended."""
        phases = [job.phase for job in list(self._jobs.values())]
        quiet = next((p for p in ("loading", "compiling") if p in phases), phases[0] if phases else "idle")
        try:
            self.link.send(w.WBeat(quiet, self.memory().free_mib, tuple(self.shelf.names)))
        except PipeEnded:
            return False
        return True

    def _run_job(self, job: WorkerJob) -> None:
        """The top of a job's thread: whatever the operator raises becomes one message."""
        self.turns.take()
        try:
            answer: m.Message = run_job(self, job)
        except PipeEnded:
            return
        except HDRGenError as error:
            answer = w.WError(job.id, error.code, error.message, error.details, isinstance(error, OutOfMemory))
        except (Exception, SystemExit) as error:  # noqa: BLE001  # the one broad except of this process
            answer = self._failure(job, error)
        finally:
            self.turns.give_up()
            self._jobs.pop(job.id, None)
        free_caches()
        try:
            if self._beat_once():  # health knows of the loaded pack before the client is done
                self.link.send(answer)
        except PipeEnded:
            log.info("pipe ended before a job's answer")

    def _failure(self, job: WorkerJob, error: BaseException) -> w.WError:
        if is_out_of_memory(error):
            log.warning("out of memory", extra={"job": job.id, "rung": job.order.rung})
            return w.WError(job.id, OutOfMemory.code, "memory ran out", {"free_mib": self.memory().free_mib}, True)
        log.exception("operator failed", extra={"job": job.id, "pack": job.order.open.pack})
        text = f"{job.order.open.pack} failed: {type(error).__name__}; see the sidecar's worker.log"
        return w.WError(job.id, "operator_failed", text)


def run_job(process: Process, job: WorkerJob) -> w.WDone:
    """Run one job in its thread, holding the turn; its last message.

    Raises Cancelled, HDRGenError, and whatever the operator raises.
    """
    started = time.monotonic()
    reports = Reports(job, process.link.send)
    reports.phase("loading")
    pack = process.pack(job.order)
    if job.order.rung:
        process.shelf.drop()
        free_caches()
    first = _wait_for_first(job, process.turns)
    _make_room(process, job, pack, first)
    with process.shelf.operator(pack) as operator:
        operator.set_rung(job.order.rung)
        reports.phase("step")
        _Results(process, job, pack, operator, reports).run()
    return w.WDone(job.id, time.monotonic() - started, job.counts)


def _wait_for_first(job: WorkerJob, turns: Turns) -> w.WFrame | None:
    """The first frame, for its size; it stays in the line."""
    with turns.paused(), job.changed:
        job.changed.wait_for(lambda: job.waiting or job.ended or job.cancelled)
    job.raise_if_cancelled()
    return job.waiting[0] if job.waiting else None


def _make_room(process: Process, job: WorkerJob, pack: Pack, first: w.WFrame | None) -> None:
    """Drop unused packs until the prediction fits. Raises OutOfMemory, naming needed and free, when it does not."""
    request = job.order.open
    size = (first.frame.shape[1], first.frame.shape[0]) if first is not None and len(first.frame.shape) >= 2 else None
    needed = pack.descriptor.predict_mib(request.parameters, size, request.frames)
    if not needed:
        return
    if process.shelf.holds(pack):
        needed -= pack.descriptor.memory.fixed_mib
    state = process.shelf.make_room(needed, keep=pack)
    if state.free_mib < needed and job.order.rung < 2:  # below that, tiles are smaller than the prediction knows
        raise OutOfMemory(
            f"{pack.name} needs about {needed:.0f} MiB, {state.free_mib:.0f} MiB are free; close other programs or "
            "use a smaller frame",
            needed_mib=needed,
            free_mib=state.free_mib,
        )


class _Results:
    """Pulls an operator's results and sends each from a slot."""

    def __init__(self, process: Process, job: WorkerJob, pack: Pack, operator: Operator, reports: Reports) -> None:
        self._process, self._job, self._pack, self._operator, self._reports = process, job, pack, operator, reports
        self._streams = pack.descriptor.streams
        self._output = colourspace_of(job.order.open.output)
        self._parameters = pack.descriptor.resolve(job.order.open.parameters)
        self._windows = pack.descriptor.windows(self._parameters) if pack.descriptor.temporal else None

    def run(self) -> None:
        """Run the operator to its end."""
        request = self._job.order.open
        asked = Request(
            request.operation, self._parameters, request.seed, request.quality, request.frames, request.aovs
        )
        for done, frame in enumerate(self._frames(asked), start=1):
            self._job.raise_if_cancelled()
            self._send(done, frame)
            with self._process.turns.paused():
                pass

    def _frames(self, asked: Request) -> Iterator[Frame]:
        process = self._process
        space = system_space(self._pack.descriptor.input_space)
        frames = incoming(self._job, space, process.slots, process.turns, process.link.send)
        return self._operator.run(asked, frames, self._reports)

    def _send(self, done: int, frame: Frame) -> None:
        job, process, request = self._job, self._process, self._job.order.open
        base = (job.first_index or 0) if self._streams or self._windows else 0
        index = base + done - 1
        self._reports.phase("encoding")
        key = self._key(done)
        attributes = record(request, self._pack, key, process.versions, self._parameters)
        data, kind, sent = encode(frame, request, self._output, attributes)
        slot = wait_for_slot(job, len(data), process.turns, process.link.send)
        process.slots.view(slot.slot, len(data))[:] = data
        result = m.Result(
            id=job.id,
            index=index,
            number=sent.number,
            format=kind,
            shape=sent.pixels.shape,
            channels=sent.channels,
            colourspace=stated(sent.colourspace),
            ev=sent.ev,
            key=key,
            sha256=hashlib.sha256(data).hexdigest(),
            counts=self._take_counts(sent),
            warnings=warnings_of(sent),
        )
        process.link.send(w.WResult(result, slot.slot, len(data), base + self._settled(done)))

    def _settled(self, done: int) -> int:
        """How many of the frames of this try nothing needs any more after result number `done`."""
        if self._windows is not None:
            return self._windows.start(done)
        return done if self._streams else 0

    def _key(self, done: int) -> str:
        """The identity of result number `done`: of its own frame where frames stream, of its windows' and its place
        in them where it is made from those, else of the whole job's.
        """
        made_from, index = self._job.identities, done - 1
        if self._streams:
            made_from, index = made_from[done - 1 : done], 0
        elif self._windows is not None:
            window = self._windows.inputs(index, len(made_from))
            made_from, index = made_from[window.start : window.stop], index - window.start
        request = self._job.order.open
        return result_key(request, self._pack.digest, self._pack.revision, request.output, made_from, index)

    def _take_counts(self, sent: Frame) -> dict[str, int]:
        """What was counted since the last result: while decoding, and by the system."""
        self._job.add_counts(counts_of(sent))
        counts, self._job.counts = self._job.counts, {}
        return counts


def counts_of(frame: Frame) -> dict[str, int]:
    """Counts that a system put into its result's metadata."""
    given = frame.metadata.get("counts", {})
    return {str(name): int(value) for name, value in given.items()} if isinstance(given, dict) else {}


def warnings_of(frame: Frame) -> tuple[str, ...]:
    """Warnings that a system put into its result's metadata."""
    given = frame.metadata.get("warnings", ())
    return tuple(str(text) for text in given) if isinstance(given, (list, tuple)) else ()


def die_with_parent(parent: int) -> bool:
    """Have the kernel end this process with its parent (prctl(2)); False when the parent has gone already."""
    if platform.system() == "Linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return os.getppid() == parent
