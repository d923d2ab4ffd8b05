"""A pool of reused memory-mapped files that hold the bodies of frames and results between sockets and workers.

It owns the files, their sizes, who holds one, and the folder's life. It must not know sockets, messages or jobs.
A fresh mapping costs more than the copy into it (page faults: a new memfd per frame took 3 to 6 times a reused one,
measured), so slots are allocated in full once and used again. `posix_fallocate` turns a full file system into an error
here instead of a SIGBUS in whoever writes.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from nuke_hdrgen.wire.errors import StorageError

GRAIN = 1 << 20
FOLDER_PREFIX = "hdrgen-slots"
ROOMY_BYTES = 1 << 30


@dataclass(eq=False)
class Slot:
    """One mapped file. `view` covers the whole capacity; `length` is what the holder uses of it."""

    name: str
    path: Path
    capacity: int
    mapping: mmap.mmap = field(repr=False)
    view: memoryview = field(repr=False)
    length: int = 0
    idle_since: float = 0.0

    @property
    def body(self) -> memoryview:
        """The first `length` bytes."""
        return self.view[: self.length]


def rounded(length: int) -> int:
    """Capacity for a body: up to an eighth more than `length`, in whole MiB, so that near sizes share slots."""
    step = max(GRAIN, (1 << max(length - 1, 1).bit_length()) >> 4)
    return max(GRAIN, -(-length // step) * step)


class SlotPool:
    """Hands out slots and takes them back; idle ones up to `keep_bytes` stay mapped. Not thread-safe: one loop."""

    def __init__(self, folder: Path, keep_bytes: int = 2 << 30) -> None:
        self.folder = folder
        self._keep_bytes = keep_bytes
        self._idle: list[Slot] = []
        self._names = count(1)
        self.held = 0
        self.held_bytes = 0
        self._released = asyncio.Event()

    async def wait_for(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until the condition holds, looked at whenever a slot comes back; False when time ran out."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self._released.clear()
                    await self._released.wait()
        except TimeoutError:
            return False
        return True

    def look_again(self) -> None:
        """Have `wait_for` look at its condition again."""
        self._released.set()

    async def acquire(self, length: int) -> Slot:
        """A slot for `length` bytes, its content undefined. Raises StorageError when the file system is full."""
        capacity = rounded(length)
        fitting = [s for s in self._idle if capacity <= s.capacity <= 2 * capacity]
        if fitting:
            slot = min(fitting, key=lambda s: s.capacity)
            self._idle.remove(slot)
        else:
            name = f"slot-{next(self._names)}"
            slot = await asyncio.to_thread(_create, self.folder / name, capacity)
        slot.length = length
        self.held += 1
        self.held_bytes += slot.capacity
        return slot

    def release(self, slot: Slot, now: float = 0.0) -> None:
        """Take a slot back. The caller keeps no view of it."""
        self.held -= 1
        self.held_bytes -= slot.capacity
        slot.idle_since = now
        self._idle.append(slot)
        self._released.set()
        while sum(s.capacity for s in self._idle) > self._keep_bytes:
            _drop(self._idle.pop(0))

    def trim(self, before: float) -> None:
        """Give back the memory of slots that have been idle since before this time."""
        for slot in [s for s in self._idle if s.idle_since < before]:
            self._idle.remove(slot)
            _drop(slot)

    def close(self) -> None:
        """Unmap what is idle and remove the folder; slots still held lose their files but not their pages."""
        while self._idle:
            _drop(self._idle.pop())
        shutil.rmtree(self.folder, ignore_errors=True)


def _create(path: Path, capacity: int) -> Slot:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, capacity)
            mapping = mmap.mmap(descriptor, capacity, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        finally:
            os.close(descriptor)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise StorageError(
            f"no room for {capacity >> 20} MiB of frame data in the sidecar's runtime folder ({error.strerror}); "
            "free memory or set XDG_RUNTIME_DIR to a larger folder"
        ) from error
    return Slot(path.name, path, capacity, mapping, memoryview(mapping))


def _drop(slot: Slot) -> None:
    slot.path.unlink(missing_ok=True)
    slot.view.release()
    with suppress(BufferError):  # a view elsewhere keeps the pages until it goes; the file is gone already
        slot.mapping.close()


def slots_folder(runtime: Path) -> Path:
    """Make this process's slot folder, 0700, in memory where there is room: the runtime folder, else /dev/shm."""
    _remove_stale(runtime)
    for parent in (runtime, Path("/dev/shm")):  # noqa: S108  # made by mkdtemp, 0700
        if parent.is_dir() and os.access(parent, os.W_OK) and _is_tmpfs(parent) and _free(parent) >= ROOMY_BYTES:
            _remove_stale(parent)
            return _make(parent)
    return _make(runtime)


def _make(parent: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}-{os.getuid()}-{os.getpid()}-", dir=parent))


def _free(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def _is_tmpfs(folder: Path) -> bool:
    resolved, best, kind = folder.resolve(), -1, ""
    for mount, name in _mounts():
        if resolved.is_relative_to(mount) and len(mount.parts) > best:
            best, kind = len(mount.parts), name
    return kind == "tmpfs"


def _mounts() -> Iterator[tuple[Path, str]]:
    with suppress(OSError):
        for line in Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
            parts = line.split(" ")
            yield Path(parts[1].replace("\\040", " ")), parts[2]


def _remove_stale(parent: Path) -> None:
    """Remove slot folders of our own user whose process is gone, left by a SIGKILL."""
    for folder in parent.glob(f"{FOLDER_PREFIX}-{os.getuid()}-*"):
        owner = folder.name.split("-")[3]
        if owner.isdigit() and folder.lstat().st_uid == os.getuid() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(folder, ignore_errors=True)
