"""Runs one job in the sidecar: finds or starts it, sends the frames, and collects the results' bytes.

It owns how frames become wire messages; plates that come one by one are `streaming`. It must not know options, result
files or the terminal.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from hdrgen_server import __version__
from hdrgen_server.cli.console import Update
from hdrgen_server.contracts.descriptor import Value
from hdrgen_server.contracts.frame import Colourspace, Frame
from hdrgen_server.packs.manifest import Pack
from hdrgen_server.settings import Settings
from nuke_hdrgen.client.connection import Connection
from nuke_hdrgen.client.job import run_job
from nuke_hdrgen.wire import messages as wire
from nuke_hdrgen.wire.identity import input_identity, result_key

Link = Connection


@dataclass(frozen=True)
class Job:
    """One request: `frames` in their own colourspaces with their EVs, `paths` their files, `output` the result's space.

    `number` is the frame number that goes into the messages. A stream has no `frames`: they come one by one.
    """

    operation: str
    pack: str
    parameters: Mapping[str, Value]
    frames: tuple[Frame, ...]
    paths: tuple[Path, ...]
    output: Colourspace
    number: int = 0
    quality: str = "draft"
    seed: int = 0
    aovs: bool = False
    provenance: str = "full"


@dataclass(frozen=True, eq=False)
class Plate:
    """One frame of a stream in its own colourspace, what messages call it, and its file where that is an EXR."""

    frame: Frame
    name: str
    exr: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What came back: whole EXR files, and what the sidecar counted and warned of."""

    bodies: tuple[memoryview, ...]
    key: str
    counts: Mapping[str, int]
    warnings: tuple[str, ...]
    seconds: float


@contextmanager
def connected(settings: Settings) -> Generator[Link]:
    """A connection to the sidecar that the settings name, else to the shared one, started when there is none.

    Raises NoServer, AlreadyRunning (another version or settings), PermissionRefused.
    """
    from hdrgen_server.cli.server import connect_or_start

    with connect_or_start(settings) as link:
        yield link


def run(link: Link, job: Job, update: Update) -> Outcome:
    """Run a job to its end. Raises what the sidecar reports; leaving early cancels the job."""
    started = time.monotonic()
    request = request_of(job, len(job.frames), "exr")
    bodies: list[memoryview] = []
    key, warnings, counts = "", list[str](), dict[str, int]()
    for result, body in run_job(link, request, _messages(job), lambda p: update(p.phase, p.done, p.total)):
        bodies.append(body)
        key = result.key
        warnings += result.warnings
        counts = {name: counts.get(name, 0) + result.counts.get(name, 0) for name in {*counts, *result.counts}}
    return Outcome(tuple(bodies), key, counts, tuple(dict.fromkeys(warnings)), time.monotonic() - started)


def identity_of(job: Job, plate: Plate) -> str:
    """What one plate of a stream shows and means, as the sidecar says it."""
    return input_identity(*message_of(job, plate, 0))


def key_of(job: Job, made_from: Sequence[str], pack: Pack, index: int = 0) -> str:
    """The key of a stream's result that is made from plates of these identities and is the `index`-th of them, as the
    sidecar says it.
    """
    return result_key(request_of(job, 1, "exr"), pack.digest, pack.revision, _space(job.output), made_from, index)


def request_of(job: Job, count: int, encoding: str) -> wire.Open:
    """The message that opens a job of `count` frames."""
    return wire.Open(
        id=uuid.uuid4().hex,
        operation=job.operation,
        frames=count,
        output=_space(job.output),
        pack=job.pack,
        parameters=dict(job.parameters),
        seed=job.seed,
        quality=job.quality,
        encoding=encoding,
        aovs=job.aovs,
        provenance=job.provenance,
        attributes={"client": f"hdrgen {__version__}"},
    )


def _messages(job: Job) -> Iterator[tuple[wire.Frame, bytes | memoryview]]:
    from hdrgen_server.image.reading import EXR_MAGIC

    for index, (frame, path) in enumerate(zip(job.frames, job.paths, strict=True)):
        with path.open("rb") as file:
            is_exr = file.read(len(EXR_MAGIC)) == EXR_MAGIC
        yield message_of(job, Plate(replace(frame, number=job.number), str(path), path if is_exr else None), index)


def message_of(job: Job, plate: Plate, index: int) -> tuple[wire.Frame, bytes | memoryview]:
    """One frame as a message and its body."""
    frame = plate.frame
    kind, body = _body(plate)
    message = wire.Frame(
        id=job.operation,
        index=index,
        number=frame.number,
        format=kind,
        shape=frame.pixels.shape,
        channels=frame.channels,
        colourspace=_space(frame.colourspace),
        ev=frame.ev,
    )
    return message, body


def _body(plate: Plate) -> tuple[str, bytes | memoryview]:
    """EXR input travels as EXR, with its layers and windows, and so do oblong pixels; the rest as a float buffer."""
    from hdrgen_server.image.exr import encode_exr, read_exr_frame

    frame = plate.frame
    if plate.exr is not None and read_exr_frame(plate.exr).colourspace == frame.colourspace:
        return "exr", plate.exr.read_bytes()
    if plate.exr is not None or frame.pixel_aspect != 1.0:
        return "exr", encode_exr(frame, compression="none", half=False)
    return "f32", frame.pixels.data.cast("B")


def _space(space: Colourspace) -> wire.Colourspace:
    return wire.Colourspace(space.name, space.interop_id, space.chromaticities, space.range)


def session_name() -> str:
    """Groups the connections of one shell process."""
    return f"cli-{os.getpid()}"
