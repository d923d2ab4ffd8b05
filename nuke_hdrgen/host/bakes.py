"""Starts bakes of nodes and puts their outcome into the nodes: in the background with a GUI, in the foreground without.

It owns which bakes run, what a node knows afterwards and how a failure is told. It must not know how a bake works.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import Callable, List, Optional, Sequence

import nuke

from nuke_hdrgen.client.connection import Connection
from nuke_hdrgen.host import nodes, pointing, results, sidecar, timings
from nuke_hdrgen.host.baking import Bake
from nuke_hdrgen.host.ledger import Summary
from nuke_hdrgen.host.main_thread import GuiThread, TerminalThread
from nuke_hdrgen.host.orders import Order, plan_bake
from nuke_hdrgen.host.reports import LineReport, WindowReport, duration, frames_text
from nuke_hdrgen.wire.errors import BadInput, Cancelled, HDRGenError

log = logging.getLogger("nuke_hdrgen")

_running: List[Bake] = []


def running_on(node: nuke.Node) -> Optional[Bake]:
    """The bake of a node that is under way."""
    name = node.fullName()
    return next((bake for bake in _running if _name_of(bake.order.node) == name), None)


def start(node: nuke.Node, frames: Sequence[int]) -> Bake:
    """Start a bake in the background, followed by Nuke's progress window; GUI only.

    A node that shares its bake id with another one in the script, as after copy and paste, gets a new one first.
    Raises what `plan_bake` raises, and BadInput while the node is baked already; later failures are shown.
    """
    if running_on(node) is not None:
        raise BadInput(f"{node.fullName()} is being baked; wait, or press Cancel first")
    if nodes.sharing(node):
        with nodes.without_undo():
            nodes.put(node, "bake_id", nodes.new_id())
    order = plan_bake(node, frames)
    pointing.point(node)
    main, views = GuiThread(), order.views

    def on_ready(pattern: str) -> None:
        frames_there = results.baked_frames(pattern, views)
        main.post(lambda: pointing.show_if_there(node, pattern, frames_there))

    report = WindowReport(order.name, estimate(order), on_ready)
    bake = Bake(order, main, sidecar.open_shared, report)
    digest = nodes.upstream_digest(node)
    _running.append(bake)
    nodes.say(node, f"baking {frames_text(len(order.pieces))}")
    threading.Thread(target=_follow, args=(bake, main, digest), name="hdrgen bake", daemon=True).start()
    return bake


def run(
    node: nuke.Node,
    frames: Sequence[int],
    connect: Callable[[], Connection],
    write: Callable[[str], object],
    *,
    may_change_take: bool,
) -> Summary:
    """Bake in the foreground, with plain lines; Ctrl-C cancels. Raises whatever ends the bake before its end."""
    main = TerminalThread()
    bake = Bake(plan_bake(node, frames, may_change_take=may_change_take), main, connect, LineReport(write))
    outcome: List[Summary] = []
    failures: List[BaseException] = []

    def work() -> None:
        try:
            outcome.append(bake.run())
        except Exception as error:  # noqa: BLE001  # not swallowed: raised by the thread that waits
            failures.append(error)
        finally:
            bake.done.set()

    threading.Thread(target=work, name="hdrgen bake", daemon=True).start()
    while not bake.done.is_set():
        try:
            main.serve(bake.done)
        except KeyboardInterrupt:  # noqa: PERF203  # the bake ends in its own time
            bake.cancel()
    if failures:
        raise failures[0]
    (summary,) = outcome
    settle(bake.order, summary, nodes.upstream_digest(node))
    return summary


def settle(order: Order, summary: Summary, digest: str) -> None:
    """Put what a bake found into its node: the take, what is baked, and what upstream looked like."""
    node = order.node
    with nodes.without_undo():
        nodes.put(node, "take", summary.take)
        nodes.put(node, "upstream", digest)
        pointing.refresh(node)
    if summary.sent and summary.megapixels:
        measured = timings.Timing(summary.seconds / summary.megapixels, summary.device)
        path = timings.timings_file(os.environ)
        timings.remember(path, order.gizmo.operation, order.pack, order.quality, measured)


def estimate(order: Order) -> Optional[float]:
    """Seconds that a bake will take if every piece has to be made, from what was measured here; None if nothing was."""
    known = timings.timing(timings.timings_file(os.environ), order.gizmo.operation, order.pack, order.quality)
    if known is None:
        return None
    return known.seconds_per_megapixel * _megapixels(order) * len(order.pieces)


def outcome_line(summary: Summary) -> str:
    """What a bake did, in a line."""
    made = f"{frames_text(summary.sent)} baked in {duration(summary.seconds)}" if summary.sent else "nothing to bake"
    found = f", {frames_text(summary.found)} found" if summary.found else ""
    warned = f"; {summary.warnings[0]}" if summary.warnings else ""
    return f"{made}{found}{warned}"


def _megapixels(order: Order) -> float:
    if not order.gizmo.has_plate:
        return nodes.whole(order.node, "size_width") * nodes.whole(order.node, "size_height") / 1e6
    source = order.node.input(order.pieces[0].task.sources[0].number - 1)
    assert source is not None
    return source.format().width() * source.format().height() / 1e6


def _follow(bake: Bake, main: GuiThread, digest: str) -> None:
    """The top of a bake's thread: whatever ends it is told in the main thread."""
    try:
        summary = bake.run()
    except HDRGenError as error:
        _tell(bake, main, error)
    except Exception as error:  # a thread's top: a defect is told too
        log.exception("a bake failed")
        _tell(bake, main, HDRGenError(f"{type(error).__name__}: {error}; this is a defect: press Troubleshoot"))
    else:
        main.post(lambda: _finished(bake, summary, digest))
    finally:
        _running.remove(bake)
        bake.done.set()


def _tell(bake: Bake, main: GuiThread, error: HDRGenError) -> None:
    main.post(lambda: _failed(bake, error))


def _finished(bake: Bake, summary: Summary, digest: str) -> None:
    try:
        settle(bake.order, summary, digest)
        nodes.say(bake.order.node, outcome_line(summary))
    except ValueError:  # deleted meanwhile; its results stay
        return


def _failed(bake: Bake, error: HDRGenError) -> None:
    try:
        pointing.refresh(bake.order.node)
        nodes.say(bake.order.node, error.message)
    except ValueError:
        log.info("the node of a failed bake was deleted")
    if not isinstance(error, Cancelled):
        nuke.message(error.message)


def _name_of(node: nuke.Node) -> str:
    try:
        return node.fullName()
    except ValueError:
        return ""
