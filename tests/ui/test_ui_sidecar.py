"""The panel against a real sidecar: ready, a job that waits, a job that runs, and memory given back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest
from PySide6.QtTest import QTest
from ui_cases import HealthPanel, rows, until, until_state

from nuke_hdrgen.client.address import find_server
from nuke_hdrgen.client.connection import connect
from nuke_hdrgen.client.job import cancel_job, run_job
from nuke_hdrgen.client.launch import PrivateSidecar, Start
from nuke_hdrgen.ui import model
from nuke_hdrgen.ui.qt import QtCore
from nuke_hdrgen.wire import messages as m

SPACE = m.Colourspace("lin_rec709_scene", "lin_rec709_scene")
SHAPE = (16, 24, 3)
BODY = bytes(SHAPE[0] * SHAPE[1] * SHAPE[2] * 2)


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real sidecar on the CPU."""
    folder = str(tmp_path_factory.mktemp("data"))
    command = [sys.executable, "-m", "hdrgen_server.gateway", "--device", "cpu"]
    environment = {"PATH": "/usr/bin:/bin", "HDRGEN_DATA_FOLDER": folder, "XDG_CONFIG_HOME": folder, "HOME": folder}
    with PrivateSidecar(Start(command, environment=environment), "test") as running:
        yield str(running.connection.peer.endpoint.address)


def frame(index: int, ev: float) -> tuple[m.Frame, bytes]:
    return m.Frame("job", index, 1001, "f16", SHAPE, ("R", "G", "B"), SPACE, ev), BODY


def order(frames: int) -> m.Open:
    return m.Open(id="job", operation="hdrfuse", frames=frames, output=SPACE, pack="merge")


def test_packs_devices_and_version_of_a_real_sidecar(open_panel: Callable[..., HealthPanel], sidecar: str) -> None:
    panel = open_panel(sidecar)
    view = until_state(panel, model.READY)
    packs = {row.title: row for row in rows(view, "Packs")}
    assert {"merge", "gmodiff-s"} <= set(packs)
    assert "preview" in packs["gmodiff-s"].mark
    (cpu,) = rows(view, "Devices")
    assert (cpu.title, cpu.mark) == ("cpu", "ready")
    assert cpu.bar is not None
    assert "free" in cpu.bar_text
    panel.copy_report()
    facts = {row.title: row for row in rows(view, "Sidecar")}
    assert facts["Address"].detail == sidecar
    panel.close()


def test_a_job_waits_runs_and_its_memory_is_given_back(open_panel: Callable[..., HealthPanel], sidecar: str) -> None:
    panel = open_panel(sidecar)
    until_state(panel, model.READY)
    with connect(find_server(sidecar, {}), "artist") as link:
        link.send(order(2))
        until_state(panel, model.BUSY)
        (job,) = rows(panel.view, "Queue: 1 of")
        assert (job.title, job.mark, job.detail) == ("hdrfuse with merge", "queued", "next to start")
        link.send(*frame(0, 0.0))
        until(panel, lambda: any(row.mark != "queued" for row in rows(panel.view, "Queue")))
        cancel_job(link, "job")
        until_state(panel, model.READY)
    with connect(find_server(sidecar, {}), "artist") as link:
        assert len(list(run_job(link, order(2), iter([frame(0, 0.0), frame(1, 2.0)])))) == 1
    until(panel, lambda: panel.view.can_free)
    (cpu,) = rows(panel.view, "Devices")
    assert "merge" in cpu.detail
    QTest.mouseClick(panel.free_button, QtCore.Qt.MouseButton.LeftButton)
    until(panel, lambda: not panel.view.can_free)
    assert rows(panel.view, "Devices")[0].detail == "holds no pack"
    panel.close()
