"""Between jobs and workers: who runs what, which frames go where, what comes back, and what a lost worker means.

It owns the queue, the running jobs and their slots. It must not know sockets or processes.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable
from dataclasses import replace

from hdrgen_server.gateway.admission import check_memory, needed_mib
from hdrgen_server.gateway.clock import Clock
from hdrgen_server.gateway.job import Input, Job
from hdrgen_server.gateway.metrics import Metrics
from hdrgen_server.gateway.queue import FairQueue
from hdrgen_server.gateway.slots import Slot, SlotPool
from hdrgen_server.gateway.supervision import Fault, Need, final_error, next_attempt
from hdrgen_server.gateway.tasks import TaskKeeper
from hdrgen_server.gateway.workers import Worker
from nuke_hdrgen.wire import messages as m
from nuke_hdrgen.wire import worker_messages as w
from nuke_hdrgen.wire.errors import (
    Cancelled,
    HDRGenError,
    OutOfMemory,
    ServerFault,
    StorageError,
    WorkerDied,
    from_code,
)

log = logging.getLogger(__name__)

JOBS_IN_WORKER = 4


class Dispatcher:
    """The queue in front of the workers, and the jobs inside them."""

    def __init__(
        self,
        pool: SlotPool,
        clock: Clock,
        metrics: Metrics,
        queue_limit: int,
        session_frames: int,
        cancel_grace_s: float,
    ) -> None:
        self.queue: FairQueue[Job] = FairQueue(queue_limit)
        self.workers: list[Worker] = []
        self._pool, self._clock, self._metrics = pool, clock, metrics
        self._session_frames, self._cancel_grace_s = session_frames, cancel_grace_s
        self._running: dict[Worker, dict[str, Job]] = {}
        self._seconds_a_job = 2.0
        self._tasks: TaskKeeper | None = None

    def keep_tasks(self, keeper: TaskKeeper) -> None:
        """Where coroutines started from callbacks are kept."""
        self._tasks = keeper

    @property
    def open_jobs(self) -> list[Job]:
        """Every job that has not had its last message, running ones first."""
        running = [j for jobs in self._running.values() for j in jobs.values() if not j.over]
        return running + list(self.queue.in_order())

    def running_on(self, worker: Worker) -> list[Job]:
        """Jobs inside a worker, cancelled ones that it has not let go of included."""
        return list(self._running.get(worker, {}).values())

    def retry_after_s(self) -> float:
        """When a place in the queue should be free, from how long jobs took lately."""
        return min(60.0, max(1.0, self._seconds_a_job / max(1, len(self.workers))))

    def submit(self, job: Job) -> None:
        """Put a job in the queue. Raises Busy when it is full."""
        self.queue.put(job.session, job, self.retry_after_s())
        self.pump()

    def add_frame(self, job: Job, message: m.Frame, slot: Slot) -> None:
        """A frame of the job has arrived whole."""
        job.inputs[message.index] = Input(message, slot)
        job.received += 1
        self.pump()

    def end_input(self, job: Job) -> None:
        """No more frames of the job come."""
        job.ended = True
        self.pump()

    def cancel(self, job: Job) -> None:
        """End a job, queued or running; nothing happens when it is over."""
        if not job.over:
            self._close(job, Cancelled(f"job {job.id} was cancelled"))

    def fail(self, job: Job, error: HDRGenError) -> None:
        """End a job with an error; nothing happens when it is over."""
        if not job.over:
            self._close(job, error)

    def pump(self) -> None:
        """Start what can start and send what can be sent."""
        for worker in self.workers:
            while worker.ready and self._has_room(worker):
                job = self.queue.take(lambda j, worker=worker: j.startable and not self._serves(worker, j.session))
                if job is None:
                    break
                self._start(job, worker)
        for worker, jobs in self._running.items():
            for job in list(jobs.values()):
                self._feed(job, worker)

    def check(self, now: float) -> None:
        """End a worker whose cancelled job does not let go."""
        for worker, jobs in self._running.items():
            for job in jobs.values():
                if job.cancel_sent_at is not None and now - job.cancel_sent_at > self._cancel_grace_s and worker.ready:
                    worker.end("hung", "a cancelled job did not stop")

    def free(self, pack: str | None) -> None:
        """Tell every worker to give memory back."""
        for worker in self.workers:
            worker.send(w.WFree(pack))

    # What workers say

    def worker_ready(self, worker: Worker) -> None:
        """A worker can take jobs."""
        self._running.setdefault(worker, {})
        self.pump()

    def worker_said(self, worker: Worker, message: m.Message) -> None:
        """Act on a worker's message; one about a job that it no longer has is dropped."""
        number = message.progress.id if isinstance(message, w.WProgress) else getattr(message, "id", None)
        if isinstance(message, w.WResult):
            number = message.result.id
        job = self._running.get(worker, {}).get(number or "")
        if job is None:
            return
        match message:
            case w.WTaken():
                job.taken = max(job.taken, message.index + 1)
                self._feed(job, worker)
            case w.WProgress():
                self._progressed(job, message.progress)
            case w.WNeed():
                job.wanted_bytes = message.length
                self.grant(job)
            case w.WResult():
                self._result(job, message)
            case w.WDone():
                self._done(job, worker, message)
            case w.WError():
                self._failed(job, worker, message)
            case _:
                log.warning("a worker sent what it may not", extra={"message_name": message.NAME})

    def worker_lost(self, worker: Worker, fault: Fault, text: str) -> None:
        """A worker has ended: its jobs get another try or their error."""
        jobs = self._running.pop(worker, {})
        if jobs:
            self._metrics.add("worker_losses", 1)
        for job in sorted(jobs.values(), key=lambda j: j.opened_at, reverse=True):
            if job.over:
                self._let_go(job)
            else:
                self._retry(job, fault, worker, text)
        self.pump()

    def worker_cannot_start(self, worker: Worker, text: str) -> None:
        """No worker will take what waits: it ends, rather than wait for ever."""
        if any(other.ready for other in self.workers):
            return
        for job in list(self.queue.in_order()):
            self._close(job, WorkerDied(f"{text}; run `hdrgen doctor`, and see the worker's log"))

    def grant(self, job: Job) -> None:
        """Give the worker the slot that it asked for, unless the client has results to read first."""
        if job.wanted_bytes is None or (job.client.crowded and not job.over):
            return
        length, job.wanted_bytes = job.wanted_bytes, None
        assert self._tasks is not None
        self._tasks.keep(self._grant(job, length, job.attempt))

    async def _grant(self, job: Job, length: int, attempt: object) -> None:
        try:
            slot = await self._pool.acquire(length)
        except StorageError as error:
            self.fail(job, error)
            return
        worker = self._worker_of(job)
        if worker is None or job.attempt is not attempt:
            self._release([slot])
            return
        job.outputs[slot.name] = slot
        worker.send(w.WSlot(job.number, slot.name, length))

    def _has_room(self, worker: Worker) -> bool:
        return len(self._running.get(worker, {})) < JOBS_IN_WORKER

    def _serves(self, worker: Worker, session: Hashable) -> bool:
        return any(j.session == session and not j.over for j in self._running.get(worker, {}).values())

    def _start(self, job: Job, worker: Worker) -> None:
        first = job.inputs.get(job.consumed)
        try:
            needed = needed_mib(first.message if first else None, job.request, job.pack)
            check_memory(needed, worker.memory_total_mib or None, job.pack)
        except OutOfMemory as error:
            self._close(job, error)
            return
        job.started_at, job.phase = self._clock.now(), "loading"
        self._running[worker][job.number] = job
        request = replace(job.request, id=job.number, pack=job.pack.name)
        worker.send(w.WOpen(request, job.pack.digest, job.attempt.rung))

    def _feed(self, job: Job, worker: Worker) -> None:
        if job.over:
            return
        while (item := job.next_input()) is not None and self._frames_in_flight(job.session) < self._session_frames:
            job.sent += 1
            worker.send(w.WFrame(replace(item.message, id=job.number), item.slot.name, item.slot.length))
        if job.ended and job.sent == job.received and not job.end_sent:
            job.end_sent = True
            worker.send(w.WEnd(job.number))

    def _frames_in_flight(self, session: Hashable) -> int:
        jobs: Iterable[Job] = (j for jobs in self._running.values() for j in jobs.values())
        return sum(j.in_flight for j in jobs if j.session == session and not j.over)

    def _progressed(self, job: Job, progress: m.Progress) -> None:
        changed = job.phase != progress.phase
        job.phase, job.progress = progress.phase, (progress.frame, progress.done, progress.total)
        if not job.over and (changed or self._clock.now() - job.told_at > 0.1):
            self.tell_progress(job)

    def tell_progress(self, job: Job) -> None:
        """Send the job's client where the job stands."""
        frame, done, total = job.progress
        position = max(0, self.queue.position(job))
        job.told_at = self._clock.now()
        job.client.tell(m.Progress(job.id, job.phase, frame, done, total, position))

    def _result(self, job: Job, message: w.WResult) -> None:
        slot = job.outputs.pop(message.slot, None)
        if slot is None:
            log.warning("a worker named a slot that it does not hold", extra={"job": job.number})
            return
        slot.length = message.length
        fresh = message.result.index >= job.delivered
        if job.over or not fresh:
            self._release([slot])
        else:
            job.delivered += 1
            job.add_counts(message.result.counts)
            self._metrics.add("results", 1)
            job.client.deliver(replace(message.result, id=job.id), slot)
        if not job.over:
            self._release(job.settle(message.consumed))

    def _done(self, job: Job, worker: Worker, message: w.WDone) -> None:
        self._running[worker].pop(job.number, None)
        worker.did_well()
        if not job.over:
            self._seconds_a_job += 0.2 * (message.seconds - self._seconds_a_job)
            self._metrics.job_ended("done", self._clock.now() - job.opened_at)
            job.over = True
            seconds = self._clock.now() - job.opened_at
            job.add_counts(message.counts)
            job.client.tell(m.Done(job.id, job.delivered, seconds, job.counts))
            job.client.forget(job)
        self._let_go(job)
        self.pump()

    def _failed(self, job: Job, worker: Worker, message: w.WError) -> None:
        self._running[worker].pop(job.number, None)
        if job.over:
            self._let_go(job)
        elif message.retry:
            self._retry(job, "memory", worker, message.message, dict(message.details))
        else:
            self._close(job, from_code(message.code, message.message, dict(message.details)))
        self.pump()

    def _retry(
        self, job: Job, fault: Fault, worker: Worker, text: str, details: dict[str, object] | None = None
    ) -> None:
        attempt = next_attempt(job.attempt, fault)
        if attempt is None:
            self._close(job, final_error(fault, job.pack.name, self._need(job, worker, details or {}), text))
            return
        log.warning("job tried again", extra={"job": job.number, "fault": fault, "rung": attempt.rung})
        self._metrics.add("retries", 1)
        self._release(job.rewind(attempt))
        self.queue.put_back(job.session, job)

    def _need(self, job: Job, worker: Worker, details: dict[str, object]) -> Need:
        needed, free = details.get("needed_mib"), details.get("free_mib")
        if not isinstance(needed, int | float):
            first = job.inputs.get(job.consumed)
            needed = needed_mib(first.message, job.request, job.pack) if first else None
        return Need(needed or None, free if isinstance(free, int | float) else worker.memory_free_mib or None)

    def _close(self, job: Job, error: HDRGenError) -> None:
        """Tell the client that the job has failed, and let go of what no worker holds."""
        job.over = True
        self.queue.remove(job)
        self._metrics.job_ended(error.code, self._clock.now() - job.opened_at)
        if isinstance(error, ServerFault):
            self._metrics.note_error(error, self._clock.now())
        job.client.tell(m.Error.of(error, job.id))
        job.client.forget(job)
        worker = self._worker_of(job)
        if worker is None:
            self._let_go(job)
        else:  # the worker may be reading or writing the slots: they come back when it says so
            job.cancel_sent_at = self._clock.now()
            worker.send(w.WCancel(job.number))
            self.grant(job)

    def _let_go(self, job: Job) -> None:
        self._release(job.take_inputs() + job.take_outputs())

    def _release(self, slots: Iterable[Slot]) -> None:
        for slot in slots:
            self._pool.release(slot, self._clock.now())

    def _worker_of(self, job: Job) -> Worker | None:
        return next((wk for wk, jobs in self._running.items() if job.number in jobs), None)
