"""One job as the gateway holds it: what was asked, which frames wait, and how far it has come.

It owns the bookkeeping of frames, slots and tries. It must not know sockets, processes or the order of jobs.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from hdrgen_server.gateway.slots import Slot
from hdrgen_server.gateway.supervision import Attempt
from hdrgen_server.packs.manifest import Pack
from nuke_hdrgen.wire import messages as m


class Client(Protocol):
    """Where a job's answers go."""

    def tell(self, message: m.Message) -> None:
        """Send a message without a body."""
        ...

    def deliver(self, message: m.Result, slot: Slot) -> None:
        """Send a result; the slot is released when it has been sent or dropped."""
        ...

    @property
    def crowded(self) -> bool:
        """Whether results wait for the client to read them, so that no more should be made now."""
        ...

    def forget(self, job: Job) -> None:
        """The job has had its last message."""
        ...


@dataclass(frozen=True)
class Input:
    """One frame that waits for the worker, or that is kept until results settle it."""

    message: m.Frame
    slot: Slot


@dataclass(eq=False)
class Job:
    """State of one job. `number` names it towards workers; `id` is the client's name for it."""

    number: str
    session: Hashable
    client: Client
    request: m.Open
    pack: Pack
    opened_at: float
    inputs: dict[int, Input] = field(default_factory=dict[int, Input])
    attempt: Attempt = Attempt()
    received: int = 0
    ended: bool = False
    sent: int = 0
    taken: int = 0
    end_sent: bool = False
    consumed: int = 0
    delivered: int = 0
    delivered_at_consumed: int = 0
    phase: str = "queued"
    progress: tuple[int, int, int] = (0, 0, 0)
    told_at: float = 0.0
    started_at: float | None = None
    over: bool = False
    cancel_sent_at: float | None = None
    outputs: dict[str, Slot] = field(default_factory=dict[str, Slot])
    wanted_bytes: int | None = None
    counts: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def id(self) -> str:
        """The client's name for the job."""
        return self.request.id

    @property
    def ahead(self) -> int | None:
        """How many frames the worker needs at most before its next result settles some; None where only the end
        does.
        """
        descriptor = self.pack.descriptor
        if descriptor.temporal:
            return 2 * descriptor.frames_held(self.request.frames, self.request.parameters)
        return 1 if descriptor.streams else None

    @property
    def startable(self) -> bool:
        """Whether a worker would have something to do."""
        return not self.over and (self.ended or self.received > 0)

    @property
    def in_flight(self) -> int:
        """Frames sent to the worker that it has not decoded yet."""
        return self.sent - self.taken

    @property
    def held_bytes(self) -> int:
        """Bytes of input frames held for the job."""
        return sum(i.slot.capacity for i in self.inputs.values())

    def info(self, position: int) -> m.JobInfo:
        """What health says of it; `position` is its place in the queue."""
        _, done, total = self.progress
        return m.JobInfo(
            self.request.operation,
            self.pack.name,
            self.phase,
            self.request.frames,
            self.delivered,
            done,
            total,
            position,
        )

    def next_input(self) -> Input | None:
        """The frame to send next, or None when it has not come."""
        return self.inputs.get(self.sent)

    def settle(self, consumed: int) -> list[Slot]:
        """Results so far settle this many frames: their slots, no longer needed."""
        if consumed <= self.consumed:
            return []
        self.consumed, self.delivered_at_consumed = min(consumed, self.sent), self.delivered
        return [self.inputs.pop(i).slot for i in sorted(self.inputs) if i < self.consumed]

    def rewind(self, attempt: Attempt) -> list[Slot]:
        """Make ready for another try, from the first frame that no result settled; result slots come back."""
        self.attempt, self.phase, self.end_sent = attempt, "queued", False
        self.sent = self.taken = self.consumed
        self.wanted_bytes = self.started_at = None
        return self.take_outputs()

    def take_outputs(self) -> list[Slot]:
        """Result slots that the worker held."""
        slots = list(self.outputs.values())
        self.outputs.clear()
        return slots

    def take_inputs(self) -> list[Slot]:
        """Every input slot."""
        slots = [i.slot for i in self.inputs.values()]
        self.inputs.clear()
        return slots

    def add_counts(self, counts: Mapping[str, Any]) -> None:
        """Add a result's counts to the job's."""
        for name, value in counts.items():
            self.counts[name] = self.counts.get(name, 0) + int(value)
