"""The inputs of `hdrgen hdrfuse`, checked in full before any server hears of them.

It owns which files make a bracket, their EVs, their reference and their colourspace. It must not know
sockets.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from hdrgen_server.contracts.frame import Colourspace, Frame
from hdrgen_server.settings import Settings
from nuke_hdrgen.wire.errors import BadInput

if TYPE_CHECKING:
    from hdrgen_server.colour.ocio_config import ConfigView

FEWEST, MOST = 2, 7
MOST_EV = 30.0
SAME_EV = 0.05
UNLIKE_EV = 0.7


@dataclass(frozen=True)
class Spaces:
    """The colourspaces of one call.

    `output` is the result's; `given` what the user says the inputs are in, over their tags; `assumed` what an
    untagged EXR is in: the config's scene_linear. `config` converts inputs that only it understands.
    """

    output: Colourspace
    given: Colourspace | None
    assumed: Colourspace
    config: ConfigView


@dataclass(frozen=True)
class Moment:
    """The files of one moment, one for each exposure, and the frame number that the result gets."""

    number: int
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class Bracket:
    """Frames of one moment in the order given, each with its EV against the reference's.

    `frames` are (H, W, C) float32 in their own colourspace; `paths` are their files; `warning` is "" or one line.
    """

    frames: tuple[Frame, ...]
    paths: tuple[Path, ...]
    reference: int
    warning: str = ""

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


def moments(names: Sequence[str]) -> tuple[Moment, ...]:
    """The files of each moment: one moment of plain files, or every frame of sequences, one for each exposure.

    Raises BadInput when files are missing, plain files and sequences are mixed, or the sequences' frames differ.
    """
    from hdrgen_server.image.files import readable_file
    from hdrgen_server.image.sequence import find_sequence, is_pattern

    patterns = [is_pattern(name) and not Path(name).is_file() for name in names]
    if not any(patterns):
        return (Moment(0, tuple(readable_file(name) for name in names)),)
    if not all(patterns):
        raise BadInput("some inputs are sequences and some are files; give one sequence for each exposure")
    sequences = [find_sequence(name) for name in names]
    frames = sequences[0].frames
    for name, sequence in zip(names, sequences, strict=True):
        odd = sorted(set(frames) ^ set(sequence.frames))
        if odd:
            raise BadInput(f"{names[0]} and {name} differ in frame {odd[0]}; each exposure needs the same frames")
    return tuple(Moment(frame, tuple(sequence.path(frame) for sequence in sequences)) for frame in frames)


def config_name(settings: Settings, flag: str | None = None) -> str | None:
    """The OCIO config to load: --config, else $OCIO (None: the loader reads it), else the settings', else built-in."""
    return flag or (None if os.environ.get("OCIO") else settings.ocio_config or None)


def spaces(settings: Settings, config: str | None, output: str | None, given: str | None) -> Spaces:
    """Resolve the options' names in the config. Raises UnknownColourspace and BadInput."""
    from hdrgen_server.colour.ocio_config import load_config
    from hdrgen_server.colour.ocio_spaces import resolve

    view = load_config(config_name(settings, config))
    role = resolve(view)
    target = role if output is None else resolve(view, output)
    if target.range != "scene_linear":
        raise BadInput(f"--colourspace {target.name} is {target.range}; results are scene-linear: name a linear space")
    if not target.interop_id and target.chromaticities is None:
        raise BadInput(f"{view.source} does not say what {target.name} is; name a space with known primaries")
    return Spaces(target, None if given is None else resolve(view, given), role, view)


def read_bracket(
    paths: Sequence[Path],
    evs: tuple[float, ...] | None,
    reference: int | None,
    *,
    spaces: Spaces,
    nan_policy: str,
) -> Bracket:
    """Read and check a bracket. Raises BadInput naming the file, what is wrong and what to do."""
    from hdrgen_server.colour.sanitise import sanitise
    from hdrgen_server.image.reading import read_frame

    frames: list[Frame] = []
    for path in paths:
        frame = in_named_space(read_frame(path), spaces)
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
    return Bracket(tuple(relative), tuple(paths), chosen, _disagreement(relative, paths, chosen))


def _disagreement(frames: Sequence[Frame], paths: Sequence[Path], reference: int) -> str:
    """A warning when the files' own exposures contradict the EVs in use: usually files in another order."""
    from hdrgen_server.image.photograph import exposure_ev

    base = exposure_ev(frames[reference])
    for frame, path in zip(frames, paths, strict=True):
        own = exposure_ev(frame)
        if base is not None and own is not None and abs(own - base - frame.ev) > UNLIKE_EV:
            return f"{path} is taken as EV {frame.ev:+g}, its own exposure says {own - base:+.1f}; check the order"
    return ""


def in_named_space(frame: Frame, spaces: Spaces) -> Frame:
    """The frame in a space that the wire can name: what the user says, else its tag, else what is assumed."""
    untagged = str(frame.metadata.get("colourspace_from", "")).startswith("assumed") and "bits" not in frame.metadata
    space = spaces.given or (spaces.assumed if untagged else frame.colourspace)
    named = replace(frame, colourspace=space)
    if space.interop_id or space.chromaticities is not None:
        return named
    from hdrgen_server.colour.ocio import convert

    return convert(named, spaces.assumed, spaces.config)


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
