"""Checks before a render that the bakes it will read are there, and says which command makes them.

It owns what counts as upstream and the words of the failure. It must not know the sidecar; it changes no node. That
pixels upstream have changed since a bake is not checked: it would take rendering them.
"""

from __future__ import annotations

import os
from typing import Iterator, List, Sequence

import nuke

from nuke_hdrgen.bake.frames import format_frames, parse_frames
from nuke_hdrgen.bake.gizmos import gizmo_of
from nuke_hdrgen.bake.paths import forward, frame_path
from nuke_hdrgen.host import nodes, results
from nuke_hdrgen.wire.errors import HDRGenError

BAKE = f"{forward(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))}/bake.py"
LAG_VARIABLE = "HDRGEN_LAG_S"
LAG_S = 60.0  # network file systems show a file of another host late


def is_ours(write: nuke.Node) -> bool:
    """Whether a Write is one of ours, which export inputs and need no bake."""
    return write.name().startswith("HDRGenIn")


def check_settings(write: nuke.Node) -> None:
    """Raises RuntimeError, naming node and command, when a node upstream points elsewhere than its knobs say."""
    for node in _upstream(write):
        gizmo = nodes.gizmo_at(node)
        try:
            wanted = nodes.pattern_of(node, gizmo)
        except HDRGenError as error:
            raise RuntimeError(f"{node.fullName()} is not baked: {error.message}. {command(node, '')}") from error
        if wanted != nodes.text(node, "result_path"):
            raise RuntimeError(
                f"{node.fullName()} was changed since it was baked. {command(node, nodes.script_range())}"
            )


def check_frame(write: nuke.Node, frame: int, view: str) -> None:
    """Raises RuntimeError when the result of a node upstream is not there, after waiting for slow file systems."""
    for node in _upstream(write):
        still = nodes.flag(node, "still")
        number = nodes.whole(node, "still_frame") if still else frame
        pattern = nodes.text(node, "result_path")
        if not results.wait_for(frame_path(pattern, number, view), _lag_s()):
            missing = str(number) if still else format_frames(_missing(pattern, view, frame))
            raise RuntimeError(f"{node.fullName()} has no bake of frames {missing}. {command(node, missing)}")


def command(node: nuke.Node, frames: str) -> str:
    """What to run so that the node is baked."""
    script, chosen = nuke.root().name(), frames.replace(" ", ",") or nodes.script_range()
    return f"Run: nuke -t {_quoted(BAKE)} {_quoted(script)} --node={node.fullName()} --range={chosen}"


def _upstream(write: nuke.Node) -> Iterator[nuke.Node]:
    """Our nodes that a Write reads, but not those that are switched off."""
    for node in _with_groups(nodes.upstream(write)):
        if gizmo_of(node.knobs()) is not None and not node["disable"].value() and nodes.flag(node, "show_result"):
            yield node


def _with_groups(found: Sequence[nuke.Node]) -> Iterator[nuke.Node]:
    """The nodes, those inside groups among them, and what feeds the group that one is in."""
    waiting: List[nuke.Node] = list(found)
    seen = {node.fullName() for node in waiting}
    while waiting:
        node = waiting.pop()
        yield node
        ours = gizmo_of(node.knobs()) is not None
        inner = node.nodes() if isinstance(node, nuke.Group) and not ours else ()
        outer = nuke.toNode(node.fullName().rpartition(".")[0]) if node.Class() == "Input" else None
        more = [*inner, *(nodes.upstream(outer) if outer is not None else ())]
        waiting += [other for other in more if other.fullName() not in seen]
        seen |= {other.fullName() for other in more}


def _missing(pattern: str, view: str, frame: int) -> List[int]:
    """The frames of the script's range that are not there, the one that was asked for among them."""
    there = set(results.baked_frames(pattern, (view,)))
    return sorted({frame, *parse_frames(nodes.script_range())} - there | {frame})


def _lag_s() -> float:
    """How long a file may be late: `$HDRGEN_LAG_S`, else a minute; an artist at a GUI does not wait."""
    try:
        return 0.0 if nuke.GUI else float(os.environ.get(LAG_VARIABLE, "") or LAG_S)
    except ValueError as error:
        raise RuntimeError(f"${LAG_VARIABLE}={os.environ[LAG_VARIABLE]} is no number of seconds") from error


def _quoted(path: str) -> str:
    return f'"{path}"' if " " in path else path
