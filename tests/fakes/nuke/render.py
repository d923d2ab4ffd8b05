"""nuke.execute: one Write, frame by frame and view by view, with the callbacks in Nuke's order.

It owns what may execute and what runs around a frame. It must not know how pixels come about (`pixels`) nor are written
(`exr_files`).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fakes.nuke.errors import NukeError

if TYPE_CHECKING:
    from tests.fakes.nuke.nodes import Node
    from tests.fakes.nuke.running import Running

EVENTS = ("beforeRender", "beforeFrameRender", "afterFrameRender", "afterRender")


def execute(nuke: Running, node: Node, frames: range, views: list[str], *, continue_on_error: bool = False) -> None:
    """Write frames. Raises RuntimeError as Nuke does; NukeError for what it does not know."""
    nuke._main.check("nuke.execute")
    if nuke._executing is not None or nuke._hooks:
        raise RuntimeError("I'm already executing something else")
    may_execute(nuke, node)
    if unknown := [view for view in views if view not in nuke._views()]:
        raise RuntimeError(f"{node._path()}: no view {unknown[0]!r}")
    nuke._executing = (frames[0], views[0])
    start = time.perf_counter()
    failed: RuntimeError | None = None
    try:
        around(nuke, node, "beforeRender")
        for frame in frames:
            one_file_a_view(nuke, node, frame, views)
            for view in views:
                nuke._executing = (frame, view)
                try:
                    _one(nuke, node, frame, view)
                except RuntimeError as error:
                    if not continue_on_error or str(error) == "Cancelled":
                        raise
                    failed = error
        around(nuke, node, "afterRender")
    finally:
        nuke._executing = None
        nuke._main.execute_seconds += time.perf_counter() - start
    if failed is not None:
        raise failed


def may_execute(nuke: Running, node: Node) -> None:
    """Raise RuntimeError where this node cannot execute here."""
    if node._kind != "Write":
        raise NukeError(f"{node._path()} is a {node._kind}: this Nuke executes Writes")
    if nuke.env["assist"]:
        raise RuntimeError(f"{node._path()}: Write is not available in Nuke Assist")
    if nuke.env["nc"]:
        raise RuntimeError(f"{node._path()}: this format cannot be written in the non-commercial edition")
    if node["disable"].value():
        raise RuntimeError(f"{node._path()} is disabled")
    if node.input(0) is None:
        raise RuntimeError(f"{node._path()}: no input")


def one_file_a_view(nuke: Running, node: Node, frame: int, views: list[str]) -> None:
    """Raise NukeError where several views would share a file: Nuke writes them all into it, this one does not."""
    names: set[str] = set()
    for view in views:
        nuke._executing = (frame, view)
        names.add(node["file"].evaluate(frame))
    nuke._executing = (frame, views[0])
    if len(names) < len(views):
        raise NukeError(f"{node._path()}: this Nuke writes no file of several views; use %V")


def around(nuke: Running, node: Node, event: str) -> None:
    """Run the callbacks of an event: the registered ones, then the Write's own knob."""
    with nuke._as_this(node, None):
        for call, args, kwargs, node_class in list(nuke._callbacks[event]):
            if node_class in {"*", node._kind}:
                call(*args, **kwargs)
        script = node._knobs[event]._state
        if script:
            nuke._run(script, f"{node._path()}.{event}")


def _one(nuke: Running, node: Node, frame: int, view: str) -> None:
    around(nuke, node, "beforeFrameRender")
    if nuke.cancel_when(node, frame):
        raise RuntimeError("Cancelled")
    path = Path(target(node, frame))
    nuke.before_frame(node, frame, view, path)
    started = time.perf_counter()
    nuke.write_frame(node, frame, path)
    nuke.executed.append((node._path(), frame, view))
    nuke._say(f"Writing {path} took {time.perf_counter() - started:.2f} seconds")
    around(nuke, node, "afterFrameRender")


def target(node: Node, frame: int) -> str:
    """The file of a frame. Raises RuntimeError without a name or a folder for it."""
    text = node["file"].evaluate(frame)
    if not text:
        raise RuntimeError(f"{node._path()}: no output file specified")
    if node["proxy"].value():
        raise NukeError(f"{node._path()}: this Nuke has no proxy files")
    if not text.endswith(".exr") or node["file_type"].value() not in {"", "exr"}:
        raise NukeError(f"{node._path()}: this Nuke writes EXRs, not {text!r}")
    folder = Path(text).parent
    if not folder.is_dir():
        if not node["create_directories"].value():
            raise RuntimeError(f"{node._path()}: {text}: can't open file: No such file or directory")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RuntimeError(f"{node._path()}: can't create {folder}: {error.strerror}") from None
    return text
