"""A progress for tests of operators."""

from __future__ import annotations

from nuke_hdrgen.wire.errors import Cancelled


class Steps:
    """A progress that remembers, and cancels at a step."""

    def __init__(self, cancel_at: int | None = None) -> None:
        self.seen: list[tuple[int, int]] = []
        self.cancel_at = cancel_at

    def step(self, done: int, total: int, frame: int = 0) -> None:
        self.seen.append((done, total))
        if done == self.cancel_at:
            raise Cancelled("the user cancelled")
