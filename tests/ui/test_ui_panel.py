"""The panel with real events against a scripted gateway: its states, its buttons, and that it never waits."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PySide6.QtTest import QTest
from ui_cases import ERRORS, GPU, HEALTH, PACKS, HealthPanel, rows, until, until_state

from nuke_hdrgen.ui import model, watch
from nuke_hdrgen.ui.qt import QtCore, QtWidgets
from nuke_hdrgen.wire import messages as m
from nuke_hdrgen.wire.errors import PermissionRefused, VersionMismatch
from tests.fakes import fake_gateway
from tests.fakes.fake_gateway import FakeGateway, Side

LEFT = QtCore.Qt.MouseButton.LeftButton
Open = Callable[..., HealthPanel]


def press(button: QtWidgets.QAbstractButton) -> None:
    QTest.mouseClick(button, LEFT)


def clipboard() -> str:
    return QtWidgets.QApplication.clipboard().text()


def serve(*healths: m.Health) -> Callable[[Side], None]:
    """Greets and answers every question with the next health, the last one again; freed memory stays freed."""

    def script(side: Side) -> None:
        side.greet(packs=PACKS)
        left = list(healths)
        while True:
            message = side.receive().message
            side.gateway.seen.append(message)
            health = left.pop(0) if len(left) > 1 else left[0]
            if any(isinstance(seen, m.Free) for seen in side.gateway.seen):
                health = replace(health, workers=(replace(GPU, packs=(), memory_free_mib=24000.0),))
            side.send(health)

    return script


def refuse(error: Exception) -> Callable[[Side], None]:
    def script(side: Side) -> None:
        side.take(m.Hello)
        side.send(m.Error.of(error))

    return script


def test_ready_then_busy_then_ready(open_panel: Open, tmp_path: Path) -> None:
    job = m.JobInfo("hdrfuse", "small", "step", 1, 0, 8, 30)
    working = replace(HEALTH, jobs=(job,))
    seen: list[str] = []
    with FakeGateway(tmp_path / "s", serve(HEALTH, working, working, HEALTH)) as gateway:
        panel = open_panel(gateway.address)
        panel.shown.connect(lambda view: seen.append(view.state))
        until(panel, lambda: seen[-1:] == [model.READY] and model.BUSY in seen)
        assert panel.start_button.isHidden()
        assert panel.free_button.isEnabled()
        assert panel.findChildren(QtWidgets.QProgressBar)
        panel.close()
    assert seen[0] == model.READY


def test_free_gpu_by_mouse(open_panel: Open, tmp_path: Path) -> None:
    with FakeGateway(tmp_path / "s", serve(HEALTH)) as gateway:
        panel = open_panel(gateway.address, every_s=30.0)
        until_state(panel, model.READY)
        press(panel.free_button)
        until(panel, lambda: not panel.view.can_free)
        assert rows(panel.view, "Devices")[0].detail == "holds no pack"
        assert not panel.free_button.isEnabled()
        assert m.Free() in gateway.seen
        panel.close()


def test_everything_is_reached_by_keyboard(open_panel: Open, tmp_path: Path) -> None:
    with FakeGateway(tmp_path / "s", serve(HEALTH)) as gateway:
        panel = open_panel(gateway.address, every_s=30.0)
        until_state(panel, model.READY)
        panel.activateWindow()
        panel.free_button.setFocus()
        reached: list[QtWidgets.QWidget | None] = []
        for _ in range(8):
            reached.append(QtWidgets.QApplication.focusWidget())
            QTest.keyClick(reached[-1] or panel, QtCore.Qt.Key.Key_Tab)
        buttons = [b for b in panel.findChildren(QtWidgets.QAbstractButton) if b.isVisibleTo(panel) and b.isEnabled()]
        assert [widget for widget in reached if widget in buttons][:2] == [panel.free_button, panel.copy_button]
        assert {button for button in buttons if isinstance(button, QtWidgets.QToolButton)} <= set(reached)
        QTest.keyClick(panel.copy_button, QtCore.Qt.Key.Key_Space)
        assert "state: Ready" in clipboard()
        before = len(gateway.hellos)
        QTest.keyClick(panel.copy_button, QtCore.Qt.Key.Key_F5)
        until(panel, lambda: len(gateway.hellos) > before)
        panel.close()


def test_rows_copy_their_command_and_their_line(open_panel: Open, tmp_path: Path) -> None:
    with FakeGateway(tmp_path / "s", serve(HEALTH)) as gateway:
        panel = open_panel(gateway.address, every_s=30.0)
        until_state(panel, model.READY)
        QtWidgets.QApplication.processEvents()  # rows that are new get their place
        copied: list[str] = []
        for button in panel.findChildren(QtWidgets.QToolButton):
            if button.isVisibleTo(panel):
                press(button)
                copied.append(clipboard())
        assert copied == ["hdrgen packs accept large", ERRORS[1].message, ERRORS[0].message]
        panel.close()


@pytest.mark.parametrize(
    ("error", "title"),
    [
        (VersionMismatch("this is wire 1.0, the server's is 2.0; update one"), "Another version"),
        (PermissionRefused("the token is missing or wrong; read it from the endpoint file"), "Not allowed"),
    ],
)
def test_a_refusal_shows_the_sidecars_own_sentence(
    open_panel: Open, tmp_path: Path, error: VersionMismatch | PermissionRefused, title: str
) -> None:
    with FakeGateway(tmp_path / "s", refuse(error)) as gateway:
        panel = open_panel(gateway.address)
        view = until_state(panel, model.REFUSED)
        assert (view.title, view.sentence.lower()) == (title, f"{error.message}.")
        assert panel.start_button.isHidden()
        press(panel.copy_button)
        assert f"code: {error.code}" in clipboard()
        panel.close()


def test_a_sidecar_that_goes_and_comes_back(open_panel: Open, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with FakeGateway(path, serve(HEALTH)) as gateway:
        panel = open_panel(gateway.address)
        until_state(panel, model.READY)
    until_state(panel, model.ABSENT)
    assert panel.start_button.isHidden()  # a named server is never started
    path.unlink()
    with FakeGateway(path, serve(HEALTH)):
        until_state(panel, model.READY)
        panel.close()


def test_the_welcome_is_asked_for_again_so_that_licences_stay_true(open_panel: Open, tmp_path: Path) -> None:
    accepted = tuple(replace(pack, licence_ok=True) for pack in PACKS)

    def later(side: Side) -> None:
        side.greet(packs=accepted)
        while True:
            side.receive()
            side.send(HEALTH)

    with FakeGateway(tmp_path / "s", serve(HEALTH), later) as gateway:
        panel = open_panel(gateway.address, renew=3)
        until_state(panel, model.READY)
        assert [row.copy for row in rows(panel.view, "Packs")] == ["", "hdrgen packs accept large"]
        until(panel, lambda: not any(row.copy for row in rows(panel.view, "Packs")))
        panel.close()


def test_what_is_no_health_is_said(open_panel: Open, tmp_path: Path) -> None:
    def odd(side: Side) -> None:
        side.greet()
        side.receive()
        side.send(m.Cancel("x"))
        side.receive()

    with FakeGateway(tmp_path / "s", odd) as gateway:
        view = until_state(open_panel(gateway.address), model.REFUSED)
        assert "cancel" in view.sentence


def test_a_silent_sidecar_blocks_neither_the_gui_nor_closing(open_panel: Open, tmp_path: Path) -> None:
    asked, release = threading.Event(), threading.Event()

    def silent(side: Side) -> None:
        side.greet(packs=PACKS)
        side.receive()
        asked.set()
        release.wait(20)

    with FakeGateway(tmp_path / "s", silent) as gateway:
        panel = open_panel(gateway.address)
        assert asked.wait(10)
        (live,) = [one for one in watch._LIVE if not one.join(0.0)]
        started = time.monotonic()
        press(panel.copy_button)
        panel.look()
        panel.close()
        assert time.monotonic() - started < 0.5
        assert live.join(5.0)
        release.set()


def test_hidden_it_does_not_look_and_shown_it_does_again(open_panel: Open, tmp_path: Path) -> None:
    with FakeGateway(tmp_path / "s", serve(HEALTH)) as gateway:
        panel = open_panel(gateway.address)
        until_state(panel, model.READY)
        (live,) = [one for one in watch._LIVE if not one.join(0.0)]
        panel.hide()
        assert live.join(5.0)
        asked = len(gateway.seen)
        panel.show()
        until(panel, lambda: len(gateway.seen) > asked)
        panel.close()


def test_deleted_while_it_looks(open_panel: Open, tmp_path: Path, application: QtWidgets.QApplication) -> None:
    """Nuke deletes a pane's widgets without closing them first."""
    with FakeGateway(tmp_path / "s", serve(HEALTH)) as gateway:
        parent = QtWidgets.QWidget()
        panel = HealthPanel(parent, watch.Target("tests", gateway.address, {}, every_s=0.001))
        parent.show()
        until_state(panel, model.READY)
        (live,) = [one for one in watch._LIVE if not one.join(0.0)]
        parent.deleteLater()
        application.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete)
        assert live.join(5.0)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[[], list[int]]]:
    """The processes of stand-in sidecars that a panel started; they end with the test."""

    def pids() -> list[int]:
        path = tmp_path / "hdrgen" / "starts"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    yield pids
    for pid in pids():
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def test_start_by_mouse(open_panel: Open, environment: dict[str, str], started: Callable[[], list[int]]) -> None:
    environment["HDRGEN_SIDECAR"] = f"{sys.executable} {fake_gateway.__file__}"
    panel = open_panel()
    view = until_state(panel, model.ABSENT)
    assert view.sentence.startswith("No sidecar is running;")
    seen: list[str] = []
    panel.shown.connect(lambda view: seen.append(view.state))
    press(panel.start_button)
    assert not panel.start_button.isEnabled()
    until_state(panel, model.READY)
    assert model.STARTING in seen
    assert len(started()) == 1
    panel.close()


def test_a_failed_start_says_why_and_goes_on_saying_it(
    open_panel: Open, environment: dict[str, str], started: Callable[[], list[int]]
) -> None:
    environment["HDRGEN_SIDECAR"] = f"{sys.executable} {fake_gateway.__file__} --fail"
    panel = open_panel()
    until_state(panel, model.ABSENT)
    press(panel.start_button)
    until(panel, lambda: "on fire" in panel.view.sentence)
    seen: list[str] = []
    panel.shown.connect(lambda view: seen.append(view.sentence))
    until(panel, lambda: len(seen) > 2)
    assert all("on fire" in sentence for sentence in seen)
    assert panel.start_button.isEnabled()
    press(panel.start_button)
    until(panel, lambda: len(started()) == 2)


def test_without_a_command_it_says_what_to_install(open_panel: Open) -> None:
    panel = open_panel()
    until_state(panel, model.ABSENT)
    press(panel.start_button)
    until(panel, lambda: "hdrgen doctor --install" in panel.view.sentence)
    assert panel.view.can_start


def test_an_unsafe_runtime_folder_is_refused_by_name(open_panel: Open, tmp_path: Path) -> None:
    (tmp_path / "hdrgen").write_text("")
    view = until_state(open_panel(), model.REFUSED)
    assert str(tmp_path / "hdrgen") in view.sentence


def test_it_fits_a_narrow_dock(open_panel: Open, tmp_path: Path) -> None:
    """Whatever it says, nothing is cut off at the right."""
    long = m.ErrorInfo(1.0, "licence_not_accepted", f"/{'a_long_folder/' * 12}x cannot be written; make it writable")
    workers = (replace(GPU, state="waiting"), replace(GPU, device="cuda:1"))
    job = m.JobInfo("hdrfuse", "a-pack-of-a-rather-long-name", "step", 10, 3, 18, 30)
    full = replace(HEALTH, workers=workers, jobs=(job,), recent_errors=(long,))
    with FakeGateway(tmp_path / "s", serve(full)) as gateway:
        panel = open_panel(gateway.address)
        until_state(panel, model.BUSY)
        panel.resize(240, 600)
        QtWidgets.QApplication.processEvents()
        (scroll,) = panel.findChildren(QtWidgets.QScrollArea)
        wide = [
            (label.text(), label.minimumSizeHint().width())
            for label in panel.findChildren(QtWidgets.QLabel)
            if label.minimumSizeHint().width() > 120
        ]
        assert panel.width() == 240
        assert scroll.widget().minimumSizeHint().width() <= scroll.viewport().width(), wide
        panel.close()


def test_a_system_that_fails_is_said_and_asked_again(
    open_panel: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Descriptors run out, say: the watch goes on, and finds the sidecar when there are some again."""
    tries: list[int] = []
    connect = watch.connect

    def failing(*arguments: object, **named: object) -> object:
        tries.append(1)
        if len(tries) < 3:
            raise OSError(24, "Too many open files")
        return connect(*arguments, **named)

    monkeypatch.setattr(watch, "connect", failing)
    with FakeGateway(tmp_path / "s", serve(HEALTH)) as gateway:
        panel = open_panel(gateway.address)
        assert "Too many open files" in until_state(panel, model.ABSENT).sentence
        until_state(panel, model.READY)
        panel.close()
