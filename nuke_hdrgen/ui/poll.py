"""Brings what the watch sees into the GUI's thread, as a Qt signal.

It owns the watch's life: one while it is wanted, none after. It must not know widgets, the protocol or sockets.
"""

from __future__ import annotations

from typing import List, Optional

from nuke_hdrgen.ui.model import Seen
from nuke_hdrgen.ui.qt import QtCore
from nuke_hdrgen.ui.watch import Target, Watch


class Poller(QtCore.QObject):
    """Emits `seen` with a `model.Seen` for every look. All of it is for the GUI's thread, and nothing of it blocks."""

    seen = QtCore.Signal(object)

    def __init__(self, target: Target, parent: Optional[QtCore.QObject] = None) -> None:
        super().__init__(parent)
        self._target = target
        self._watches: List[Watch] = []
        watches = self._watches  # the slot must not hold the object that it outlives
        self.destroyed.connect(lambda *_: _stop(watches))

    def start(self) -> None:
        """Look until `stop`; once started, it goes on."""
        if not self._watches:
            watch = Watch(self._target, self._emit)
            self._watches.append(watch)
            watch.start()

    def stop(self) -> None:
        """Look no more. The thread ends by itself soon after."""
        _stop(self._watches)

    def wish(self, what: str) -> None:
        """Do one of the watch's START, FREE or LOOK now, if it is started."""
        for watch in self._watches:
            watch.wish(what)

    def _emit(self, seen: Seen) -> None:
        """In the watch's thread; Qt queues the signal for ours."""
        try:
            self.seen.emit(seen)
        except RuntimeError:  # Qt's part of this object is gone: the panel was deleted
            _stop(self._watches)


def _stop(watches: List[Watch]) -> None:
    while watches:
        watches.pop().stop()
