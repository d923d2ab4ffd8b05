"""Points a node at its results: the path that its knobs stand for, and which frames are there.

It owns `result_path` and `baked`, the two knobs by which a node's Read and switch follow. It must not know the sidecar.
"""

from __future__ import annotations

import threading
from typing import Sequence

import nuke

from nuke_hdrgen.bake.frames import baked_expression
from nuke_hdrgen.host import nodes, results
from nuke_hdrgen.host.main_thread import GuiThread
from nuke_hdrgen.wire.errors import HDRGenError

ALWAYS = "1"


def point(node: nuke.Node) -> str:
    """Set `result_path` to where the node's knobs say that its results lie; "" while that cannot be said."""
    gizmo = nodes.gizmo_at(node)
    nodes.choose_plate(node, gizmo)
    try:
        pattern = nodes.pattern_of(node, gizmo)
    except HDRGenError:
        pattern = ""
    nodes.put(node, "result_path", pattern)
    return pattern


def show(node: nuke.Node, pattern: str, frames: Sequence[int]) -> None:
    """Tell the node which frames are baked, unless it points elsewhere by now."""
    if nodes.text(node, "result_path") != pattern:
        return
    held = nodes.flag(node, "still") and nodes.whole(node, "still_frame") in frames
    with nodes.untouched():
        node["baked"].setExpression(ALWAYS if held else baked_expression(frames))
        read = node.node("HDRGenOut")
        if nuke.GUI and read is not None:
            read["reload"].execute()  # a Read that once met a missing file looks again


def refresh(node: nuke.Node) -> None:
    """Point a node and show what is there; with a GUI the folder is listed in a thread of its own."""
    look(node, point(node))


def look(node: nuke.Node, pattern: str) -> None:
    """Show what is there of the sequence that a node points at; with a GUI from a thread of its own."""
    views = tuple(nuke.views())
    if not pattern:
        show(node, pattern, ())
    elif nuke.GUI:
        threading.Thread(target=_list, args=(node, pattern, views), name="hdrgen list", daemon=True).start()
    else:
        show(node, pattern, results.baked_frames(pattern, views))


def _list(node: nuke.Node, pattern: str, views: Sequence[str]) -> None:
    try:
        frames: Sequence[int] = results.baked_frames(pattern, views)
    except HDRGenError:
        frames = ()
    GuiThread().post(lambda: show_if_there(node, pattern, frames))


def show_if_there(node: nuke.Node, pattern: str, frames: Sequence[int]) -> None:
    """Show, unless the node was deleted while its folder was listed."""
    try:
        show(node, pattern, frames)
    except ValueError:
        return
