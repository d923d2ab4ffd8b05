"""The packs that a worker holds loaded: loaded on demand, dropped when memory is short or when idle.

It owns the loaded operators and when each was last used. It must not know messages or slots. Systems are found by
name (`hdrgen_server.systems.<system>.operator.create`), so that nothing here imports a model.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from hdrgen_server.contracts.operator import Operator
from hdrgen_server.packs.manifest import Pack
from hdrgen_server.worker.memory import MemoryState, free_caches

Create = Callable[[Pack, str], Operator]


@dataclass
class _Loaded:
    operator: Operator
    used_at: float
    users: int = 0


def create_operator(pack: Pack, device: str) -> Operator:
    """Import the pack's system and build its operator on the device."""
    module = importlib.import_module(f"hdrgen_server.systems.{pack.system}.operator")
    operator: Operator = module.create(pack, device)
    return operator


class Shelf:
    """Loaded packs by (name, digest). Packs in use are never dropped."""

    def __init__(
        self,
        device: str,
        now: Callable[[], float],
        memory: Callable[[], MemoryState],
        create: Create = create_operator,
        free: Callable[[], None] = free_caches,
    ) -> None:
        self._device, self._now, self._memory, self._create, self._free = device, now, memory, create, free
        self._loaded: dict[tuple[str, str], _Loaded] = {}
        self._lock = threading.RLock()

    @property
    def names(self) -> list[str]:
        """Names of the loaded packs, the least recently used first.

        Without the lock, which is held while a pack loads: a worker's beat asks, and must not fall silent for that.
        """
        return [name for (name, _), _ in sorted(self._loaded.items(), key=lambda i: i[1].used_at)]

    def holds(self, pack: Pack) -> bool:
        """Whether the pack is loaded."""
        return (pack.name, pack.digest) in self._loaded

    @contextmanager
    def operator(self, pack: Pack) -> Generator[Operator]:
        """The pack's operator, loaded if need be, kept for the length of the block."""
        key = (pack.name, pack.digest)
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = _Loaded(self._create(pack, self._device), self._now())
            loaded = self._loaded[key]
            loaded.users += 1
        try:
            yield loaded.operator
        finally:
            with self._lock:
                loaded.users -= 1
                loaded.used_at = self._now()

    def make_room(self, needed_mib: float, keep: Pack) -> MemoryState:
        """Drop least recently used packs until this much is free or none is left; the memory then."""
        state = self._memory()
        for key in self._droppable(keep):
            if state.free_mib >= needed_mib:
                break
            self._drop(key)
            state = self._memory()
        return state

    def drop_idle(self, idle_s: float) -> int:
        """Drop every pack unused for this long; how many. Drops none while a pack loads: the beat that asks goes on."""
        if not self._lock.acquire(blocking=False):
            return 0
        try:
            before = self._now() - idle_s
            keys = [key for key in self._droppable() if self._loaded[key].used_at <= before]
            for key in keys:
                self._drop(key)
        finally:
            self._lock.release()
        return len(keys)

    def drop(self, name: str = "") -> int:
        """Drop this pack, or all, unless in use; how many."""
        keys = [key for key in self._droppable() if not name or key[0] == name]
        for key in keys:
            self._drop(key)
        return len(keys)

    def _droppable(self, keep: Pack | None = None) -> list[tuple[str, str]]:
        with self._lock:
            items = sorted(self._loaded.items(), key=lambda i: i[1].used_at)
        kept = (keep.name, keep.digest) if keep else None
        return [key for key, loaded in items if loaded.users == 0 and key != kept]

    def _drop(self, key: tuple[str, str]) -> None:
        with self._lock:
            self._loaded.pop(key, None)
        self._free()
