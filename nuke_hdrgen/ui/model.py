"""What the panel says: one look at the sidecar becomes a headline and rows of text.

Pure: it owns words, order and the states of the panel. It must not know Qt, sockets, threads or clocks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Iterable, Mapping, Optional, Tuple

from nuke_hdrgen import __version__
from nuke_hdrgen.wire.errors import (
    Busy,
    HDRGenError,
    NoServer,
    PermissionRefused,
    Refused,
    ServerTimeout,
    VersionMismatch,
)
from nuke_hdrgen.wire.messages import WIRE, ErrorInfo, Health, JobInfo, PackInfo, Welcome, WorkerInfo

LOOKING, ABSENT, STARTING, REFUSED = "looking", "absent", "starting", "refused"
WAITING, READY, BUSY = "waiting", "ready", "busy"

TITLES: Mapping[str, str] = {
    LOOKING: "Looking for the sidecar",
    ABSENT: "No sidecar",
    STARTING: "Starting the sidecar",
    WAITING: "Not ready yet",
    READY: "Ready",
    BUSY: "Busy",
}
# The first class that fits; what is none of these is a trouble without a name of its own.
REFUSALS: Tuple[Tuple[type, str], ...] = (
    (VersionMismatch, "Another version"),
    (PermissionRefused, "Not allowed"),
    (Refused, "Refused"),
    (ServerTimeout, "Not answering"),
    (Busy, "Not taking connections"),
    (HDRGenError, "Something is wrong"),
)
WORKER_STATES: Mapping[str, str] = {
    "starting": "starting",
    "ready": "ready",
    "waiting": "restarting",
    "stopped": "stopped",
}
# Operations that measure the wire; packs that do nothing else are no one's choice.
DIAGNOSTIC = frozenset(("echo",))
# What to do about a failure in the list, beyond what its own line says.
TIPS: Mapping[str, str] = {
    "out_of_memory": "Press Free GPU, close what else uses the device, then bake again.",
    "worker_died": "The worker starts again by itself: bake again. If it dies again, send the report to your TD.",
    "worker_hung": "The worker starts again by itself: bake again. If it hangs again, send the report to your TD.",
    "operator_failed": "Bake again with another frame or pack. If it fails again, send the report to your TD.",
    "storage": "Make room or make the folder writable, then bake again.",
    "busy": "Wait for the jobs above, then bake again.",
}
TIP = "Correct what the line names, then bake again. If that does not help, send the report to your TD."


@dataclass(frozen=True)
class Seen:
    """One look at the sidecar: what it said, or why it said nothing.

    `named` when the user named its address, so that none is started; `unstarted` when `error` is why a start failed.
    """

    welcome: Optional[Welcome] = None
    health: Optional[Health] = None
    address: str = ""
    error: Optional[HDRGenError] = None
    starting: bool = False
    named: bool = False
    unstarted: bool = False


@dataclass(frozen=True)
class Row:
    """One thing in a section: a title with a mark beside it, lines below, a bar (0 to 1), and text to copy."""

    title: str
    mark: str = ""
    detail: str = ""
    note: str = ""
    bar: Optional[float] = None
    bar_text: str = ""
    copy: str = ""


@dataclass(frozen=True)
class Section:
    """Rows under one heading; `empty` is said when there are none."""

    title: str
    rows: Tuple[Row, ...]
    empty: str


@dataclass(frozen=True)
class View:
    """Everything the panel shows, and which of its buttons can do something."""

    state: str
    title: str
    sentence: str
    can_start: bool = False
    can_free: bool = False
    sections: Tuple[Section, ...] = ()


def view(seen: Seen) -> View:
    """What to show for one look."""
    if seen.starting:
        return View(STARTING, TITLES[STARTING], "This takes a few seconds; Nuke can be used meanwhile.")
    if seen.error is not None:
        return _trouble(seen.error, can_start=seen.unstarted or (isinstance(seen.error, NoServer) and not seen.named))
    if seen.welcome is None or seen.health is None:
        return View(LOOKING, TITLES[LOOKING], "")
    health = seen.health
    state, sentence = _condition(health)
    sections = (
        Section(_queue_title(health), tuple(_job(job) for job in health.jobs), "Nothing runs or waits."),
        Section("Devices", tuple(_device(worker) for worker in health.workers), "The sidecar has no worker."),
        Section(
            "Packs",
            tuple(_pack(pack, health) for pack in seen.welcome.packs if set(pack.operations) - DIAGNOSTIC),
            "No pack is installed; run `hdrgen packs list` in a shell.",
        ),
        Section("Recent errors", tuple(_failure(error) for error in reversed(health.recent_errors)), "None."),
        Section("Sidecar", _about(seen.welcome, health, seen.address), ""),
    )
    return View(state, TITLES[state], sentence, False, any(worker.packs for worker in health.workers), sections)


def report(seen: Seen, host: Mapping[str, str]) -> str:
    """One plain text for whoever helps: versions, address (no token is ever in it), devices, packs, errors.

    `host` says what runs the panel, by name: Python, Qt, the system, Nuke.
    """
    shown = view(seen)
    lines = [f"nuke-hdrgen {__version__}, wire {WIRE}"]
    lines += [f"{name}: {value}" for name, value in host.items() if value]
    lines += [f"state: {shown.title}", f"  {shown.sentence}"] if shown.sentence else [f"state: {shown.title}"]
    if seen.error is not None:
        lines.append(f"  code: {seen.error.code}")
    if seen.welcome is not None and seen.welcome.settings:
        lines.append(f"settings: {seen.welcome.settings}")
    for section in shown.sections:
        lines += ["", section.title]
        lines += [f"  {_line(row)}" for row in section.rows] or [f"  {section.empty}"]
    if seen.health is not None:
        lines += ["", "Counters"]
        lines += [f"  {name}: {value:g}" for name, value in seen.health.counters.items()] or ["  None."]
    return "\n".join(lines) + "\n"


def ago(seconds: float) -> str:
    """A time in words, coarse enough not to change at every look."""
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return "less than a minute"


def mebibytes(free: float, total: float) -> str:
    """Memory in words: `3.2 of 24.0 GiB free`, in MiB where the whole is less than one GiB."""
    if total < 1024.0:
        return f"{free:.0f} of {total:.0f} MiB free"
    return f"{free / 1024.0:.1f} of {total / 1024.0:.1f} GiB free"


def _trouble(error: HDRGenError, can_start: bool) -> View:
    sentence = error.message[:1].upper() + error.message[1:] + ("" if error.message.endswith(".") else ".")
    if isinstance(error, NoServer):
        return View(ABSENT, TITLES[ABSENT], sentence, can_start)
    return View(REFUSED, next(title for kind, title in REFUSALS if isinstance(error, kind)), sentence, can_start)


def _condition(health: Health) -> Tuple[str, str]:
    """The state, and its sentence."""
    devices = _joined(worker.device for worker in health.workers if worker.state == "ready")
    if not health.ready:
        told = _joined(f"{w.device} is {WORKER_STATES.get(w.state, w.state)}" for w in health.workers)
        return WAITING, f"The sidecar runs, but no worker is ready: {told}." if told else "The sidecar has no worker."
    running = sum(job.phase != "queued" for job in health.jobs)
    waiting = max(health.queue.depth, len(health.jobs) - running)
    if running or waiting:
        told = _joined(f"{n} {word}" for n, word in ((running, "running"), (waiting, "waiting")) if n)
        return BUSY, f"{_count(running + waiting, 'job')} on {devices}: {told}."
    return READY, f"Frames are baked on {devices}."


def _queue_title(health: Health) -> str:
    queue = health.queue
    return f"Queue: {queue.depth} of {queue.limit} waiting" if queue.depth else "Queue"


def _job(job: JobInfo) -> Row:
    row = Row(f"{job.operation} with {job.pack}", job.phase)
    if job.phase == "queued":
        return replace(row, detail=f"{_count(job.position, 'job')} before it" if job.position else "next to start")
    steps = f"{job.done} of {_count(job.total, 'step')}" if job.total else ""
    frames = f"{job.sent} of {_count(job.frames, 'frame')} back" if job.frames > 1 and job.sent else ""
    return replace(row, bar=_fraction(job), bar_text=_dotted(steps, frames))


def _fraction(job: JobInfo) -> Optional[float]:
    """How much of the job is done, 0 to 1, or None when it does not say.

    It goes by frames once results come back one by one, which a fusion of many frames into one never does.
    """
    steps = min(1.0, job.done / job.total) if job.total else None
    if job.frames > 1 and job.sent:
        return min(1.0, (job.sent + (steps or 0.0)) / job.frames)
    return steps


def _device(worker: WorkerInfo) -> Row:
    holds = f"holds {_joined(worker.packs)}" if worker.packs else "holds no pack"
    row = Row(worker.device, WORKER_STATES.get(worker.state, worker.state), holds)
    if worker.memory_total_mib <= 0.0:
        return row
    used = 1.0 - min(1.0, worker.memory_free_mib / worker.memory_total_mib)
    return replace(row, bar=used, bar_text=mebibytes(worker.memory_free_mib, worker.memory_total_mib))


def _pack(pack: PackInfo, health: Health) -> Row:
    loaded = "loaded" if health.packs_ready.get(pack.name) else ""
    row = Row(pack.name, _dotted("preview" if pack.preview else "", loaded))
    operations = ", ".join(pack.operations)
    if pack.licence_ok:
        return replace(row, detail=_dotted(operations, f"{pack.licence}, accepted"))
    row = replace(row, detail=_dotted(operations, pack.licence))
    command = f"hdrgen packs accept {pack.name}"
    return replace(row, note=f"Licence not accepted: read it, then run `{command}` in a shell.", copy=command)


def _failure(error: ErrorInfo) -> Row:
    when = f"{ago(error.ago_s)} ago" if error.ago_s >= 60.0 else "just now"
    return Row(error.code, when, error.message, TIPS.get(error.code, TIP), copy=error.message)


def _about(welcome: Welcome, health: Health, address: str) -> Tuple[Row, ...]:
    version = Row("Version", welcome.package)
    if welcome.package != __version__:
        version = replace(version, detail=f"This panel is {__version__}; update one of them.")
    return (
        version,
        Row("Process", str(welcome.pid)),
        Row("Up", ago(health.uptime_s)),
        Row("Sessions", str(health.sessions)),
        Row("Address", detail=address),
    )


def _line(row: Row) -> str:
    command = f"run {row.copy}" if row.copy and row.copy != row.detail else ""
    parts = (row.mark, row.bar_text, row.detail, command)
    return f"{row.title}: {'; '.join(part for part in parts if part)}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _dotted(*parts: str) -> str:
    return " · ".join(part for part in parts if part)


def _joined(parts: Iterable[str]) -> str:
    found = list(parts)
    return " and ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found)
