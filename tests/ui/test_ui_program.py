"""`python -m nuke_hdrgen.ui` and the dock, as programs: without Qt, at the interpreter's exit, and inside Nuke."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from ui_cases import HealthPanel

from nuke_hdrgen.ui import __main__ as program
from nuke_hdrgen.ui import dock, panel
from nuke_hdrgen.ui.qt import BINDING, QtCore, QtWidgets
from tests.fakes.fake_gateway import FakeGateway

ROOT = Path(__file__).parents[2]
LEAVE = """
import sys
from nuke_hdrgen.ui import model
from nuke_hdrgen.ui.panel import HealthPanel
from nuke_hdrgen.ui.qt import QtCore, QtWidgets
from nuke_hdrgen.ui.watch import Target
application = QtWidgets.QApplication(["leave"])
panel = HealthPanel(target=Target("leave", {server!r}, {{}}, every_s=0.001))
panel.shown.connect(lambda view: application.quit() if view.state == {state!r} else None)
QtCore.QTimer.singleShot(20000, lambda: application.exit(9))
panel.show()
status = application.exec()
sys.exit(status)  # the panel is still shown and its thread still looks
"""


def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "PYTHONPATH": str(ROOT), **changes}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False, env=environment
    )


def test_without_qt_one_line_says_so() -> None:
    done = run("-S", "-m", "nuke_hdrgen.ui")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", program.MISSING_QT)


def test_help_needs_no_qt() -> None:
    done = run("-S", "-m", "nuke_hdrgen.ui", "--help")
    assert done.returncode == 0
    assert "--server" in done.stdout


def test_the_window_opens_and_ends(
    application: QtWidgets.QApplication, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The program's own main, with the application that the tests have already."""
    windows: list[HealthPanel] = []

    def loop(_: QtWidgets.QApplication) -> int:
        windows.extend(w for w in application.topLevelWidgets() if isinstance(w, HealthPanel) and w.isVisible())
        windows[0].close()
        return 0

    monkeypatch.setattr("nuke_hdrgen.ui.qt.QtWidgets.QApplication", lambda _: application)
    monkeypatch.setattr("nuke_hdrgen.ui.qt.run", loop)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert program.main(["--server", str(tmp_path / "nobody")]) == 0
    assert windows[0].windowTitle() == "HDRGen"


@pytest.mark.parametrize("state", ["ready", "absent"])
def test_the_interpreter_leaves_cleanly_while_it_looks(tmp_path: Path, state: str) -> None:
    with FakeGateway(tmp_path / "s") as gateway:
        server = gateway.address if state == "ready" else f"unix:{tmp_path}/nobody"
        done = run("-c", LEAVE.format(server=server, state=state))
    assert (done.returncode, done.stdout) == (0, "")
    assert [line for line in done.stderr.splitlines() if "propagateSizeHints" not in line] == []


def test_nuke_makes_the_panel_by_a_text_that_it_evaluates(monkeypatch: pytest.MonkeyPatch) -> None:
    """registerWidgetAsPanel puts the text into `WidgetKnob(<text>)`, evaluated where nothing of ours is imported."""
    registered: list[tuple[str, str, str]] = []
    panels = ModuleType("nukescripts.panels")
    panels.registerWidgetAsPanel = lambda *arguments: registered.append(arguments)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nukescripts", ModuleType("nukescripts"))
    monkeypatch.setitem(sys.modules, "nukescripts.panels", panels)
    dock.register()
    ((expression, name, identity),) = registered
    assert (name, identity) == ("HDRGen", "nuke_hdrgen.panel")
    assert eval(expression, {}) is panel.HealthPanel


def test_outside_nuke_there_is_nothing_to_dock_in() -> None:
    with pytest.raises(ImportError):
        dock.register()


def test_the_report_names_what_runs_the_panel(monkeypatch: pytest.MonkeyPatch) -> None:
    assert panel.host_facts()["Nuke"] == ""
    nuke = ModuleType("nuke")
    nuke.NUKE_VERSION_STRING = "16.0v4"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nuke", nuke)
    facts = panel.host_facts()
    assert facts["Nuke"] == "16.0v4"
    assert facts["Qt"] == f"{QtCore.qVersion()}, {BINDING}"
