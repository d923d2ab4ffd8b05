"""What tests of training share."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest

from hdrgen_server.training import loop


@pytest.fixture
def same_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the same batches without a second process, which costs seconds to start (test_training_gmodiff has one)."""

    def batches(draw: Callable[[int], Any], first: int) -> Generator[Any]:
        for step in range(first, 10**9):
            yield draw(step)

    monkeypatch.setattr(loop, "_batches", batches)
