"""The inputs of `hdrgen hdrfuse`, checked in full before any server hears of them.

It owns which files make a bracket, their EVs, their reference and their colourspace. It must not know
sockets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from hdrgen_server.contracts.frame import Colourspace, Frame
from nuke_hdrgen.wire.errors import BadInput

FEWEST, MOST = 2, 7
MOST_EV = 30.0
SAME_EV = 0.01


@dataclass(frozen=True)
class Bracket:
    """Frames of one moment in the order given, each with its EV against the reference's.

    `frames` are (H, W, C) float32 in their own colourspace; `paths` are their files.
    """

    frames: tuple[Frame, ...]
    paths: tuple[Path, ...]
    reference: int

    @property
    def evs(self) -> tuple[float, ...]:
        """The EV of each frame; the reference's is 0."""
        return tuple(frame.ev for frame in self.frames)


def parse_evs(text: str | None, count: int) -> tuple[float, ...] | None:
    """The numbers of `--ev`, one for each input. Raises BadInput when they are no numbers or do not match."""
    if text is None:
        return None
    try:
        evs = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise BadInput(f"--ev {text!r} is no list of numbers; write for example --ev=-2,0,2") from error
    if len(evs) != count:
        raise BadInput(f"--ev has {len(evs)} values for {count} inputs; give one for each, in their order")
    if not all(math.isfinite(ev) and abs(ev) <= MOST_EV for ev in evs):
        raise BadInput(f"--ev {text!r} goes beyond {MOST_EV:g} stops; EVs are stops between the exposures")
    check_distinct(evs, "--ev")
    return evs


def check_count(count: int) -> None:
    """Raises BadInput unless there are as many inputs as a bracket takes."""
    if not FEWEST <= count <= MOST:
        advice = "a bracket needs two exposures or more" if count < FEWEST else "leave some exposures out"
        raise BadInput(f"hdrfuse takes {FEWEST} to {MOST} images, got {count}; {advice}")


def check_reference(reference: int | None, count: int) -> None:
    """Raises BadInput unless the reference is the index of an input, counted from 0."""
    if reference is not None and not 0 <= reference < count:
        raise BadInput(f"--reference {reference} is no input; it counts from 0, the last one is {count - 1}")


def check_distinct(evs: Sequence[float], where: str) -> None:
    """Raises BadInput naming two inputs whose exposures are the same."""
    order = sorted(range(len(evs)), key=lambda index: evs[index])
    for low, high in pairwise(order):
        if evs[high] - evs[low] < SAME_EV:
            first, second = sorted((low, high))
            raise BadInput(
                f"inputs {first} and {second} have the same exposure (EV {evs[low]:g} by {where}); "
                "a bracket needs different ones"
            )


def middle_of(evs: Sequence[float]) -> int:
    """The index of the middle EV; of two in the middle the darker one, which clips less."""
    return sorted(range(len(evs)), key=lambda index: evs[index])[(len(evs) - 1) // 2]


def read_bracket(
    paths: Sequence[Path],
    evs: tuple[float, ...] | None,
    reference: int | None,
    *,
    colourspace: Colourspace | None,
    assumed: Colourspace,
    nan_policy: str,
) -> Bracket:
    """Read and check a bracket.

    `colourspace` is what the user says the inputs are in, over what the files say; `assumed` is what an
    untagged EXR is in. Raises BadInput naming the file, what is wrong and what to do.
    """
    from hdrgen_server.colour.sanitise import sanitise
    from hdrgen_server.image.reading import read_frame

    frames: list[Frame] = []
    for path in paths:
        frame = _in_space(read_frame(path), colourspace, assumed)
        if frames and (frame.width, frame.height) != (frames[0].width, frames[0].height):
            first = frames[0]
            raise BadInput(
                f"{path} is {frame.width}x{frame.height}, {paths[0]} is {first.width}x{first.height}; "
                "a bracket needs one size: crop or export them alike"
            )
        if nan_policy == "refuse":
            try:
                sanitise(frame, "refuse")
            except BadInput as error:
                raise BadInput(
                    f"{path}: {error.message}, or let HDRGEN_NAN_POLICY=replace replace and count them"
                ) from error
        frames.append(frame)
    known = evs or _exif_evs(frames, paths)
    chosen = middle_of(known) if reference is None else reference
    relative = [replace(f, ev=ev - known[chosen]) for f, ev in zip(frames, known, strict=True)]
    return Bracket(tuple(relative), tuple(paths), chosen)


def _in_space(frame: Frame, colourspace: Colourspace | None, assumed: Colourspace) -> Frame:
    if colourspace is not None:
        return replace(frame, colourspace=colourspace)
    untagged = str(frame.metadata.get("colourspace_from", "")).startswith("assumed")
    return replace(frame, colourspace=assumed) if untagged and "bits" not in frame.metadata else frame


def _exif_evs(frames: Sequence[Frame], paths: Sequence[Path]) -> tuple[float, ...]:
    from hdrgen_server.image.photograph import exposure_ev

    found: list[float] = []
    for frame, path in zip(frames, paths, strict=True):
        ev = exposure_ev(frame)
        if ev is None:
            raise BadInput(f"{path} does not state time, aperture and ISO; give --ev, one for each input")
        found.append(ev)
    check_distinct(found, "EXIF")
    return tuple(found)
