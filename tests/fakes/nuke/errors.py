"""The fake's own error, for what it does not know. It must not know what raises it."""

from __future__ import annotations

REFUSED: list[NukeError] = []


class NukeError(BaseException):
    """This Nuke does not know that; a real one might, so that no `except Exception` may catch it.

    Every one is also kept in `REFUSED`, because one raised in a worker thread reaches no test by itself.
    """

    def __init__(self, line: str) -> None:
        super().__init__(line)
        REFUSED.append(self)
