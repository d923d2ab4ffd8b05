"""Reads and fills the knobs of our gizmos: the one place that knows how a knob's value and script are asked for.

It owns finding our nodes, their values at a frame, and what a node needs before its first bake. It must not know jobs,
files on disk or threads; everything here runs in Nuke's main thread and touches no network.
"""

from __future__ import annotations

import hashlib
import os
import random
import uuid
from contextlib import contextmanager
from typing import Dict, Generator, Iterator, List, Mapping, Optional, Tuple

import nuke

from nuke_hdrgen.bake.frames import parse_frames
from nuke_hdrgen.bake.gizmos import EXPOSURES_MAXIMUM, Gizmo, gizmo_of
from nuke_hdrgen.bake.paths import forward, result_pattern
from nuke_hdrgen.bake.plan import SEED_LIMIT, Value, params_scripts, plate_of
from nuke_hdrgen.bake.shots import Shot
from nuke_hdrgen.host import colour
from nuke_hdrgen.wire.errors import BadInput, BadParameter

CACHE_VARIABLE = "HDRGEN_CACHE_ROOT"
CACHE_FOLDER = "hdrgen_cache"
ID_DIGITS = 12
UPSTREAM_MAXIMUM = 2000
SILENT_KNOBS = ("xpos ", "ypos ", "selected ", "name ", "label ", "note_font", "tile_color ", "gl_color ", "postage_")


def gizmo_at(node: nuke.Node) -> Gizmo:
    """Which gizmo a node is. Raises BadInput when it is none of ours."""
    gizmo = gizmo_of(node.knobs())
    if gizmo is None:
        raise BadInput(f"{node.fullName()} is no HDRFuse, SDR2HDR or Txt2HDR; name one of these")
    return gizmo


def our_nodes() -> List[nuke.Node]:
    """Every node of ours in the script, those inside groups too."""
    return [node for node in nuke.allNodes(recurseGroups=True) if gizmo_of(node.knobs()) is not None]


def text(node: nuke.Node, name: str) -> str:
    """A knob's value as text without space around it."""
    return str(node[name].value()).strip()


def whole(node: nuke.Node, name: str) -> int:
    """A whole-number knob's value."""
    return int(float(node[name].value()))


def flag(node: nuke.Node, name: str) -> bool:
    """A check box's value."""
    return bool(node[name].value())


def values_at(node: nuke.Node, gizmo: Gizmo, frame: int) -> Dict[str, Value]:
    """The values of every knob that decides a bake, at a frame, animation and expressions included."""
    return {name: _value_at(node[name], frame) for name in gizmo.baked}


def connected(node: nuke.Node, gizmo: Gizmo) -> Tuple[int, ...]:
    """The numbers (from 1) of the inputs that are connected."""
    return tuple(number for number in range(1, gizmo.inputs + 1) if node.input(number - 1) is not None)


def scripts_of(node: nuke.Node, gizmo: Gizmo) -> Dict[str, str]:
    """What `params8` of the node digests."""
    return params_scripts(gizmo, {name: node[name].toScript() for name in gizmo.baked}, connected(node, gizmo))


def pattern_of(node: nuke.Node, gizmo: Gizmo, changed: Optional[Mapping[str, str]] = None) -> str:
    """Where the node's results lie for its knobs as they are, or with some scripts changed.

    Raises BadParameter while the node has no cache root or bake id.
    """
    scripts = {**scripts_of(node, gizmo), **(changed or {})}
    return result_pattern(text(node, "cache_root"), text(node, "bake_id"), scripts, len(nuke.views()))


def frames_of(node: nuke.Node, given: str = "") -> Tuple[int, ...]:
    """The frames to bake: the still's one, else the range given, else the node's own, else the script's.

    Raises BadParameter for what is no range.
    """
    if flag(node, "still"):
        return (whole(node, "still_frame"),)
    asked = given or text(node, "range")
    if asked:
        return parse_frames(asked)
    return parse_frames(script_range())


def shot_of(node: nuke.Node, gizmo: Gizmo) -> Optional[Shot]:
    """The shot that a node in shot mode declares: its own range, else the script's, from the first frame to the last,
    with what changes over it; of a still its one frame. None in other modes and gizmos.

    Raises BadParameter for what is no range.
    """
    if gizmo.operation != "sdr2hdr" or text(node, "mode") != "shot":
        return None
    frames = frames_of(node)
    fps = float(nuke.root()["fps"].value())
    every = range(frames[0], frames[-1] + 1)
    animated = [name for name in gizmo.baked if _moves(node[name])]
    moving = tuple(name for name in animated if len({_value_at(node[name], frame) for frame in every}) > 1)
    return Shot(frames[0], frames[-1], fps, moving)


def script_range() -> str:
    """The script's own range, as `1001-1100`."""
    root = nuke.root()
    return "-".join(str(int(float(root[name].value()))) for name in ("first_frame", "last_frame"))


def fill(node: nuke.Node, gizmo: Gizmo) -> None:
    """Give a node what it must have before results can have a place: id, seed, colourspace and cache root.

    A still that never had an id holds the current frame. Only empty knobs are filled. The cache root stays empty in a
    script that was never saved.
    """
    with without_undo():
        _fill(node, gizmo)


def new_id() -> str:
    """A bake id that no other node has."""
    return uuid.uuid4().hex[:ID_DIGITS]


def _fill(node: nuke.Node, gizmo: Gizmo) -> None:
    if not text(node, "bake_id"):
        put(node, "bake_id", new_id())
        put(node, "still_frame", int(nuke.frame()))
    if whole(node, "seed") < 0:
        put(node, "seed", random.SystemRandom().randrange(SEED_LIMIT))
    if not text(node, "colourspace") and not text(node, "chromaticities"):
        found = colour.working_space()
        if found is not None:
            put(node, "colourspace", found.interop_id or found.name)
            put(node, "chromaticities", " ".join(f"{value:.6g}" for value in found.chromaticities or ()))
    if not text(node, "cache_root"):
        put(node, "cache_root", default_cache_root())


def choose_plate(node: nuke.Node, gizmo: Gizmo) -> None:
    """Have a bracket's reference be the plate that the live controls keep."""
    if gizmo.operation == "hdrfuse":
        index, offset = plate_of(values_at(node, gizmo, int(nuke.frame())), connected(node, gizmo))
        put(node, "plate_input", index)
        put(node, "plate_offset", offset)


def default_cache_root() -> str:
    """`$HDRGEN_CACHE_ROOT`, else `hdrgen_cache` beside the saved script, else empty."""
    named = forward(os.environ.get(CACHE_VARIABLE, ""))
    script = forward(nuke.root().name())
    if named or "/" not in script:
        return named
    return f"{script.rsplit('/', 1)[0]}/{CACHE_FOLDER}"


def put(node: nuke.Node, name: str, value: Value) -> bool:
    """Set a knob when its value differs, so that a script is marked changed only when it is; says whether it did."""
    if node[name].value() == value:
        return False
    node[name].setValue(value)
    return True


def say(node: nuke.Node, line: str) -> None:
    """Show a line in the node's status, which is never saved."""
    with untouched():
        node["status"].setValue(line)


@contextmanager
def without_undo() -> Generator[None, None, None]:
    """Keep changes out of the undo stack: undoing them would part a node from its results."""
    was = nuke.Undo.disabled()
    nuke.Undo.disable()
    try:
        yield
    finally:
        if not was:
            nuke.Undo.enable()


@contextmanager
def untouched() -> Generator[None, None, None]:
    """Leave the undo stack and the script's modified flag as they were."""
    root, was = nuke.root(), nuke.root().modified()
    try:
        with without_undo():
            yield
    finally:
        root.setModified(was)


def upstream(node: nuke.Node) -> List[nuke.Node]:
    """The nodes that a node depends on, nearest first, itself not among them; at most 2,000 are followed."""
    found: List[nuke.Node] = []
    names, waiting = {node.fullName()}, list(node.dependencies())
    while waiting and len(found) < UPSTREAM_MAXIMUM:
        following = waiting.pop(0)
        name = following.fullName()
        if name not in names:
            names.add(name)
            found.append(following)
            waiting += following.dependencies()
    return found


def upstream_digest(node: nuke.Node) -> str:
    """A digest of the knobs of everything upstream, and of the shot, so that a change can be told without rendering."""
    lines = [
        " ".join((other.Class(), *sorted(_telling(other.writeKnobs(nuke.WRITE_NON_DEFAULT_ONLY | nuke.TO_SCRIPT)))))
        for other in upstream(node)
    ]
    shot = shot_of(node, gizmo_at(node))
    lines += [] if shot is None else [f"shot {shot.text} at {shot.fps:g}"]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "replace")).hexdigest()[:16]


def _telling(script: str) -> Iterator[str]:
    return (line for line in script.splitlines() if not line.lstrip().startswith(SILENT_KNOBS))


def sharing(node: nuke.Node) -> List[str]:
    """The full names of other nodes of ours in the script with this node's bake id."""
    bake_id, own = text(node, "bake_id"), node.fullName()
    if not bake_id:
        return []
    return [other.fullName() for other in our_nodes() if text(other, "bake_id") == bake_id and other.fullName() != own]


def write_of(node: nuke.Node, number: int) -> nuke.Node:
    """The inner Write that exports an input. Raises BadInput when the node has none."""
    write = node.node(f"HDRGenIn{number}")
    if write is None:
        raise BadInput(f"{node.fullName()} has no HDRGenIn{number}; create the node anew from its gizmo")
    return write


def ev_of_metadata(node: nuke.Node) -> int:
    """Fill the EV knobs from the inputs' metadata; returns how many exposures were found.

    Exposure time, aperture and sensitivity come from EXIF or from an EXR's standard attributes. Raises BadInput
    naming the first input whose metadata says too little.
    """
    gizmo = gizmo_at(node)
    frames = text(node, "source") == "frames"
    count = whole(node, "exposures")
    found: Dict[int, float] = {}
    for number in range(1, min(count, EXPOSURES_MAXIMUM) + 1):
        source = node.input(0 if frames else number - 1)
        if source is None:
            continue
        time = int(nuke.frame()) + (whole(node, f"offset{number}") if frames else 0)
        said: Mapping[str, object] = source.metadata(None, time) or {}
        exposure = colour.exposure_ev(said)
        if exposure is None:
            raise BadInput(
                f"exposure {number} of {node.fullName()} states no exposure time; type its EV into ev{number}"
            )
        found[number] = exposure
    if len(found) < 2:
        raise BadInput(f"{node.fullName()} has {len(connected(node, gizmo))} inputs connected; connect at least two")
    middle = sorted(found.values())[(len(found) - 1) // 2]
    for number, exposure in found.items():
        put(node, f"ev{number}", round(exposure - middle, 4))
    return len(found)


def check_range(gizmo: Gizmo, node: nuke.Node) -> None:
    """Raises BadParameter when a number of variations or a size cannot be."""
    if gizmo.operation == "txt2hdr" and not 1 <= whole(node, "count") <= 64:
        raise BadParameter(f"count is {whole(node, 'count')}; a prompt has 1 to 64 variations")


def _moves(knob: nuke.Knob) -> bool:
    return knob.isAnimated() or knob.hasExpression()


def _value_at(knob: nuke.Knob, frame: int) -> Value:
    kind = knob.Class()
    moves = _moves(knob)
    if kind == "Enumeration_Knob":
        return knob.values()[int(knob.getValueAt(frame))] if moves else str(knob.value())
    if kind == "Boolean_Knob":
        return bool(knob.getValueAt(frame))
    if kind == "Int_Knob":
        return round(knob.getValueAt(frame))
    if kind == "Double_Knob":
        return float(knob.getValueAt(frame))
    return str(knob.value())
