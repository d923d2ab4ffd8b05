"""Sections and rows as small widgets that fit a narrow dock: they take the palette as it is and change in place.

It owns how a `model.Section` looks. It must not know where its rows come from or what a sidecar is.
"""

from __future__ import annotations

from typing import Callable, List

from nuke_hdrgen.ui.model import Row, Section
from nuke_hdrgen.ui.qt import QtCore, QtGui, QtWidgets

Copy = Callable[[str], None]

BAR_STEPS = 1000
_BAR_PIXELS, _INDENT_PIXELS = 8, 10
_BREAKS = ("/", "_", ":")
_ZERO_WIDTH_SPACE = "\u200b"


def text_label(bold: bool = False, wrap: bool = True) -> QtWidgets.QLabel:
    """A label that shows its text as it is, never as markup, and gives way in a narrow dock."""
    label = QtWidgets.QLabel()
    label.setTextFormat(QtCore.Qt.TextFormat.PlainText)
    label.setWordWrap(wrap)
    if wrap:
        label.setMinimumWidth(0)
    if bold:
        font = QtGui.QFont(label.font())
        font.setBold(True)
        label.setFont(font)
    return label


def breakable(text: str) -> str:
    """The text with places to wrap inside paths and names, which have no spaces."""
    for character in _BREAKS:
        text = text.replace(character, character + _ZERO_WIDTH_SPACE)
    return text


class RowWidget(QtWidgets.QWidget):
    """One row: title and mark, a bar, lines of text, and a button that copies."""

    def __init__(self, copy: Copy) -> None:
        super().__init__()
        self.row = Row("")
        self._title, self._mark = text_label(), text_label(wrap=False)
        self._bar = QtWidgets.QProgressBar()
        self._bar.setRange(0, BAR_STEPS)
        self._bar.setTextVisible(False)  # below it instead: on it, text is cut in a narrow dock and loses contrast
        self._bar.setFixedHeight(_BAR_PIXELS)
        self._bar_text, self._detail, self._note = text_label(), text_label(), text_label()
        self.copy_button = QtWidgets.QToolButton()
        self.copy_button.setText("Copy")
        self.copy_button.setFocusPolicy(QtCore.Qt.FocusPolicy.StrongFocus)
        self.copy_button.clicked.connect(lambda: copy(self.row.copy))
        top = QtWidgets.QHBoxLayout()
        top.setContentsMargins(0, 0, 0, 0)
        top.addWidget(self._title, 1)
        top.addWidget(self._mark)
        top.addWidget(self.copy_button)
        below = QtWidgets.QVBoxLayout()
        below.setContentsMargins(_INDENT_PIXELS, 0, 0, 0)
        below.setSpacing(2)
        for widget in (self._bar, self._bar_text, self._detail, self._note):
            below.addWidget(widget)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 3, 0, 3)
        layout.setSpacing(2)
        layout.addLayout(top)
        layout.addLayout(below)

    def show_row(self, row: Row) -> None:
        """Show another row; nothing is touched that stays the same."""
        self.row = row
        for label, text in (
            (self._title, row.title),
            (self._mark, row.mark),
            (self._bar_text, row.bar_text),
            (self._detail, row.detail),
            (self._note, row.note),
        ):
            label.setText(breakable(text))
            label.setVisible(bool(text))
        self._bar.setVisible(row.bar is not None)
        self._bar.setValue(round((row.bar or 0.0) * BAR_STEPS))
        self.copy_button.setVisible(bool(row.copy))
        self.copy_button.setToolTip("Copy the command." if row.copy != row.detail else "Copy the line.")
        said = [part for part in (row.title, row.mark, row.bar_text, row.detail, row.note) if part]
        self.setAccessibleName(", ".join(said))
        self.copy_button.setAccessibleName(f"Copy for {row.title}")


class SectionWidget(QtWidgets.QWidget):
    """A heading over rows, or over one line that says there are none."""

    def __init__(self, copy: Copy) -> None:
        super().__init__()
        self.rows: List[RowWidget] = []
        self._copy = copy
        self._shown: object = None
        self._heading, self._empty = text_label(bold=True), text_label()
        line = QtWidgets.QFrame()
        line.setFrameShape(QtWidgets.QFrame.Shape.HLine)
        line.setFrameShadow(QtWidgets.QFrame.Shadow.Sunken)
        self._layout = QtWidgets.QVBoxLayout(self)
        self._layout.setContentsMargins(0, 4, 0, 4)
        self._layout.setSpacing(2)
        for widget in (self._heading, line, self._empty):
            self._layout.addWidget(widget)

    def show_section(self, section: Section) -> None:
        """Show another section's rows; row widgets are kept, so that the focus stays where it is."""
        if section == self._shown:
            return
        self._shown = section
        self._heading.setText(section.title)
        self._empty.setText(section.empty)
        self._empty.setVisible(not section.rows and bool(section.empty))
        while len(self.rows) < len(section.rows):
            widget = RowWidget(self._copy)
            self.rows.append(widget)
            self._layout.addWidget(widget)
        for widget, row in zip(self.rows, section.rows):
            widget.show_row(row)
            widget.show()
        for widget in self.rows[len(section.rows) :]:
            widget.hide()
