"""One shot through the sidecar: plates read ahead, results finished and written behind, and what is said of it all.

It owns that order and the record that `--json` prints. It must not know options, sockets, nor how files are made.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hdrgen_server.cli import console, finishing, jobs, outputs
from hdrgen_server.cli.choice import Choice
from hdrgen_server.cli.finishing import Finish, Plate
from hdrgen_server.cli.lanes import Ahead, Behind
from hdrgen_server.cli.movies import MovieEnd
from hdrgen_server.cli.plates import Shot
from hdrgen_server.cli.streaming import Answer, Stream
from hdrgen_server.contracts.frame import Frame
from nuke_hdrgen.wire.errors import BadInput, BadParameter
from nuke_hdrgen.wire.windows import Windows

if TYPE_CHECKING:
    from hdrgen_server.image.movie_write import Form

OPERATION = "sdr2hdr"
STOPS = (-4.0, -2.0, 0.0, 2.0)
MOST_WARNINGS = 5


@dataclass(frozen=True)
class Ends:
    """Where results go: EXRs and pictures by frame number, and the movie, None where there is none."""

    exrs: Mapping[int, Path]
    previews: Mapping[int, Path]
    movie: MovieEnd | None = None


@dataclass
class Report:
    """What a run did so far."""

    source: str
    output: str
    choice: Choice
    kept: int = 0
    frames: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    counts: Counter[str] = field(default_factory=Counter[str])
    warnings: Counter[str] = field(default_factory=Counter[str])
    busy: dict[str, float] = field(default_factory=dict[str, float])
    movie: dict[str, Any] = field(default_factory=dict[str, Any])
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        space = self.choice.spaces.output
        return {
            "operation": OPERATION, "input": self.source, "output": self.output,
            "pack": self.choice.pack.name, "preview_pack": self.choice.pack.preview,
            "colourspace": space.name, "interop_id": space.interop_id,
            "preserve_plate": self.choice.finish.preserve_plate, "ceiling": self.choice.finish.ceiling,
            "results": self.frames, "kept": self.kept, "counts": dict(self.counts), "warnings": list(self.warnings),
            "movie": self.movie or None, "busy": self.busy, "seconds": round(self.seconds, 3),
        }  # fmt: skip

    def sentence(self) -> str:
        """What a person reads."""
        if not self.frames:
            return f"{self.output}: all {self.kept} frames are there already"
        pack = f"pack {self.choice.pack.name}{' (preview)' if self.choice.pack.preview else ''}"
        what = self.output if len(self.frames) == 1 else f"{len(self.frames)} frames to {self.output}"
        kept = f", {self.kept} kept" if self.kept else ""
        space = self.movie.get("is") or self.choice.spaces.output.name
        samples = self.counts["samples"]
        clipped = f", {100 * self.counts['clipped'] / samples:.1f} % clipped" if samples else ""
        busy = ", ".join(f"{name} {100 * share:.0f} %" for name, share in self.busy.items())
        shares = f" ({busy} busy)" if len(self.frames) > 1 else ""
        return f"wrote {what} in {space}, {pack}{kept}{clipped}, {self.seconds:.1f} s{shares}"


def ends(output: str, preview: str | None, form: Form | None, shot: Shot, numbers: Sequence[int]) -> Ends:
    """The files of the results of some of a shot's frames, checked. Raises BadInput, BadParameter and StorageError."""
    if form is None:
        targets = outputs.plan(outputs.Names(output, preview), numbers)
        outputs.spare(targets, shot.files)
        exrs = {number: target.exr for number, target in zip(numbers, targets, strict=True)}
        previews = {n: t.preview for n, t in zip(numbers, targets, strict=True) if t.preview is not None}
        return Ends(exrs, previews)
    if preview is not None:
        raise BadParameter(f"{output} is a movie: --preview goes with EXRs; leave it out")
    path = MovieEnd.check(output)
    if path.resolve() in {file.resolve() for file in shot.files}:
        raise BadInput(f"{path} is the input; give the result another name")
    return Ends({}, {}, MovieEnd(path, form, shot.rate))


def unfinished(shot: Shot, numbers: Sequence[int], ends: Ends, choice: Choice) -> Sequence[int]:
    """Those of a shot's numbers whose EXR is not there, or was made from something else or otherwise.

    Raises BadParameter where results do not say what they were made from.
    """
    from hdrgen_server.image.exr import read_exr_header

    if choice.provenance != "full":
        raise BadParameter("--resume needs results that say how they were made; set HDRGEN_PROVENANCE=full")
    there = [number for number in numbers if ends.exrs[number].is_file()]
    if not there:
        return numbers
    job = _job(choice)
    kept: set[int] = set()
    for number, made_from, index in _made_from(shot, there, choice, job):
        header = read_exr_header(ends.exrs[number])
        finished = {name: header[name] for name in ("hdrgen/preserve_plate", "hdrgen/ceiling") if name in header}
        made = header.get("hdrgen/key") == jobs.key_of(job, made_from, choice.pack, index)
        if made and set(finished) == set(choice.finish.attributes) and _alike(finished, choice.finish):
            kept.add(number)
    return tuple(number for number in numbers if number not in kept)


def _made_from(
    shot: Shot, numbers: Sequence[int], choice: Choice, job: jobs.Job
) -> Iterator[tuple[int, Sequence[str], int]]:
    """Each of these numbers, with the identities of the plates that its result is made from, and which of them is its
    own.
    """
    looked_at = _looked_at(shot, numbers, choice)
    windows = _windows(choice)
    identities: dict[int, str] = {}
    waiting = deque(numbers)
    for plate in shot.plates(looked_at):
        identities[plate.frame.number] = jobs.identity_of(job, plate)
        while waiting:
            wanted = [waiting[0]] if windows is None else _inputs(shot, windows, waiting[0])
            if wanted[-1] not in identities:
                break
            yield waiting[0], [identities[number] for number in wanted], list(wanted).index(waiting[0])
            waiting.popleft()
            for number in [number for number in identities if number < wanted[0]]:
                del identities[number]


def _windows(choice: Choice) -> Windows | None:
    descriptor = choice.pack.descriptor
    return descriptor.windows(descriptor.resolve(choice.parameters)) if descriptor.temporal else None


def _inputs(shot: Shot, windows: Windows, number: int) -> Sequence[int]:
    """The numbers of the plates that a frame's result is made from."""
    found = windows.inputs(shot.numbers.index(number), len(shot.numbers))
    return shot.numbers[found.start : found.stop]


def _looked_at(shot: Shot, numbers: Sequence[int], choice: Choice) -> Sequence[int]:
    """The numbers of the plates that the sidecar has to see for the results of some: of windows, all between the first
    and the last one's.
    """
    windows = _windows(choice)
    if windows is None or not numbers:
        return numbers
    first, last = (shot.numbers.index(number) for number in (numbers[0], numbers[-1]))
    needed = windows.needed(first, last, len(shot.numbers))
    return shot.numbers[needed.start : needed.stop]


def expand(link: jobs.Link, shot: Shot, numbers: Sequence[int], ends: Ends, choice: Choice, report: Report) -> None:
    """Run plates through the sidecar and write every result; fills the report.

    What is done stays, whatever ends the run. Raises BadInput, StorageError and what the sidecar reports.
    """
    started = time.monotonic()
    encoding = "exr" if ends.movie is None else ends.movie.encoding
    sent, wanted = _looked_at(shot, numbers, choice), set(numbers)

    def write(answer: Answer) -> None:
        if answer.plate.frame.number in wanted:  # others only stand in a window with one
            _write(answer, ends, choice, report)

    with console.progress(Path(report.output).name) as update:
        read = Ahead(shot.plates(sent))
        written = Behind(write)
        stream = Stream(
            link, _job(choice), read, len(sent), encoding,
            lambda phase, done, total: _progress(update, report, len(numbers), phase, done, total),
            lambda: written.has_room() and read.ready(),  # so what is under way stays little
            alone=_windows(choice) is None,
        )  # fmt: skip
        try:
            with read, written:
                for answer in stream:
                    written.put(answer)
        finally:
            if ends.movie is not None:
                report.movie = ends.movie.close()
                report.warnings.update(report.movie.get("warnings", ()))
            report.seconds = time.monotonic() - started
            watches = {"decode": read.watch, "sidecar": stream.busy, "encode": written.watch}
            report.busy = {name: round(watch.seconds / report.seconds, 3) for name, watch in watches.items()}
            _say_warnings(report)


def _job(choice: Choice) -> jobs.Job:
    return jobs.Job(
        OPERATION, choice.pack.name, choice.parameters, (), (), choice.spaces.output,
        quality=choice.quality, seed=choice.seed, aovs=choice.aovs, provenance=choice.provenance,
    )  # fmt: skip


def _progress(update: console.Update, report: Report, count: int, phase: str, done: int, total: int) -> None:
    if count == 1:
        update(phase, done, total)
    else:
        update("frames" if phase in {"step", "encoding"} else phase, len(report.frames), count)


def _write(answer: Answer, ends: Ends, choice: Choice, report: Report) -> None:
    """Finish and write one result."""
    number = answer.plate.frame.number
    plate = _kept_plate(answer.plate, choice) if choice.finish.preserve_plate else None
    space = choice.spaces.output
    record: dict[str, Any] = {"frame": number, "key": answer.key, "counts": dict(answer.counts)}
    if ends.movie is not None:
        light_hwc = np.frombuffer(answer.body, "<f4").reshape(answer.shape)
        result = Frame(light_hwc, ("R", "G", "B", "A")[: answer.shape[2]], space, number=number)
        aspect = answer.plate.frame.pixel_aspect
        ends.movie.take(replace(finishing.on_frame(result, plate, choice.finish), pixel_aspect=aspect))
    else:
        from hdrgen_server.image.files import write_beside

        finished = finishing.apply(answer.body, plate, space, choice.finish, choice.provenance)
        write_beside(ends.exrs[number], finished.body)
        record["output"] = str(ends.exrs[number])
        if number in ends.previews:
            from hdrgen_server.cli.preview import write_preview

            write_preview(ends.exrs[number], ends.previews[number], STOPS)
            record["preview"] = str(ends.previews[number])
    report.counts.update(answer.counts)
    report.warnings.update(answer.warnings)
    report.frames.append(record)


def _kept_plate(plate: jobs.Plate, choice: Choice) -> Plate:
    """The plate in the result's space, clipped where the system takes it as clipped."""
    from hdrgen_server.colour.interop import colourspace
    from hdrgen_server.colour.ocio import convert
    from hdrgen_server.colour.sanitise import sanitise
    from hdrgen_server.image.finish import clipped_pixels
    from hdrgen_server.systems.sdr2hdr import sdr_plate

    frame = sanitise(plate.frame)[0]
    descriptor = choice.pack.descriptor
    seen = frame
    if frame.colourspace.range == "scene_linear" and descriptor.input_space:
        seen = convert(frame, colourspace(descriptor.input_space))
    codes = sdr_plate(seen, descriptor.resolve(choice.parameters))
    return Plate(convert(frame, choice.spaces.output).rgb, clipped_pixels(codes.codes, codes.clipped_code))


def _alike(finished: Mapping[str, Any], finish: Finish) -> bool:
    wanted = finish.attributes
    return all(abs(float(finished[name]) - float(wanted[name])) <= 1e-6 * abs(float(wanted[name])) for name in wanted)


def _say_warnings(report: Report) -> None:
    for warning, _ in zip(report.warnings, range(MOST_WARNINGS), strict=False):
        console.note(warning)
    if len(report.warnings) > MOST_WARNINGS:
        console.note(f"{len(report.warnings) - MOST_WARNINGS} more warnings; --json lists all")
