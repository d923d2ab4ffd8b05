"""The application of the panel's tests, panels that end with their test, and an environment of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ui_cases import HealthPanel

from nuke_hdrgen.ui import watch
from nuke_hdrgen.ui.qt import QtWidgets
from nuke_hdrgen.ui.watch import Target


@pytest.fixture(scope="session")
def application() -> QtWidgets.QApplication:
    found = QtWidgets.QApplication.instance()
    return found if isinstance(found, QtWidgets.QApplication) else QtWidgets.QApplication(["tests"])


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """This process's environment, but its sidecars live below tmp_path and none is named or installed."""
    changed = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    for name in ("HDRGEN_SERVER", "HDRGEN_SIDECAR"):
        changed.pop(name, None)
    return changed


@pytest.fixture
def open_panel(
    application: QtWidgets.QApplication, environment: dict[str, str]
) -> Iterator[Callable[..., HealthPanel]]:
    """Opens a panel on a quick target; every thread of every panel has ended after the test."""
    panels: list[HealthPanel] = []
    application.clipboard().clear()

    def opened(server: str | None = None, **changes: object) -> HealthPanel:
        target = Target("tests", server, environment, every_s=0.02, absent_s=0.1)
        panel = HealthPanel(target=replace(target, **changes))
        panels.append(panel)
        panel.show()
        return panel

    yield opened
    live = list(watch._LIVE)
    for panel in panels:
        panel.close()
        panel.deleteLater()
    for one in live:
        assert one.join(15.0), "a thread of the panel goes on after it was closed"
