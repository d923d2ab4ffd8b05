"""What each button of the gizmos does, by the button's name; a failure is one sentence to the artist.

It owns that table. It must not know how a bake works or what a sidecar is made of.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Callable, Dict, List

import nuke

from nuke_hdrgen import __version__
from nuke_hdrgen.bake.frames import format_frames
from nuke_hdrgen.host import bakes, nodes, pointing, results, sidecar, timings
from nuke_hdrgen.host.main_thread import GuiThread
from nuke_hdrgen.host.orders import plan_bake
from nuke_hdrgen.host.reports import duration, frames_text
from nuke_hdrgen.wire.errors import BadInput, HDRGenError
from nuke_hdrgen.wire.messages import Welcome


def press(node: nuke.Node, name: str) -> None:
    """Do what the button of this name does. With a GUI a failure is shown, without one it is raised."""
    try:
        ACTIONS[name](node)
    except HDRGenError as error:
        if not nuke.GUI:
            raise
        nodes.say(node, error.message)
        nuke.message(error.message)


def bake(node: nuke.Node) -> None:
    """Bake the current frame; a still holds it from now on."""
    frame = int(nuke.frame())
    if nodes.flag(node, "still"):
        nodes.put(node, "still_frame", frame)
    _bake(node, (frame,))


def bake_range(node: nuke.Node) -> None:
    """Bake the node's range; frames that are right already cost their rendering only."""
    _bake(node, nodes.frames_of(node))


def bake_stale(node: nuke.Node) -> None:
    """Bake the range's missing frames; all of the range, compared one by one, if anything upstream has changed."""
    frames = nodes.frames_of(node)
    pattern = pointing.point(node)
    if pattern and nodes.text(node, "upstream") == nodes.upstream_digest(node):
        there = set(results.baked_frames(pattern, tuple(nuke.views())))
        frames = tuple(frame for frame in frames if frame not in there)
    if not frames:
        nodes.say(node, "nothing is stale")
        return
    _bake(node, frames)


def cancel(node: nuke.Node) -> None:
    """End the node's bake; its finished frames stay."""
    running = bakes.running_on(node)
    if running is None:
        raise BadInput(f"{node.fullName()} is not being baked")
    running.cancel()
    nodes.say(node, "cancelling")


def estimate(node: nuke.Node) -> None:
    """Say how long the range would take on this machine."""
    order = plan_bake(node, nodes.frames_of(node))
    seconds = bakes.estimate(order)
    known = timings.timing(timings.timings_file(os.environ), order.gizmo.operation, order.pack, order.quality)
    if seconds is None or known is None:
        nodes.say(node, "not measured on this machine yet; bake one frame, then ask again")
        return
    nodes.say(node, f"{frames_text(len(order.pieces))}: about {duration(seconds)} on {known.device}")


def refresh(node: nuke.Node) -> None:
    """Look for bakes on disk, such as a farm's, and say whether anything upstream has changed since the last."""
    pointing.refresh(node)
    before = nodes.text(node, "upstream")
    changed = before and before != nodes.upstream_digest(node)
    nodes.say(node, "upstream has changed since the bake: press Bake stale" if changed else "")


def new_id(node: nuke.Node) -> None:
    """Part the node from bakes that it shares with copies of it; they stay on disk."""
    with nodes.without_undo():
        nodes.put(node, "bake_id", nodes.new_id())
        nodes.put(node, "take", 0)
        pointing.refresh(node)


def make_read(node: nuke.Node) -> None:
    """Put a plain Read of the bake beside the node: it needs neither the gizmo nor Python."""
    pattern = pointing.point(node)
    frames = results.baked_frames(pattern, tuple(nuke.views())) if pattern else ()
    if not frames:
        raise BadInput(f"{node.fullName()} has no bake yet; press Bake frame first")
    for other in nuke.allNodes():
        other.setSelected(False)
    read = nuke.createNode("Read", inpanel=False)
    for name, value in (("file", pattern), ("first", frames[0]), ("last", frames[-1]), ("raw", True)):
        read[name].setValue(value)
    read.setXYpos(node.xpos() + 110, node.ypos())
    nodes.say(node, f"{read.name()} reads frames {format_frames(frames)}")


def copy_to_group(node: nuke.Node) -> None:
    """Put a Group of the same graph, knobs and bakes beside the node: scripts with it need no gizmo file."""
    inputs = [node.input(index) for index in range(node.inputs())]
    group = node.makeGroup()
    for index, source in enumerate(inputs):
        group.setInput(index, source)
    group.setXYpos(node.xpos() + 110, node.ypos())
    nodes.say(node, f"{group.name()} holds a copy")


def ev_from_metadata(node: nuke.Node) -> None:
    """Fill the EV knobs from what the inputs' metadata says."""
    count = nodes.ev_of_metadata(node)
    nodes.say(node, f"EV of {count} exposures read from metadata")


def free_gpu(node: nuke.Node) -> None:
    """Have the sidecar give the device's memory back; idle packs are unloaded."""
    _in_background(node, sidecar.free_devices)


def troubleshoot(node: nuke.Node) -> None:
    """Show what support needs to know: versions, the sidecar, the cache."""
    lines = _facts(node)

    def look() -> str:
        try:
            with sidecar.open_shared() as connection:
                lines.extend(_sidecar_facts(connection.welcome))
        except HDRGenError as error:
            lines.append(f"sidecar: {error.message}")
        return "\n".join(lines)

    _in_background(node, look, show=True)


ACTIONS: Dict[str, Callable[[nuke.Node], None]] = {
    action.__name__: action
    for action in (
        bake, bake_range, bake_stale, cancel, estimate, refresh, new_id, make_read, copy_to_group, ev_from_metadata,
        free_gpu, troubleshoot,
    )
}  # fmt: skip


def _bake(node: nuke.Node, frames: tuple[int, ...]) -> None:
    if nuke.GUI:
        bakes.start(node, frames)
        return
    with sidecar.private_or_named() as connect:
        summary = bakes.run(node, frames, connect, nuke.tprint, may_change_take=True)
    nuke.tprint(f"HDRGEN {bakes.outcome_line(summary)}")


def _in_background(node: nuke.Node, call: Callable[[], str], *, show: bool = False) -> None:
    """Say what a call that may wait answers; with a GUI it waits in a thread of its own."""
    if not nuke.GUI:
        nuke.tprint(call())
        return

    def work() -> None:
        try:
            line = call()
        except HDRGenError as error:
            line = error.message
        GuiThread().post(lambda: _answer(node, line, show=show))

    threading.Thread(target=work, name="hdrgen ask", daemon=True).start()


def _answer(node: nuke.Node, line: str, *, show: bool) -> None:
    try:
        nodes.say(node, line.split("\n", maxsplit=1)[0])
    except ValueError:  # deleted meanwhile
        return
    if show:
        nuke.message(line)


def _facts(node: nuke.Node) -> List[str]:
    there = results.baked_frames(nodes.text(node, "result_path") or "/none/out.####.exr", tuple(nuke.views()))
    return [
        f"nuke-hdrgen {__version__}, Nuke {nuke.NUKE_VERSION_STRING}, Python {sys.version.split()[0]}, {sys.platform}",
        f"node: {node.fullName()} ({node.Class()}), script {nuke.root().name()}",
        f"results: {nodes.text(node, 'result_path') or 'nowhere yet'}",
        f"baked: {format_frames(there) or 'none'}",
        f"working space: {nodes.text(node, 'colourspace') or nodes.text(node, 'chromaticities') or 'unknown'}",
    ]


def _sidecar_facts(welcome: Welcome | None) -> List[str]:
    if welcome is None:
        return []
    workers = ", ".join(f"{worker.device} {worker.state}" for worker in welcome.workers) or "none yet"
    packs = ", ".join(pack.name + ("" if pack.licence_ok else " (licence not accepted)") for pack in welcome.packs)
    return [f"sidecar: version {welcome.package}, pid {welcome.pid}", f"workers: {workers}", f"packs: {packs}"]
