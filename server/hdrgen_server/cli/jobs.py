"""Runs one job in the sidecar: finds or starts it, sends the frames, and collects the results' bytes.

It owns how frames become wire messages. It must not know options, result files or the terminal.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hdrgen_server import __version__
from hdrgen_server.cli.console import Update
from hdrgen_server.contracts.descriptor import Value
from hdrgen_server.contracts.frame import Colourspace, Frame
from hdrgen_server.settings import Settings
from nuke_hdrgen.client.connection import Connection
from nuke_hdrgen.client.job import run_job
from nuke_hdrgen.wire import messages as wire

Link = Connection


@dataclass(frozen=True)
class Job:
    """One request: `frames` in their own colourspaces with their EVs, `paths` their files, `output` the result's space.

    `number` is the frame number that goes into the messages.
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
    request = wire.Open(
        id=uuid.uuid4().hex,
        operation=job.operation,
        frames=len(job.frames),
        output=_space(job.output),
        pack=job.pack,
        parameters=dict(job.parameters),
        seed=job.seed,
        quality=job.quality,
        aovs=job.aovs,
        provenance=job.provenance,
        attributes={"client": f"hdrgen {__version__}"},
    )
    bodies: list[memoryview] = []
    key, warnings, counts = "", list[str](), dict[str, int]()
    for result, body in run_job(link, request, _messages(job, request.id), lambda p: update(p.phase, p.done, p.total)):
        bodies.append(body)
        key = result.key
        warnings += result.warnings
        counts = {name: counts.get(name, 0) + result.counts.get(name, 0) for name in {*counts, *result.counts}}
    return Outcome(tuple(bodies), key, counts, tuple(dict.fromkeys(warnings)), time.monotonic() - started)


def _messages(job: Job, job_id: str) -> Iterator[tuple[wire.Frame, bytes | memoryview]]:
    for index, (frame, path) in enumerate(zip(job.frames, job.paths, strict=True)):
        kind, body = _body(frame, path)
        message = wire.Frame(
            id=job_id,
            index=index,
            number=job.number,
            format=kind,
            shape=frame.pixels.shape,
            channels=frame.channels,
            colourspace=_space(frame.colourspace),
            ev=frame.ev,
        )
        yield message, body


def _body(frame: Frame, path: Path) -> tuple[str, bytes | memoryview]:
    """EXR input travels as EXR, with its layers and windows; a photograph as a float buffer."""
    from hdrgen_server.image.exr import encode_exr, read_exr_frame
    from hdrgen_server.image.reading import EXR_MAGIC

    with path.open("rb") as stream:
        if stream.read(len(EXR_MAGIC)) != EXR_MAGIC:
            return _raw(frame)
        stream.seek(0)
        tagged = read_exr_frame(path).colourspace == frame.colourspace
        return "exr", stream.read() if tagged else encode_exr(frame, compression="none", half=False)


def _raw(frame: Frame) -> tuple[str, memoryview]:
    return "f32", frame.pixels.data.cast("B")


def _space(space: Colourspace) -> wire.Colourspace:
    return wire.Colourspace(space.name, space.interop_id, space.chromaticities, space.range)


def session_name() -> str:
    """Groups the connections of one shell process."""
    return f"cli-{os.getpid()}"
