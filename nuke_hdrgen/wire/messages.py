"""The messages between a client and the gateway, each a frozen dataclass whose fields carry their own check.

It owns names, numbers and fields of these messages, as docs/wire.md lists them. It must not know bytes or sockets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Dict, Mapping, Optional, Tuple, Type, Union

from nuke_hdrgen.wire.errors import HDRGenError, from_code
from nuke_hdrgen.wire.rules import (
    Record,
    anything,
    boolean,
    choice,
    integer,
    mapping,
    matching,
    optional,
    prose,
    real,
    record,
    ruled,
    scalar,
    sequence,
    text,
)

WIRE_MAJOR, WIRE_MINOR = 1, 0
WIRE = f"{WIRE_MAJOR}.{WIRE_MINOR}"

Scalar = Union[str, int, float, bool]

RAW_ITEM_BYTES: Dict[str, int] = {"f16": 2, "f32": 4}
RAW_CHANNELS = (1, 3, 4)
PHASES = ("queued", "loading", "compiling", "step", "encoding")
FORMATS = ("exr", "f16", "f32")

A_NAME = ruled(text(1, 64))
A_NAME_OR_NONE = ruled(optional(text(1, 64)))
A_LABEL = ruled(text(0, 256))
A_COUNT = ruled(integer(0, 2**31 - 1))
A_COUNTS = ruled(mapping(integer()))
A_SECONDS = ruled(real(0.0))
A_MEBIBYTES = ruled(real(0.0))
A_NAMES = ruled(sequence(text(1, 256)))
A_WIRE_VERSION = ruled(matching(r"[0-9]{1,3}\.[0-9]{1,3}", 'a version such as "1.0"'))


class Message(Record):
    """Base of every message: its number and name on the wire, and whether a body follows."""

    TYPE: ClassVar[int]
    NAME: ClassVar[str]
    BODY: ClassVar[bool] = False

    def body_problem(self, length: int) -> str:
        """What is wrong with a body of this length, or "" when nothing is."""
        return "" if (length > 0) == self.BODY else f"a body of {length} bytes does not belong here"


@dataclass(frozen=True)
class Colourspace(Record):
    """What pixel values mean, by the script's own name and by an interop id or eight chromaticities (CIE 1931 xy).

    `range` is `scene_linear`, `encoded` or `data`. Without an interop id or chromaticities it is refused.
    """

    name: str = field(metadata=A_LABEL)
    interop_id: str = field(default="", metadata=ruled(text(0, 64)))
    chromaticities: Optional[Tuple[float, ...]] = field(
        default=None, metadata=ruled(optional(sequence(real(-8.0, 8.0), 8, 8)))
    )
    range: str = field(default="scene_linear", metadata=ruled(choice("scene_linear", "encoded", "data")))

    def problem(self) -> str:
        """An interop id or chromaticities must say what the name means."""
        if not self.interop_id and self.chromaticities is None:
            return f"colourspace {self.name!r} needs an interop_id or chromaticities to be understood elsewhere"
        return ""


A_COLOURSPACE = ruled(record(Colourspace))


@dataclass(frozen=True)
class PackInfo(Record):
    """One installed pack, as a user chooses it; `operations` names what it can do.

    `window` is how many frames of a shot its system looks at together unless a job's parameter `window` says otherwise;
    1 where each frame stands alone. `overlap` is likewise how many of them neighbouring windows share.
    """

    name: str = field(metadata=A_NAME)
    system: str = field(metadata=A_NAME)
    digest: str = field(metadata=A_LABEL)
    revision: int = field(metadata=A_COUNT)
    operations: Tuple[str, ...] = field(metadata=A_NAMES)
    preview: bool = field(metadata=ruled(boolean))
    licence: str = field(metadata=A_LABEL)
    licence_ok: bool = field(metadata=ruled(boolean))
    window: int = field(default=1, metadata=ruled(integer(1, 65536)))
    overlap: int = field(default=0, metadata=ruled(integer(0, 32768)))


@dataclass(frozen=True)
class WorkerInfo(Record):
    """One worker: its device, what it is doing, which packs it holds and its memory in MiB."""

    device: str = field(metadata=A_NAME)
    state: str = field(metadata=A_NAME)
    packs: Tuple[str, ...] = field(default=(), metadata=A_NAMES)
    memory_free_mib: float = field(default=0.0, metadata=A_MEBIBYTES)
    memory_total_mib: float = field(default=0.0, metadata=A_MEBIBYTES)


@dataclass(frozen=True)
class QueueInfo(Record):
    """Jobs that wait, and how many may."""

    depth: int = field(metadata=A_COUNT)
    limit: int = field(metadata=A_COUNT)


@dataclass(frozen=True)
class JobInfo(Record):
    """One open job, for health: what `progress` tells its own client, without saying whose it is.

    `sent` of `frames` results have gone to the client; `position` is how many jobs start before this one.
    """

    operation: str = field(metadata=A_NAME)
    pack: str = field(metadata=A_LABEL)
    phase: str = field(metadata=ruled(choice(*PHASES)))
    frames: int = field(metadata=A_COUNT)
    sent: int = field(default=0, metadata=A_COUNT)
    done: int = field(default=0, metadata=A_COUNT)
    total: int = field(default=0, metadata=A_COUNT)
    position: int = field(default=0, metadata=A_COUNT)


@dataclass(frozen=True)
class ErrorInfo(Record):
    """One recent failure, for health: how many seconds ago, its code and its line."""

    ago_s: float = field(metadata=A_SECONDS)
    code: str = field(metadata=A_NAME)
    message: str = field(metadata=ruled(prose(4096)))


A_WORKERS = ruled(sequence(record(WorkerInfo)))
A_QUEUE = ruled(record(QueueInfo))


@dataclass(frozen=True)
class Hello(Message):
    """The first message of every connection. `session` groups connections of one user interface or shell."""

    TYPE = 1
    NAME = "hello"
    SECRET = ("token",)

    session: str = field(metadata=A_NAME)
    client: str = field(metadata=A_LABEL)
    wire: str = field(default=WIRE, metadata=A_WIRE_VERSION)
    token: Optional[str] = field(default=None, metadata=A_NAME_OR_NONE)


@dataclass(frozen=True)
class Welcome(Message):
    """The gateway's answer to `hello`: its versions, limits, packs, workers and queue.

    `settings` is a digest of the settings that change results, so that a starter can refuse a server of other ones.
    `defaults` names the pack that a job without one gets, by `operation/quality`; `operation.shot/quality`, where it is
    there, names the pack that a client had better ask for when the frames are a whole shot.
    """

    TYPE = 2
    NAME = "welcome"

    package: str = field(metadata=A_NAME)
    pid: int = field(metadata=A_COUNT)
    limits: Mapping[str, float] = field(metadata=ruled(mapping(real(0.0))))
    queue: QueueInfo = field(metadata=A_QUEUE)
    packs: Tuple[PackInfo, ...] = field(default=(), metadata=ruled(sequence(record(PackInfo))))
    workers: Tuple[WorkerInfo, ...] = field(default=(), metadata=A_WORKERS)
    wire: str = field(default=WIRE, metadata=A_WIRE_VERSION)
    settings: str = field(default="", metadata=A_LABEL)
    defaults: Mapping[str, str] = field(default_factory=dict[str, str], metadata=ruled(mapping(text(1, 64))))


@dataclass(frozen=True)
class Open(Message):
    """Starts a job. Without a `pack` the gateway takes its default for the operation and quality."""

    TYPE = 3
    NAME = "open"

    id: str = field(metadata=A_NAME)
    operation: str = field(metadata=A_NAME)
    frames: int = field(metadata=A_COUNT)
    output: Colourspace = field(metadata=A_COLOURSPACE)
    pack: Optional[str] = field(default=None, metadata=A_NAME_OR_NONE)
    parameters: Mapping[str, Scalar] = field(default_factory=dict[str, Scalar], metadata=ruled(mapping(scalar)))
    seed: int = field(default=0, metadata=ruled(integer()))
    quality: str = field(default="draft", metadata=ruled(choice("draft", "final")))
    encoding: str = field(default="exr", metadata=ruled(choice("exr", "raw")))
    compression: str = field(default="zip", metadata=A_NAME)
    aovs: bool = field(default=False, metadata=ruled(boolean))
    provenance: str = field(default="full", metadata=ruled(choice("full", "digest", "none")))
    attributes: Mapping[str, Scalar] = field(default_factory=dict[str, Scalar], metadata=ruled(mapping(scalar)))


@dataclass(frozen=True)
class Picture(Message):
    """What `frame` and `result` share: which frame of which job, and how to read its body.

    `shape` is (height, width, channels). A raw body is one little-endian (H, W, C) buffer with C in {1, 3, 4} and
    straight alpha and names every channel; an `exr` body is one whole file, whose `channels` may be left to it.
    `ev` is the exposure relative to the reference frame, in stops.
    """

    id: str = field(metadata=A_NAME)
    index: int = field(metadata=A_COUNT)
    number: int = field(metadata=ruled(integer(-(2**31), 2**31 - 1)))
    format: str = field(metadata=ruled(choice(*FORMATS)))
    shape: Tuple[int, ...] = field(metadata=ruled(sequence(integer(1, 65536), 3, 3)))
    channels: Tuple[str, ...] = field(metadata=A_NAMES)
    colourspace: Colourspace = field(metadata=A_COLOURSPACE)
    ev: float = field(default=0.0, metadata=ruled(real(-64.0, 64.0)))

    def problem(self) -> str:
        """Raw bodies need C of 1, 3 or 4, and a name for every channel."""
        raw = self.format in RAW_ITEM_BYTES
        if raw and self.shape[2] not in RAW_CHANNELS:
            return f"a raw frame has 1, 3 or 4 channels, got {self.shape[2]}"
        if (raw or self.channels) and len(self.channels) != self.shape[2]:
            return f"{len(self.channels)} channel names do not fit {self.shape[2]} channels"
        return ""

    def body_problem(self, length: int) -> str:
        """A raw body is exactly height x width x channels x item bytes; an EXR is not empty."""
        if self.format not in RAW_ITEM_BYTES:
            return "" if length > 0 else "an EXR body cannot be empty"
        height, width, channels = self.shape
        needed = height * width * channels * RAW_ITEM_BYTES[self.format]
        if needed != length:
            return f"{self.format} of shape {list(self.shape)} needs {needed} bytes, the body has {length}"
        return ""


@dataclass(frozen=True)
class Frame(Picture):
    """One input frame of a job; its body follows."""

    TYPE = 4
    NAME = "frame"
    BODY = True


@dataclass(frozen=True)
class End(Message):
    """No more frames follow for this job."""

    TYPE = 5
    NAME = "end"

    id: str = field(metadata=A_NAME)


@dataclass(frozen=True)
class Progress(Message):
    """What an open job is doing: step `done` of `total` on frame `frame`; `position` is its place in the queue."""

    TYPE = 6
    NAME = "progress"

    id: str = field(metadata=A_NAME)
    phase: str = field(metadata=ruled(choice(*PHASES)))
    frame: int = field(default=0, metadata=A_COUNT)
    done: int = field(default=0, metadata=A_COUNT)
    total: int = field(default=0, metadata=A_COUNT)
    position: int = field(default=0, metadata=A_COUNT)
    eta_s: Optional[float] = field(default=None, metadata=ruled(optional(real(0.0))))


@dataclass(frozen=True)
class Result(Picture):
    """One result frame; its body follows.

    `sha256` is that of the body, or "" when it was not taken; `key` is the result's identity.
    """

    TYPE = 7
    NAME = "result"
    BODY = True

    key: str = field(default="", metadata=A_LABEL)
    sha256: str = field(default="", metadata=ruled(matching("(?:[0-9a-f]{64})?", "64 hexadecimal digits")))
    counts: Mapping[str, int] = field(default_factory=dict[str, int], metadata=A_COUNTS)
    warnings: Tuple[str, ...] = field(default=(), metadata=ruled(sequence(prose(4096), 0, 64)))


@dataclass(frozen=True)
class Done(Message):
    """The job ended well after `frames` results."""

    TYPE = 8
    NAME = "done"

    id: str = field(metadata=A_NAME)
    frames: int = field(metadata=A_COUNT)
    seconds: float = field(metadata=A_SECONDS)
    counts: Mapping[str, int] = field(default_factory=dict[str, int], metadata=A_COUNTS)


@dataclass(frozen=True)
class Error(Message):
    """The job, or without an `id` the connection, ended with a failure."""

    TYPE = 9
    NAME = "error"

    code: str = field(metadata=A_NAME)
    message: str = field(metadata=ruled(prose(4096)))
    details: Mapping[str, Any] = field(default_factory=dict[str, Any], metadata=ruled(mapping(anything)))
    id: Optional[str] = field(default=None, metadata=A_NAME_OR_NONE)

    @classmethod
    def of(cls, error: HDRGenError, id: Optional[str] = None) -> Error:  # noqa: A002  # the field's name
        """The message that reports an exception."""
        return cls(code=error.code, message=error.message[:4096], details=error.details, id=id)

    def exception(self) -> HDRGenError:
        """The exception that this message reports."""
        return from_code(self.code, self.message, dict(self.details))


@dataclass(frozen=True)
class Cancel(Message):
    """Ends a job of this connection's session; of an unknown or ended job it does nothing."""

    TYPE = 10
    NAME = "cancel"

    id: str = field(metadata=A_NAME)


@dataclass(frozen=True)
class Status(Message):
    """Asks for `health`."""

    TYPE = 11
    NAME = "status"


@dataclass(frozen=True)
class Health(Message):
    """Three answers (live, ready, ready for a pack) and what explains them."""

    TYPE = 12
    NAME = "health"

    live: bool = field(metadata=ruled(boolean))
    ready: bool = field(metadata=ruled(boolean))
    packs_ready: Mapping[str, bool] = field(metadata=ruled(mapping(boolean)))
    uptime_s: float = field(metadata=A_SECONDS)
    queue: QueueInfo = field(metadata=A_QUEUE)
    sessions: int = field(metadata=A_COUNT)
    workers: Tuple[WorkerInfo, ...] = field(default=(), metadata=A_WORKERS)
    recent_errors: Tuple[ErrorInfo, ...] = field(default=(), metadata=ruled(sequence(record(ErrorInfo))))
    counters: Mapping[str, float] = field(default_factory=dict[str, float], metadata=ruled(mapping(real())))
    jobs: Tuple[JobInfo, ...] = field(default=(), metadata=ruled(sequence(record(JobInfo))))


@dataclass(frozen=True)
class Free(Message):
    """Unloads a pack, or every idle one, and gives the device's memory back; answered by `health`."""

    TYPE = 13
    NAME = "free"

    pack: Optional[str] = field(default=None, metadata=A_NAME_OR_NONE)


MESSAGES: Tuple[Type[Message], ...] = (
    Hello, Welcome, Open, Frame, End, Progress, Result, Done, Error, Cancel, Status, Health, Free,
)  # fmt: skip
TYPES: Mapping[int, Type[Message]] = {kind.TYPE: kind for kind in MESSAGES}
