"""Bakes on a farm: the command line of `nuke -t bake.py`, plain lines as progress, and exit codes.

It owns the flags and the codes: 0 done, 1 a render failed, 2 bad input, 3 another sidecar is in the way, 4 refused, 5
the sidecar could not, 130 cancelled. It must not know how a bake works.
"""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import contextmanager
from typing import Generator, Sequence

import nuke

from nuke_hdrgen.bake.frames import parse_frames, runs
from nuke_hdrgen.bake.gizmos import gizmo_of
from nuke_hdrgen.host import bakes, nodes, sidecar
from nuke_hdrgen.wire.errors import BadInput, Cancelled, HDRGenError

RENDER_FAILED = 1


def main(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; a failure is one line on standard error."""
    try:
        options = _parser().parse_args(arguments)
    except SystemExit as ended:
        return 2 if ended.code else 0
    try:
        with _cancellable():
            _bake(options)
            if options.then_render:
                _render(options)
    except HDRGenError as error:
        return _failed(error.message, error.exit_status)
    except KeyboardInterrupt:
        return _failed("cancelled", Cancelled.exit_status)
    except RuntimeError as error:
        return _failed(" ".join(str(error).split()), RENDER_FAILED)
    return 0


@contextmanager
def _cancellable() -> Generator[None, None, None]:
    """Have the signals that farm managers cancel with raise KeyboardInterrupt, even where a parent had them ignored."""
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nuke -t bake.py", description="Bake HDRFuse, SDR2HDR and Txt2HDR nodes of a script."
    )
    parser.add_argument("script", help="the .nk to open")
    parser.add_argument("--node", action="append", default=[], help="a node's full name; may be repeated; else all")
    parser.add_argument("--range", default="", help="frames, such as 1001-1010; else the node's, else the script's")
    parser.add_argument("--then-render", default="", metavar="WRITE", help="render this Write over the frames after")
    parser.add_argument("--save-as", default="", metavar="NEW.nk", help="save the script with the baked nodes")
    return parser


def _bake(options: argparse.Namespace) -> None:
    _open(options.script)
    chosen = [_node(name) for name in options.node] or [n for n in nodes.our_nodes() if not n["disable"].value()]
    if not chosen:
        raise BadInput(f"{options.script} has no HDRFuse, SDR2HDR or Txt2HDR; nothing can be baked")
    lasting = bool(options.save_as or options.then_render)
    for node in chosen:
        _check_lasting(node, lasting=lasting)
    with sidecar.private_or_named() as connect:
        for node in chosen:
            frames = nodes.frames_of(node, options.range)
            summary = bakes.run(node, frames, connect, _line, may_change_take=lasting)
            _line(f"HDRGEN {node.fullName()}: {bakes.outcome_line(summary)}")
            for warning in summary.warnings:
                _line(f"HDRGEN {node.fullName()}: {warning}")
    if options.save_as:
        nuke.scriptSaveAs(options.save_as, 1)


def _open(script: str) -> None:
    try:
        nuke.scriptOpen(script)
    except RuntimeError as error:
        raise BadInput(f"{script} cannot be opened: {' '.join(str(error).split())}") from error


def _node(name: str) -> nuke.Node:
    node = nuke.toNode(name)
    if node is None or gizmo_of(node.knobs()) is None:
        there = ", ".join(other.fullName() for other in nodes.our_nodes()) or "none"
        raise BadInput(f"the script has no HDRFuse, SDR2HDR or Txt2HDR named {name}; it has: {there}")
    return node


def _check_lasting(node: nuke.Node, *, lasting: bool) -> None:
    """Refuse a bake that no later task could find, or that another node would take for its own."""
    name, others = node.fullName(), nodes.sharing(node)
    if not lasting and (not nodes.text(node, "bake_id") or nodes.whole(node, "seed") < 0):
        raise BadInput(
            f"{name} has never had a bake id, so a later render could not find its bake; open and save the script in "
            "Nuke, or add --save-as NEW.nk or --then-render=WRITE"
        )
    if others:
        raise BadInput(
            f"{name} shares its bake id with {', '.join(others)}; press New bake id in one of them and save the script"
        )


def _render(options: argparse.Namespace) -> None:
    write = nuke.toNode(options.then_render)
    if write is None:
        raise BadInput(f"the script has no node {options.then_render} to render")
    for first, last in runs(parse_frames(options.range or nodes.script_range())):
        nuke.execute(write, first, last, 1)


def _line(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _failed(message: str, code: int) -> int:
    sys.stderr.write(f"HDRGEN Error: {message}\n")
    sys.stderr.flush()
    return code
