"""What a bake will do, from knob values alone: for each frame and view its inputs, parameters, seed and result file.

It owns how values become requests. It must not know Nuke, files or sockets, and touches none of them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Dict, Mapping, Optional, Sequence, Tuple, Union

from nuke_hdrgen.bake.gizmos import ENCODINGS, EXPOSURES_MAXIMUM, MIDDLE, Gizmo
from nuke_hdrgen.wire.errors import BadInput, BadParameter

Value = Union[str, int, float, bool]
Values = Mapping[str, Value]
SEED_LIMIT = 2**31


@dataclass(frozen=True)
class Source:
    """One picture that a result needs: the gizmo's input (1 to 7), at which frame, and its EV in stops."""

    number: int
    frame: int
    ev: float = 0.0


@dataclass(frozen=True)
class Task:
    """One result: its frame and view, what goes in, and with which parameters and seed."""

    frame: int
    view: str
    sources: Tuple[Source, ...]
    parameters: Mapping[str, Value]
    seed: int


def task_at(gizmo: Gizmo, values: Values, connected: Sequence[int], frame: int, view: str, name: str) -> Task:
    """The task of one frame from the knob values at that frame; `connected` are numbers of connected inputs.

    `name` is the node's, for errors. Raises BadInput for missing inputs and BadParameter for values that cannot be.
    """
    parameters: Dict[str, Value] = {wire: values[knob] for knob, wire in gizmo.parameters.items()}
    if gizmo.operation == "hdrfuse":
        sources = _exposures(values, connected, frame, name)
        parameters["reference"] = reference_index(values, sources)
    else:
        sources = tuple(Source(number, frame) for number in connected[: gizmo.inputs])
    if gizmo.operation == "sdr2hdr":
        parameters["encoding"] = ENCODINGS[str(values["encoding"])]
        if not sources:
            raise BadInput(f"{name} has no input; connect the plate to it")
    if gizmo.operation == "txt2hdr":
        if not str(values["prompt"]).strip():
            raise BadParameter(f"{name} has an empty prompt; describe the picture in a sentence")
        if sources:
            parameters["strength"] = values["strength"]
    parameters.update(extra_parameters(str(values["parameters"])))
    return Task(frame, view, sources, parameters, seed_at(gizmo, values, frame))


def reference_index(values: Values, sources: Sequence[Source]) -> int:
    """The reference's index among the pictures that are sent: as chosen, or the one with the middle EV.

    Raises BadParameter when the chosen one is not among them.
    """
    chosen = str(values["reference"])
    if chosen == MIDDLE:
        order = sorted(range(len(sources)), key=lambda index: (sources[index].ev, index))
        return order[(len(order) - 1) // 2]
    numbers = _numbers(values, sources)
    if int(chosen) not in numbers:
        raise BadParameter(
            f"reference is exposure {chosen}, which is not connected; choose one of {', '.join(map(str, numbers))}"
        )
    return numbers.index(int(chosen))


def plate_of(values: Values, connected: Sequence[int]) -> Tuple[int, int]:
    """(index of the input, frame offset) of an HDRFuse node's plate: its reference; (0, 0) while that is not there."""
    try:
        sources = _exposures(values, connected, 0, "")
        source = sources[reference_index(values, sources)]
    except (BadInput, BadParameter):
        return 0, 0
    return source.number - 1, source.frame


def seed_at(gizmo: Gizmo, values: Values, frame: int) -> int:
    """The seed that is sent: of the node and the frame, so that noise does not repeat; of a shot the node's own.

    A variation of a prompt adds its number, so that the first one is the node's own seed at any frame.
    """
    seed = int(values["seed"])
    if seed < 0:
        raise BadParameter("seed is not drawn yet; set it to 0 or above")
    if gizmo.operation == "txt2hdr":
        return (seed + int(values["variation"]) - 1) % SEED_LIMIT
    if gizmo.operation == "sdr2hdr" and values["mode"] == "shot":
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}:{frame}".encode("ascii")).digest()[:4], "big") % SEED_LIMIT


def extra_parameters(text: str) -> Dict[str, Value]:
    """`NAME=VALUE NAME=VALUE` as parameters: whole numbers, numbers, true, false, else text.

    Raises BadParameter for a part without a name or an equals sign.
    """
    found: Dict[str, Value] = {}
    for part in text.split():
        name, equals, value = part.partition("=")
        if not name or not equals:
            raise BadParameter(f"{part[:60]!r} in `parameters` is not NAME=VALUE; see `hdrgen packs show PACK`")
        found[name] = _typed(value)
    return found


def params_scripts(gizmo: Gizmo, scripts: Mapping[str, str], connected: Sequence[int]) -> Dict[str, str]:
    """What `params8` digests: scripts of the knobs that decide a bake, and which of several inputs are connected."""
    inputs = {} if gizmo.operation == "sdr2hdr" else {"inputs": " ".join(map(str, connected))}
    return {**{name: scripts[name] for name in gizmo.baked}, **inputs}


def _exposures(values: Values, connected: Sequence[int], frame: int, name: str) -> Tuple[Source, ...]:
    count = int(values["exposures"])
    if not 2 <= count <= EXPOSURES_MAXIMUM:
        raise BadParameter(f"exposures is {count}; a bracket has 2 to {EXPOSURES_MAXIMUM}")
    numbers = range(1, count + 1)
    if values["source"] == "frames":
        if 1 not in connected:
            raise BadInput(f"{name} has nothing in input 1; connect the Read whose frames are the exposures")
        offsets = [int(values[f"offset{number}"]) for number in numbers]
        if len(set(offsets)) < count:
            raise BadParameter(f"two exposures of {name} have the same frame offset; give each its own")
        return tuple(
            Source(1, frame + offset, float(values[f"ev{number}"])) for number, offset in zip(numbers, offsets)
        )
    sources = tuple(Source(number, frame, float(values[f"ev{number}"])) for number in numbers if number in connected)
    if len(sources) < 2:
        raise BadInput(f"{name} has {len(sources)} of {count} exposures connected; connect at least two")
    return sources


def _numbers(values: Values, sources: Sequence[Source]) -> Tuple[int, ...]:
    """The exposures' numbers as the artist sees them."""
    if values["source"] == "frames":
        return tuple(range(1, len(sources) + 1))
    return tuple(source.number for source in sources)


def _typed(text: str) -> Value:
    if text in {"true", "false"}:
        return text == "true"
    for kind in (int, float):
        number = _number(kind, text)
        if number is not None:
            return number
    return text


def _number(kind: type[Union[int, float]], text: str) -> Optional[Union[int, float]]:
    try:
        number = kind(text)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None
