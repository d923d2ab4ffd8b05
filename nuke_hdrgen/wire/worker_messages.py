"""The messages between the gateway and a worker; they wrap the client's own and name slots instead of bodies.

It owns names, numbers and fields of these messages, as docs/wire.md lists them. It must not know bytes or sockets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping, Optional, Tuple, Type

from nuke_hdrgen.wire.messages import (
    A_COUNT,
    A_COUNTS,
    A_LABEL,
    A_MEBIBYTES,
    A_NAME,
    A_NAME_OR_NONE,
    A_NAMES,
    A_SECONDS,
    Frame,
    Message,
    Open,
    Progress,
    Result,
)
from nuke_hdrgen.wire.rules import (
    anything,
    boolean,
    integer,
    mapping,
    matching,
    prose,
    record,
    ruled,
    text,
)

A_SLOT = ruled(matching("[a-z0-9][a-z0-9._-]{0,63}", "a slot's file name without folders"))
A_LENGTH = ruled(integer(1, 2**48))


@dataclass(frozen=True)
class WReady(Message):
    """The worker has started: its device, memory in MiB and the versions of what it runs on."""

    TYPE = 64
    NAME = "w_ready"

    device: str = field(metadata=A_NAME)
    memory_free_mib: float = field(metadata=A_MEBIBYTES)
    memory_total_mib: float = field(metadata=A_MEBIBYTES)
    versions: Mapping[str, str] = field(metadata=ruled(mapping(text(0, 256))))


@dataclass(frozen=True)
class WOpen(Message):
    """Starts a job: the client's `open` (its pack resolved), the pack's digest and the rung of the memory ladder."""

    TYPE = 65
    NAME = "w_open"

    open: Open = field(metadata=ruled(record(Open)))
    pack_digest: str = field(metadata=A_LABEL)
    rung: int = field(default=0, metadata=ruled(integer(0, 16)))


@dataclass(frozen=True)
class WFrame(Message):
    """One input frame: the client's `frame`, whose body lies in a slot."""

    TYPE = 66
    NAME = "w_frame"

    frame: Frame = field(metadata=ruled(record(Frame)))
    slot: str = field(metadata=A_SLOT)
    length: int = field(metadata=A_LENGTH)

    def problem(self) -> str:
        """The slot must hold what the frame's shape needs."""
        return self.frame.body_problem(self.length)


@dataclass(frozen=True)
class WEnd(Message):
    """No more frames follow for this job."""

    TYPE = 67
    NAME = "w_end"

    id: str = field(metadata=A_NAME)


@dataclass(frozen=True)
class WCancel(Message):
    """The job is to stop at its next step or tile."""

    TYPE = 68
    NAME = "w_cancel"

    id: str = field(metadata=A_NAME)


@dataclass(frozen=True)
class WTaken(Message):
    """The frame has been decoded and its slot is free; the next may come."""

    TYPE = 69
    NAME = "w_taken"

    id: str = field(metadata=A_NAME)
    index: int = field(metadata=A_COUNT)


@dataclass(frozen=True)
class WProgress(Message):
    """What the job is doing."""

    TYPE = 70
    NAME = "w_progress"

    progress: Progress = field(metadata=ruled(record(Progress)))


@dataclass(frozen=True)
class WNeed(Message):
    """Asks for a slot of `length` bytes for a result."""

    TYPE = 71
    NAME = "w_need"

    id: str = field(metadata=A_NAME)
    length: int = field(metadata=A_LENGTH)


@dataclass(frozen=True)
class WSlot(Message):
    """The slot that was asked for."""

    TYPE = 72
    NAME = "w_slot"

    id: str = field(metadata=A_NAME)
    slot: str = field(metadata=A_SLOT)
    length: int = field(metadata=A_LENGTH)


@dataclass(frozen=True)
class WResult(Message):
    """One result, whose body lies in a slot; `consumed` input frames are settled by the results so far."""

    TYPE = 73
    NAME = "w_result"

    result: Result = field(metadata=ruled(record(Result)))
    slot: str = field(metadata=A_SLOT)
    length: int = field(metadata=A_LENGTH)
    consumed: int = field(metadata=A_COUNT)

    def problem(self) -> str:
        """The slot must hold what the result's shape needs."""
        return self.result.body_problem(self.length)


@dataclass(frozen=True)
class WDone(Message):
    """The job ended well."""

    TYPE = 74
    NAME = "w_done"

    id: str = field(metadata=A_NAME)
    seconds: float = field(metadata=A_SECONDS)
    counts: Mapping[str, int] = field(default_factory=dict[str, int], metadata=A_COUNTS)


@dataclass(frozen=True)
class WError(Message):
    """The job ended with a failure; `retry` says that one rung lower is worth a try."""

    TYPE = 75
    NAME = "w_error"

    id: str = field(metadata=A_NAME)
    code: str = field(metadata=A_NAME)
    message: str = field(metadata=ruled(prose(4096)))
    details: Mapping[str, Any] = field(default_factory=dict[str, Any], metadata=ruled(mapping(anything)))
    retry: bool = field(default=False, metadata=ruled(boolean))


@dataclass(frozen=True)
class WBeat(Message):
    """A sign of life from a thread of its own, at least every 2 s; `phase` is `idle` or one of a job's phases."""

    TYPE = 76
    NAME = "w_beat"

    phase: str = field(metadata=A_NAME)
    memory_free_mib: float = field(metadata=A_MEBIBYTES)
    packs: Tuple[str, ...] = field(default=(), metadata=A_NAMES)


@dataclass(frozen=True)
class WFree(Message):
    """Unloads a pack, or every idle one."""

    TYPE = 77
    NAME = "w_free"

    pack: Optional[str] = field(default=None, metadata=A_NAME_OR_NONE)


WORKER_MESSAGES: Tuple[Type[Message], ...] = (
    WReady, WOpen, WFrame, WEnd, WCancel, WTaken, WProgress, WNeed, WSlot, WResult, WDone, WError, WBeat, WFree,
)  # fmt: skip
WORKER_TYPES: Mapping[int, Type[Message]] = {kind.TYPE: kind for kind in WORKER_MESSAGES}
