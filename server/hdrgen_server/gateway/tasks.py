"""Keeps background coroutines alive; a failure that nobody expected is logged, and fatal unless said otherwise.

It owns the set of tasks. It must not know what they do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger(__name__)


class TaskKeeper:
    """Tasks by reference (the loop holds only weak ones); `failed` hears of an exception that nobody expected."""

    def __init__(self, failed: Callable[[BaseException], None]) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failed = failed

    def keep(self, work: Coroutine[Any, Any, Any], *, fatal: bool = True) -> asyncio.Task[Any]:
        """Start a coroutine and keep it until it ends; with `fatal` off its failure ends it alone."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended if fatal else self._ended_alone)
        return task

    async def cancel_all(self) -> None:
        """Cancel what runs and wait for it."""
        tasks = [t for t in self._tasks if t is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    def _ended_alone(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a connection failed", exc_info=error)
