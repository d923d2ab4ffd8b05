"""The one Qt binding of this process: PySide6, else PySide2, as Nuke brings it.

It owns the choice of binding and the few names that the two spell differently. It must not know widgets or sidecars.
Importing it raises ImportError where there is neither.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from PySide6 import QtCore, QtGui, QtWidgets
elif "PySide2" in sys.modules and "PySide6" not in sys.modules:
    # A host that has loaded PySide2 runs on Qt 5; a second Qt in one process ends it.
    from PySide2 import QtCore, QtGui, QtWidgets
else:
    try:
        from PySide6 import QtCore, QtGui, QtWidgets
    except ImportError:
        from PySide2 import QtCore, QtGui, QtWidgets

__all__ = ["BINDING", "QtCore", "QtGui", "QtWidgets", "run", "shortcut"]

BINDING: str = QtCore.__name__.split(".", maxsplit=1)[0]


def run(application: QtWidgets.QApplication) -> int:
    """Run the event loop until it ends; its exit status. PySide2 calls it `exec_`."""
    loop: Callable[[], int] = getattr(application, "exec", None) or getattr(application, "exec_")  # noqa: B009
    return loop()


def shortcut(keys: str, widget: QtWidgets.QWidget, then: Callable[[], Any]) -> None:
    """Do `then` on these keys while the focus is in `widget`. QShortcut moved from QtWidgets to QtGui in Qt 6."""
    kind: Any = getattr(QtGui, "QShortcut", None) or getattr(QtWidgets, "QShortcut")  # noqa: B009
    made = kind(QtGui.QKeySequence(keys), widget)
    made.setContext(QtCore.Qt.ShortcutContext.WidgetWithChildrenShortcut)
    made.activated.connect(then)
