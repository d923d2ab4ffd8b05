"""What to do when a worker ends, falls silent or runs out of memory.

Pure planning: back-off, silence limits and whether a job gets another try. It must not know processes, sockets or
clocks; `supervisor` does what is decided here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nuke_hdrgen.wire.errors import HDRGenError, OutOfMemory, WorkerDied, WorkerHung

Fault = Literal["died", "hung", "memory"]

LAST_RUNG = 3
BACKOFF_LIMIT_S = 60.0
LOADING_PHASES = frozenset({"starting", "loading", "compiling"})
START_FAILURES_LIMIT = 3


@dataclass(frozen=True)
class Attempt:
    """How far a job has come: its rung of the memory ladder and how many workers it has lost."""

    rung: int = 0
    losses: int = 0


@dataclass(frozen=True)
class Need:
    """Memory that a job needed and that was free, in MiB; None is unknown."""

    needed_mib: float | None = None
    free_mib: float | None = None


def backoff_s(failures: int) -> float:
    """Pause before the next start after this many failures in a row: 1, 2, 4 ... 60 seconds."""
    return min(BACKOFF_LIMIT_S, 2.0 ** max(0, failures - 1)) if failures else 0.0


def silence_limit_s(phase: str, silence_s: float, load_silence_s: float) -> float:
    """How long a worker in this phase may be silent before it is hung."""
    return load_silence_s if phase in LOADING_PHASES else silence_s


def next_attempt(attempt: Attempt, fault: Fault) -> Attempt | None:
    """The job's next try, one rung lower, or None when it has to end.

    A lost worker is risked once: the job may be what kills it. Memory that ran out in an orderly way costs nothing
    but time, so that a job goes down the ladder to its last rung.
    """
    if fault == "memory":
        return Attempt(attempt.rung + 1, attempt.losses) if attempt.rung < LAST_RUNG else None
    return Attempt(min(LAST_RUNG, attempt.rung + 1), 1) if attempt.losses == 0 else None


def final_error(fault: Fault, pack: str, need: Need, exit_text: str = "") -> HDRGenError:
    """The error that a job ends with when it gets no further try."""
    memory = _memory_text(need)
    details = {k: v for k, v in (("needed_mib", need.needed_mib), ("free_mib", need.free_mib)) if v is not None}
    if fault == "memory":
        return OutOfMemory(f"{pack} ran out of memory{memory}; use a smaller frame or a smaller pack", **details)
    if fault == "hung":
        return WorkerHung(
            f"the worker fell silent while running {pack}, twice{memory}; see the server's log", **details
        )
    why = f" ({exit_text})" if exit_text else ""
    return WorkerDied(f"the worker ended while running {pack}, twice{why}{memory}; see the server's log", **details)


def exit_text(returncode: int) -> str:
    """A process's end in words; SIGKILL is what the kernel sends when memory runs out."""
    if returncode == -9:
        return "killed, perhaps by the system for want of memory"
    return f"signal {-returncode}" if returncode < 0 else f"exit status {returncode}"


def _memory_text(need: Need) -> str:
    if need.needed_mib is None:
        return ""
    free = "" if need.free_mib is None else f", {need.free_mib:.0f} MiB were free"
    return f": about {need.needed_mib:.0f} MiB needed{free}"
