"""What a sidecar may say, for the panel's tests, and waiting for the panel without sleeping."""

from __future__ import annotations

import os
from collections.abc import Callable

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from nuke_hdrgen.ui.model import Row, View
from nuke_hdrgen.ui.panel import HealthPanel
from nuke_hdrgen.ui.qt import QtCore
from nuke_hdrgen.wire import messages as m

ADDRESS = "unix:/run/user/1000/hdrgen/socket"
PACKS = (
    m.PackInfo("small", "gmodiff", "d" * 64, 1, ("hdrfuse",), True, "Apache-2.0", True),
    m.PackInfo("large", "gmodiff", "e" * 64, 1, ("hdrfuse",), False, "OpenRAIL++-M", False),
)
GPU = m.WorkerInfo("cuda:0", "ready", ("small",), 18432.0, 24576.0)
ERRORS = (
    m.ErrorInfo(4000.0, "out_of_memory", "small ran out of memory; use a smaller frame or a smaller pack"),
    m.ErrorInfo(130.0, "brand_new", "/cache/show cannot be read; mount it"),
)
WELCOME = m.Welcome("0.1.0", 4711, {}, m.QueueInfo(0, 64), PACKS, (GPU,), settings="s1")
HEALTH = m.Health(
    True, True, {"small": True, "large": False}, 753.0, m.QueueInfo(0, 64), 2, (GPU,), ERRORS, {"results": 3.0}
)


def until(panel: HealthPanel, condition: Callable[[], bool], seconds: float = 15.0) -> None:
    """Run the event loop until the panel has shown something for which the condition holds."""
    if condition():
        return
    loop = QtCore.QEventLoop()
    deadline = QtCore.QTimer()
    deadline.setSingleShot(True)
    deadline.timeout.connect(loop.quit)

    def look(_: View) -> None:
        if condition():
            loop.quit()

    panel.shown.connect(look)
    deadline.start(int(seconds * 1000))
    loop.exec()
    panel.shown.disconnect(look)
    assert condition(), f"not within {seconds} s; the panel shows {panel.view}"


def until_state(panel: HealthPanel, *states: str) -> View:
    until(panel, lambda: panel.view.state in states)
    return panel.view


def rows(view: View, title: str) -> tuple[Row, ...]:
    """The rows of the section whose heading begins so."""
    (section,) = (section for section in view.sections if section.title.startswith(title))
    return section.rows
