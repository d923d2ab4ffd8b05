"""The panel: what the sidecar is, does and needs, and the buttons that change it.

It owns the layout and when the sidecar is looked at: while the panel can be seen, never otherwise. It must not know
the protocol, sockets or threads.
"""

from __future__ import annotations

import os
import platform
import sys
from typing import Callable, Dict, List, Mapping, Optional

from nuke_hdrgen.ui import model
from nuke_hdrgen.ui.poll import Poller
from nuke_hdrgen.ui.qt import BINDING, QtCore, QtGui, QtWidgets, shortcut
from nuke_hdrgen.ui.rows import SectionWidget, breakable, text_label
from nuke_hdrgen.ui.watch import FREE, LOOK, START, Target

ICONS: Mapping[str, str] = {
    model.LOOKING: "SP_BrowserReload",
    model.ABSENT: "SP_MessageBoxInformation",
    model.STARTING: "SP_BrowserReload",
    model.REFUSED: "SP_MessageBoxCritical",
    model.WAITING: "SP_MessageBoxWarning",
    model.READY: "SP_DialogApplyButton",
    model.BUSY: "SP_BrowserReload",
}
_ICON_PIXELS = 24
_SAID_MS = 5000


class HealthPanel(QtWidgets.QWidget):
    """Made without arguments by Nuke; `target` names another sidecar or pace. `shown` follows every change."""

    shown = QtCore.Signal(object)

    def __init__(self, parent: Optional[QtWidgets.QWidget] = None, target: Optional[Target] = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("HDRGen")
        self.setObjectName("hdrgen-panel")
        self.view = model.view(model.Seen())
        self._seen = model.Seen()
        self._build()
        self._poller = Poller(target or Target(f"nuke-{os.getpid()}"), self)
        self._poller.seen.connect(self._show_seen)
        shortcut("F5", self, self.look)
        self._show_view()

    def sizeHint(self) -> QtCore.QSize:  # noqa: N802  # Qt's name
        """Wide enough for one line of most rows."""
        return QtCore.QSize(360, 560)

    def showEvent(self, event: QtGui.QShowEvent) -> None:  # noqa: N802  # Qt's name
        """Look while it can be seen."""
        super().showEvent(event)
        self._poller.start()

    def hideEvent(self, event: QtGui.QHideEvent) -> None:  # noqa: N802  # Qt's name
        """Look no more: closed, behind another tab, or minimised."""
        super().hideEvent(event)
        self._poller.stop()

    def look(self) -> None:
        """Look now."""
        self._poller.wish(LOOK)

    def start_sidecar(self) -> None:
        """Start a sidecar, or find one that has come up meanwhile."""
        self.start_button.setEnabled(False)
        self._say("")
        self._poller.wish(START)

    def free_memory(self) -> None:
        """Have every idle pack leave its device."""
        self.free_button.setEnabled(False)
        self._say("Asked the sidecar to free its memory; packs in use stay.")
        self._poller.wish(FREE)

    def copy_report(self) -> None:
        """Put the report on the clipboard."""
        self._copy_text(model.report(self._seen, host_facts()))
        self._say("The report is on the clipboard.")

    def _build(self) -> None:
        self._icon = QtWidgets.QLabel()
        self._icon.setFixedSize(_ICON_PIXELS, _ICON_PIXELS)
        self._title, self._sentence, self._said = text_label(bold=True), text_label(), text_label()
        self.start_button = self._button("&Start sidecar", "Start the sidecar on this machine.", self.start_sidecar)
        self.free_button = self._button(
            "&Free GPU",
            "Unload idle packs, so that Nuke has the memory; the next bake loads them again.",
            self.free_memory,
        )
        self.copy_button = self._button("&Copy report", "Copy all of this as one text, for support.", self.copy_report)
        self.sections: List[SectionWidget] = []
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 8)
        head = QtWidgets.QHBoxLayout()
        head.addWidget(self._icon)
        head.addWidget(self._title, 1)
        layout.addLayout(head)
        layout.addWidget(self._sentence)
        buttons = QtWidgets.QHBoxLayout()
        for button in (self.start_button, self.free_button, self.copy_button):
            buttons.addWidget(button)
        layout.addLayout(buttons)
        layout.addWidget(self._said)
        self._said.hide()
        self._unsay = QtCore.QTimer(self)
        self._unsay.setSingleShot(True)
        self._unsay.timeout.connect(self._said.hide)
        inside = QtWidgets.QWidget()
        self._rows = QtWidgets.QVBoxLayout(inside)
        self._rows.setContentsMargins(0, 0, 8, 0)  # clear of the scroll bar
        self._rows.addStretch(1)
        scroll = QtWidgets.QScrollArea()
        scroll.setWidget(inside)
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QtWidgets.QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(QtCore.Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        layout.addWidget(scroll, 1)

    def _button(self, text: str, tip: str, then: Callable[[], None]) -> QtWidgets.QPushButton:
        button = QtWidgets.QPushButton(text)
        button.setToolTip(tip)
        button.setAccessibleDescription(tip)
        button.clicked.connect(then)
        return button

    def _show_seen(self, seen: model.Seen) -> None:
        self._seen = seen
        self.view = model.view(seen)
        self._show_view()
        self.shown.emit(self.view)

    def _show_view(self) -> None:
        view = self.view
        pixmap = getattr(QtWidgets.QStyle.StandardPixmap, ICONS[view.state])
        self._icon.setPixmap(self.style().standardIcon(pixmap).pixmap(_ICON_PIXELS, _ICON_PIXELS))
        self._title.setText(view.title)
        self._sentence.setText(breakable(view.sentence))
        self._sentence.setVisible(bool(view.sentence))
        self.start_button.setVisible(view.can_start or view.state == model.STARTING)
        self.start_button.setEnabled(view.can_start)
        self.free_button.setVisible(bool(view.sections))
        self.free_button.setEnabled(view.can_free)
        while len(self.sections) < len(view.sections):
            widget = SectionWidget(self._copy_row)
            self.sections.append(widget)
            self._rows.insertWidget(len(self.sections) - 1, widget)
        for widget, section in zip(self.sections, view.sections):
            widget.show_section(section)
            widget.show()
        for widget in self.sections[len(view.sections) :]:
            widget.hide()

    def _copy_row(self, text: str) -> None:
        self._copy_text(text)
        self._say("Copied.")

    def _copy_text(self, text: str) -> None:
        QtWidgets.QApplication.clipboard().setText(text)

    def _say(self, text: str) -> None:
        """One line under the buttons about what was just done, for a while."""
        self._said.setText(text)
        self._said.setVisible(bool(text))
        self._unsay.start(_SAID_MS)


def host_facts() -> Dict[str, str]:
    """What runs the panel, for the report."""
    nuke = getattr(sys.modules.get("nuke"), "NUKE_VERSION_STRING", "")
    return {
        "Nuke": str(nuke),
        "Python": platform.python_version(),
        "Qt": f"{QtCore.qVersion()}, {BINDING}",
        "system": platform.platform(),
    }
