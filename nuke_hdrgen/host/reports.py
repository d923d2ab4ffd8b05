"""How a bake is followed: Nuke's own progress window, or plain lines of a terminal.

It owns the words of progress. It must not know how a bake works.
"""

from __future__ import annotations

import os
import time
from typing import Callable, Mapping, Optional

import nuke

from nuke_hdrgen.host.orders import Piece
from nuke_hdrgen.wire.messages import Progress

OPENJD_VARIABLE = "OPENJD_SESSION_WORKING_DIR"  # set for every action: Open Job Description, "How Jobs Are Run"
WORDS = {
    "queued": "waiting for the sidecar",
    "loading": "loading the model",
    "compiling": "preparing the model",
    "step": "computing",
    "encoding": "storing",
}


class WindowReport:
    """Nuke's progress window. The bake's coordinating thread alone touches it, when it asks for cancel."""

    def __init__(
        self, name: str, estimate_s: Optional[float], on_ready: Callable[[str], object] = lambda pattern: None
    ) -> None:
        self._on_ready = on_ready
        self._task: Optional[nuke.ProgressTask] = None
        self._name, self._estimate_s = name, estimate_s
        self._pieces, self._done, self._share = 1, 0, 0.0
        self._line = ""

    def begin(self, pieces: int, pack: str, device: str) -> None:
        """Open the window."""
        self._pieces = pieces
        self._task = nuke.ProgressTask(f"{self._name}: {pack}")
        about = "" if self._estimate_s is None else f", about {duration(self._estimate_s)} on {device}"
        self._line = f"{frames_text(pieces)}{about}"

    def step(self, piece: Piece, progress: Progress) -> None:
        """Remember what is to be shown."""
        self._share = progress.done / progress.total if progress.phase == "step" and progress.total else 0.0
        self._line = f"{self._done + 1} of {self._pieces}: frame {piece.task.frame}, {_words(progress)}"

    def ready(self, piece: Piece, pattern: str, done: int, sent: bool) -> None:
        """Remember that one more is there, and say of which sequence."""
        self._done, self._share = done, 0.0
        self._on_ready(pattern)

    def cancelled(self) -> bool:
        """Show what was remembered, and ask."""
        if self._task is None:
            return False
        self._task.setProgress(min(100, int(100 * (self._done + self._share) / self._pieces)))
        self._task.setMessage(self._line)
        return self._task.isCancelled()

    def end(self) -> None:
        """Close the window: Nuke does when the task is gone."""
        self._task = None


class LineReport:
    """Plain lines: one a second at most for steps, and one for every frame.

    In a session of Open Job Description also the lines by which its managers know a task's progress and status.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._write, self._clock = write, clock
        self._pieces, self._said = 1, float("-inf")
        self._in_openjd = OPENJD_VARIABLE in environment

    def begin(self, pieces: int, pack: str, device: str) -> None:
        """Say what will be done."""
        self._pieces = pieces
        self._write(f"HDRGEN {frames_text(pieces)} with {pack} on {device}")

    def step(self, piece: Piece, progress: Progress) -> None:
        """Say what the sidecar does."""
        now = self._clock()
        if now - self._said >= 1.0:
            self._said = now
            self._write(f"HDRGEN frame {piece.task.frame} {_words(progress)}")
            if self._in_openjd:
                self._write(f"openjd_status: frame {piece.task.frame} {_words(progress)}")

    def ready(self, piece: Piece, pattern: str, done: int, sent: bool) -> None:
        """Say that a frame is there."""
        self._write(f"HDRGEN frame {piece.task.frame} {'baked' if sent else 'was there'} ({done}/{self._pieces})")
        if self._in_openjd:
            self._write(f"openjd_progress: {100 * done / self._pieces:.1f}")

    def cancelled(self) -> bool:
        """Nobody can cancel here but by a signal."""
        return False

    def end(self) -> None:
        """Nothing is left to say."""


def duration(seconds: float) -> str:
    """A time as people say it: `12 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def frames_text(count: int) -> str:
    """A number of frames in words."""
    return "1 frame" if count == 1 else f"{count} frames"


def _words(progress: Progress) -> str:
    if progress.phase == "step" and progress.total:
        return f"step {progress.done}/{progress.total}"
    if progress.phase == "queued" and progress.position:
        return f"waiting behind {progress.position}"
    return WORDS[progress.phase]
