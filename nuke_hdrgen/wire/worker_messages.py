"""The messages between the gateway and a worker; they wrap the client's own and name slots instead of bodies.

It owns names, numbers and fields of these messages, as docs/wire.md lists them. It must not know bytes or sockets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping, Optional, Tuple

from nuke_hdrgen.wire.messages import (
    COUNT,
    COUNTS,
    LABEL,
    MEBIBYTES,
    NAME_OR_NONE,
    NAMES,
    SECONDS,
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

SLOT = ruled(matching("[a-z0-9][a-z0-9._-]{0,63}", "a slot's file name without folders"))
LENGTH = ruled(integer(1, 2**48))


@dataclass(frozen=True)
class WReady(Message):
    """The worker has started: its device, memory in MiB and the versions of what it runs on."""

    TYPE = 64
    NAME = "w_ready"

    device: str = field(metadata=NAME)
    memory_free_mib: float = field(metadata=MEBIBYTES)
    memory_total_mib: float = field(metadata=MEBIBYTES)
    versions: Mapping[str, str] = field(metadata=ruled(mapping(text(0, 256))))


@dataclass(frozen=True)
class WOpen(Message):
    """Starts a job: the client's `open` (its pack resolved), the pack's digest and the rung of the memory ladder."""

    TYPE = 65
    NAME = "w_open"

    open: Open = field(metadata=ruled(record(Open)))
    pack_digest: str = field(metadata=LABEL)
    rung: int = field(default=0, metadata=ruled(integer(0, 16)))


@dataclass(frozen=True)
class WFrame(Message):
    """One input frame: the client's `frame`, whose body lies in a slot."""

    TYPE = 66
    NAME = "w_frame"

    frame: Frame = field(metadata=ruled(record(Frame)))
    slot: str = field(metadata=SLOT)
    length: int = field(metadata=LENGTH)

    def problem(self) -> str:
        """The slot must hold what the frame's shape needs."""
        return self.frame.body_problem(self.length)


@dataclass(frozen=True)
class WEnd(Message):
    """No more frames follow for this job."""

    TYPE = 67
    NAME = "w_end"

    id: str = field(metadata=NAME)


@dataclass(frozen=True)
class WCancel(Message):
    """The job is to stop at its next step or tile."""

    TYPE = 68
    NAME = "w_cancel"

    id: str = field(metadata=NAME)


@dataclass(frozen=True)
class WTaken(Message):
    """The frame has been decoded and its slot is free; the next may come."""

    TYPE = 69
    NAME = "w_taken"

    id: str = field(metadata=NAME)
    index: int = field(metadata=COUNT)


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

    id: str = field(metadata=NAME)
    length: int = field(metadata=LENGTH)


@dataclass(frozen=True)
class WSlot(Message):
    """The slot that was asked for."""

    TYPE = 72
    NAME = "w_slot"

    id: str = field(metadata=NAME)
    slot: str = field(metadata=SLOT)
    length: int = field(metadata=LENGTH)


@dataclass(frozen=True)
class WResult(Message):
    """One result, whose body lies in a slot; `consumed` input frames are settled by the results so far."""

    TYPE = 73
    NAME = "w_result"

    result: Result = field(metadata=ruled(record(Result)))
    slot: str = field(metadata=SLOT)
    length: int = field(metadata=LENGTH)
    consumed: int = field(metadata=COUNT)

    def problem(self) -> str:
        """The slot must hold what the result's shape needs."""
        return self.result.body_problem(self.length)


@dataclass(frozen=True)
class WDone(Message):
    """The job ended well."""

    TYPE = 74
    NAME = "w_done"

    id: str = field(metadata=NAME)
    seconds: float = field(metadata=SECONDS)
    counts: Mapping[str, int] = field(default_factory=lambda: dict[str, int](), metadata=COUNTS)


@dataclass(frozen=True)
class WError(Message):
    """The job ended with a failure; `retry` says that one rung lower is worth a try."""

    TYPE = 75
    NAME = "w_error"

    id: str = field(metadata=NAME)
    code: str = field(metadata=NAME)
    message: str = field(metadata=ruled(prose(4096)))
    details: Mapping[str, Any] = field(default_factory=lambda: dict[str, Any](), metadata=ruled(mapping(anything)))
    retry: bool = field(default=False, metadata=ruled(boolean))


@dataclass(frozen=True)
class WBeat(Message):
    """A sign of life from a thread of its own, at least every 2 s; `phase` is `idle` or one of a job's phases."""

    TYPE = 76
    NAME = "w_beat"

    phase: str = field(metadata=NAME)
    memory_free_mib: float = field(metadata=MEBIBYTES)
    packs: Tuple[str, ...] = field(default=(), metadata=NAMES)


@dataclass(frozen=True)
class WFree(Message):
    """Unloads a pack, or every idle one."""

    TYPE = 77
    NAME = "w_free"

    pack: Optional[str] = field(default=None, metadata=NAME_OR_NONE)
