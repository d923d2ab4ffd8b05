"""One open job in the worker: frames come in from the pipe's thread, the operator runs in the job's own.

It owns the job's frames, its cancel and its report of steps. It must not know sockets' bytes or how packs load.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from hdrgen_server.contracts.frame import Colourspace, Frame
from hdrgen_server.worker.pixels import decode
from hdrgen_server.worker.slots import SlotMap
from hdrgen_server.worker.turns import Turns
from nuke_hdrgen.wire import messages as m
from nuke_hdrgen.wire import worker_messages as w
from nuke_hdrgen.wire.errors import Cancelled
from nuke_hdrgen.wire.identity import input_identity

Send = Callable[[m.Message], None]


@dataclass(eq=False)
class WorkerJob:
    """What the pipe's thread and the job's thread share; `changed` guards it."""

    order: w.WOpen
    changed: threading.Condition = field(default_factory=threading.Condition)
    waiting: deque[w.WFrame] = field(default_factory=deque[w.WFrame])
    ended: bool = False
    cancelled: bool = False
    granted: w.WSlot | None = None
    phase: str = "loading"
    first_index: int | None = None
    counts: dict[str, int] = field(default_factory=dict[str, int])
    identities: list[str] = field(default_factory=list[str])

    @property
    def id(self) -> str:
        """The gateway's name for the job."""
        return self.order.open.id

    def hear(self, message: m.Message) -> None:
        """Take a message about this job, in the pipe's thread."""
        with self.changed:
            match message:
                case w.WFrame():
                    if self.first_index is None:
                        self.first_index = message.frame.index
                    self.waiting.append(message)
                case w.WEnd():
                    self.ended = True
                case w.WCancel():
                    self.cancelled = True
                case w.WSlot():
                    self.granted = message
                case _:
                    return
            self.changed.notify_all()

    def raise_if_cancelled(self) -> None:
        """Raises Cancelled once the gateway said so."""
        if self.cancelled:
            raise Cancelled("the job was cancelled")

    def add_counts(self, counts: dict[str, int]) -> None:
        """Add to the job's counts."""
        for name, value in counts.items():
            self.counts[name] = self.counts.get(name, 0) + value


class Reports:
    """The `Progress` that an operator sees."""

    def __init__(self, job: WorkerJob, send: Send) -> None:
        self._job, self._send = job, send

    def step(self, done: int, total: int, frame: int = 0) -> None:
        """Report a step or tile; raises Cancelled when the job is cancelled."""
        self._job.raise_if_cancelled()
        self._job.phase = "step"
        self._send(w.WProgress(m.Progress(self._job.id, "step", frame, done, total)))

    def phase(self, name: str) -> None:
        """Report another phase."""
        self._job.raise_if_cancelled()
        self._job.phase = name
        self._send(w.WProgress(m.Progress(self._job.id, name)))


def incoming(job: WorkerJob, space: Colourspace | None, slots: SlotMap, turns: Turns, send: Send) -> Iterator[Frame]:
    """The job's frames as the operator pulls them; others may compute while it waits for one.

    Raises Cancelled, and BadInput for a frame that cannot be decoded.
    """
    while True:
        with turns.paused():
            message = _next(job)
        job.raise_if_cancelled()
        if message is None:
            return
        body = slots.view(message.slot, message.length)
        decoded = decode(message.frame, body, space)
        job.identities.append(input_identity(message.frame, body))
        job.add_counts(decoded.counts)
        send(w.WTaken(job.id, message.frame.index))
        yield decoded.frame


def wait_for_slot(job: WorkerJob, length: int, turns: Turns, send: Send) -> w.WSlot:
    """Ask for a slot and wait; others may compute meanwhile. Raises Cancelled."""
    send(w.WNeed(job.id, length))
    with turns.paused(), job.changed:
        job.changed.wait_for(lambda: job.granted is not None or job.cancelled)
    job.raise_if_cancelled()
    granted, job.granted = job.granted, None
    assert granted is not None
    return granted


def _next(job: WorkerJob) -> w.WFrame | None:
    with job.changed:
        job.changed.wait_for(lambda: job.waiting or job.ended or job.cancelled)
        return job.waiting.popleft() if job.waiting and not job.cancelled else None
