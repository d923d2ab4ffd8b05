"""What each node class does to pictures.

It owns the arithmetic of the classes in `CLASSES`; a knob set to something that is not built here raises NukeError. It
must not know files beyond asking `exr_files` for one.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.fakes.nuke import exr_files, scope
from tests.fakes.nuke.errors import NukeError
from tests.fakes.nuke.expressions import Operators, evaluate, parse
from tests.fakes.nuke.pixels import RGBA, Picture, Plane, Pull, black, channels, flat, format_size, from_array, union
from tests.fakes.nuke.plain_plates import FlatPlate

if TYPE_CHECKING:
    from tests.fakes.nuke.nodes import Node

PIXELS = dict(zip("rgba", RGBA))


def _flag(test: Any) -> Any:
    return np.asarray(test, np.float32)


ARRAYS: Operators = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: (
        np.true_divide(a, b) if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) else _quotient(a, b)
    ),
    "%": np.fmod,
    "==": lambda a, b: _flag(np.equal(a, b)),
    "!=": lambda a, b: _flag(np.not_equal(a, b)),
    "<": lambda a, b: _flag(np.less(a, b)),
    ">": lambda a, b: _flag(np.greater(a, b)),
    "<=": lambda a, b: _flag(np.less_equal(a, b)),
    ">=": lambda a, b: _flag(np.greater_equal(a, b)),
    "&&": lambda a, b: _flag(np.logical_and(a, b)),
    "||": lambda a, b: _flag(np.logical_or(a, b)),
    "!": lambda a: _flag(np.logical_not(a)),
    "?": lambda test, yes, no: np.where(np.asarray(test) != 0, _single(yes), _single(no)),
    "min": lambda a, b: np.minimum(_single(a), _single(b)),
    "max": lambda a, b: np.maximum(_single(a), _single(b)),
    "pow": lambda a, b: np.power(_single(a), _single(b)),
    "abs": np.abs,
    "floor": np.floor,
    "int": np.trunc,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "log": np.log,
}


def _single(value: Any) -> Any:
    return np.asarray(value, np.float32)


def _quotient(a: float, b: float) -> Any:
    return np.true_divide(_single(a), _single(b))


def _number(node: Node, knob: str, frame: float) -> float:
    return node._knobs[knob].getValueAt(frame)


def _default(node: Node, *names: str) -> None:
    for name in names:
        if name in node._knobs and node._knobs[name]._script() != node._knobs[name]._saved_default:
            raise NukeError(
                f"{node._path()}.{name} is {node._knobs[name]._script()!r}: this Nuke knows only its default"
            )


def _plain(node: Node) -> None:
    """Refuse masks, mixes and the like, which no node here needs."""
    _default(node, "maskChannelInput", "inject", "invert_mask", "fringe", "unpremult", "invert_unpremult", "mix")


def _pass(pull: Pull, node: Node, frame: float) -> Picture:
    return pull.input(node, 0, frame)


def _plate(pull: Pull, node: Node, frame: float) -> Picture:
    source = node._nuke.plates[node._knobs["picture"]._state]
    made: Any = source(frame) if callable(source) else source
    if isinstance(made, FlatPlate):
        return flat(made)
    return made if isinstance(made, Picture) else from_array(made)


def _switch(pull: Pull, node: Node, frame: float) -> Picture:
    which = int(_number(node, "which", frame))
    return pull.input(node, min(max(which, 0), max(node.inputs() - 1, 0)), frame)


def _dissolve(pull: Pull, node: Node, frame: float) -> Picture:
    _plain(node)
    _default(node, "channels", "metainput")
    which = min(max(_number(node, "which", frame), 0.0), max(node.inputs() - 1, 0))
    first, share = int(which), np.float32(which - int(which))
    rest = np.float32(1) - share
    if share == 0:
        return pull.input(node, first, frame)
    a, b = pull.input(node, first, frame), pull.input(node, first + 1, frame)
    box = union([a.box, b.box])
    a, b = a.within(box), b.within(box)
    names = dict.fromkeys([*a.planes, *b.planes])
    return a.with_planes({name: np.asarray(a.plane(name) * rest + b.plane(name) * share, np.float32) for name in names})


def _copy(pull: Pull, node: Node, frame: float) -> Picture:
    _plain(node)
    _default(node, "metainput")
    b, a = pull.input(node, 0, frame), pull.input(node, 1, frame)
    kind = node._knobs["bbox"].valueAt(frame)
    box = {"B": b.box, "A": a.box}.get(kind) or union([a.box, b.box])
    a, b = a.within(box), b.within(box)
    taken: dict[str, Plane] = {}
    for index in range(4):
        source, target = channels(node, f"from{index}", a, b), channels(node, f"to{index}", a, b)
        if len(source) > 1 or len(source) != len(target):
            raise NukeError(f"{node._path()}: from{index} {source} does not fit to{index} {target}")
        taken.update({into: a.plane(name) for name, into in zip(source, target)})
    layer = {name: a.plane(name) for name in channels(node, "channels", a)}
    return b.with_planes({**taken, **layer})


def _copy_metadata(pull: Pull, node: Node, frame: float) -> Picture:
    image, meta = pull.input(node, 0, frame), pull.input(node, 1, frame)
    ours = _filtered(node, "imageMetadatafilter", image.metadata)
    theirs = _filtered(node, "metadatafilter", meta.metadata)
    mode = node._knobs["mergeMode"].valueAt(frame)
    joined = {
        "Image+Meta": {**ours, **theirs}, "Meta+Image": {**theirs, **ours}, "Meta only": theirs, "Image only": ours,
    }[mode]  # fmt: skip
    return replace(image, metadata=joined)


def _filtered(node: Node, knob: str, metadata: dict[str, Any]) -> dict[str, Any]:
    wanted = node._knobs[knob]._state
    mode = node._knobs[f"{knob}Mode"].value()
    if not wanted:
        return dict(metadata)
    pattern = f"*{wanted}*"
    return {
        key: value
        for key, value in metadata.items()
        if (mode != "values only" and fnmatch.fnmatchcase(key, pattern))
        or (mode != "keys only" and fnmatch.fnmatchcase(str(value), pattern))
    }


def _expression(pull: Pull, node: Node, frame: float) -> Picture:
    _plain(node)
    picture = pull.input(node, 0, frame)
    return _computed(node, frame, picture, {"": picture})


def _merge_expression(pull: Pull, node: Node, frame: float) -> Picture:
    _plain(node)
    b, a = pull.input(node, 0, frame), pull.input(node, 1, frame)
    box = union([a.box, b.box])
    a, b = a.within(box), b.within(box)
    return _computed(node, frame, b, {"A": a, "B": b})


def _computed(node: Node, frame: float, into: Picture, sources: dict[str, Picture]) -> Picture:
    values = {
        f"{side}{letter}": picture.plane(name) for side, picture in sources.items() for letter, name in PIXELS.items()
    }
    for side, picture in sources.items():
        prefix = f"{side}." if side else ""
        values.update({f"{prefix}{name}": plane for name, plane in picture.planes.items()})
    outer = scope.names(node, frame)

    def names(path: str, at: float | None) -> Any:
        return values[path] if at is None and path in values else outer(path, at)

    known = {name for layer in node._nuke._layers.values() for name in layer}
    if "" in sources:
        values.update({name: into.plane(name) for name in known if name not in values})
    with np.errstate(all="ignore"):
        for index in range(4):
            name = node._knobs[f"temp_name{index}"]._state
            if name:
                values[name] = evaluate(parse(node._knobs[f"temp_expr{index}"]._state), names, ARRAYS)
        made: dict[str, Plane] = {}
        for index in range(4):
            text = node._knobs[f"expr{index}"]._state
            if not text:
                continue
            result = evaluate(parse(text), names, ARRAYS)
            plane = np.broadcast_to(np.asarray(result, np.float32), (into.box[3], into.box[2]))
            made.update({name: np.array(plane) for name in channels(node, f"channel{index}", into)})
    return into.with_planes(made)


def _alpha_scaled(pull: Pull, node: Node, frame: float, divide: bool) -> Picture:
    picture = pull.input(node, 0, frame)
    if node._knobs["invert"].valueAt(frame):
        raise NukeError(f"{node._path()}.invert: this Nuke knows only its default")
    (alpha_name,) = channels(node, "alpha", picture)
    alpha = picture.plane(alpha_name)
    made: dict[str, Plane] = {}
    for name in channels(node, "channels", picture):
        if name != alpha_name and name in picture.planes:
            plane = picture.plane(name)
            made[name] = np.divide(plane, alpha, out=plane.copy(), where=alpha != 0) if divide else plane * alpha
    return picture.with_planes(made)


def _unpremult(pull: Pull, node: Node, frame: float) -> Picture:
    return _alpha_scaled(pull, node, frame, divide=True)


def _premult(pull: Pull, node: Node, frame: float) -> Picture:
    return _alpha_scaled(pull, node, frame, divide=False)


def _whole(node: Node, frame: float) -> int:
    if not float(frame).is_integer():
        raise NukeError(f"{node._path()}: frame {frame} is between frames")
    return int(frame)


def _time_warp(pull: Pull, node: Node, frame: float) -> Picture:
    return pull.input(node, 0, _whole(node, _number(node, "lookup", frame)))


def _time_offset(pull: Pull, node: Node, frame: float) -> Picture:
    _default(node, "reverse_input", "rounding_mode")
    return pull.input(node, 0, _whole(node, frame - _number(node, "time_offset", frame)))


def _frame_hold(pull: Pull, node: Node, frame: float) -> Picture:
    _default(node, "rounding_mode")
    first, step = _number(node, "firstFrame", frame), _number(node, "increment", frame)
    return pull.input(node, 0, _whole(node, first + (math.floor((frame - first) / step) * step if step else 0)))


def _constant(pull: Pull, node: Node, frame: float) -> Picture:
    width, height = format_size(node, node._knobs["format"]._state)
    colour = _four(node, "color", frame)
    names = channels(node, "channels")
    picture = Picture({}, (0, 0, width, height), (width, height), {})
    return picture.with_planes({name: np.full((height, width), colour[RGBA.index(name)], np.float32) for name in names})


def _four(node: Node, knob: str, frame: float) -> list[float]:
    value = node._knobs[knob].getValueAt(frame)
    return list(value) if isinstance(value, list) else [value] * 4


def _multiply(pull: Pull, node: Node, frame: float) -> Picture:
    _plain(node)
    return _scaled(pull.input(node, 0, frame), node, _four(node, "value", frame), [0.0] * 4, clamp=False)


def _grade(pull: Pull, node: Node, frame: float) -> Picture:
    _plain(node)
    _default(node, "blackpoint", "whitepoint", "black", "white", "gamma", "reverse", "white_clamp")
    clamp = bool(node._knobs["black_clamp"].valueAt(frame))
    picture = pull.input(node, 0, frame)
    return _scaled(picture, node, _four(node, "multiply", frame), _four(node, "add", frame), clamp=clamp)


def _scaled(picture: Picture, node: Node, by: list[float], add: list[float], *, clamp: bool) -> Picture:
    made: dict[str, Plane] = {}
    for name in channels(node, "channels", picture):
        if name not in picture.planes:
            continue
        at = RGBA.index(name) if name in RGBA else 0
        plane = picture.plane(name) * np.float32(by[at]) + np.float32(add[at])
        made[name] = np.maximum(plane, np.float32(0)) if clamp else plane
    return picture.with_planes(made)


def _crop(pull: Pull, node: Node, frame: float) -> Picture:
    _default(node, "softness", "intersect", "crop", "preset")
    picture = pull.input(node, 0, frame)
    left, bottom, right, top = (int(value) for value in _four(node, "box", frame))
    height = picture.format[1]
    x, y, wide, high = picture.box
    box = (max(x, left), max(y, height - top), min(x + wide, right), min(y + high, height - bottom))
    inner = (box[0], box[1], max(box[2] - box[0], 0), max(box[3] - box[1], 0))
    cropped = picture.within(inner)
    if not node._knobs["reformat"].valueAt(frame):
        return cropped
    shifted = (inner[0] - left, inner[1] - (height - top), inner[2], inner[3])
    return replace(cropped, box=shifted, format=(right - left, top - bottom))


def _read(pull: Pull, node: Node, frame: float) -> Picture:
    return exr_files.read(node, _whole(node, frame), black(node))


CLASSES: dict[str, Callable[[Pull, Node, float], Picture]] = {
    "Constant": _constant,
    "Copy": _copy,
    "CopyMetaData": _copy_metadata,
    "Crop": _crop,
    "Dissolve": _dissolve,
    "Dot": _pass,
    "Expression": _expression,
    "FrameHold": _frame_hold,
    "Grade": _grade,
    "MergeExpression": _merge_expression,
    "Multiply": _multiply,
    "NoOp": _pass,
    "Output": _pass,
    "Plate": _plate,
    "Premult": _premult,
    "Read": _read,
    "Switch": _switch,
    "TimeOffset": _time_offset,
    "TimeWarp": _time_warp,
    "Unpremult": _unpremult,
    "Write": _pass,
}
