"""A lock on a file between processes, with a deadline; it ends with the process that holds it.

It owns the two systems' lock calls. It must not know what the lock protects.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from typing import Callable, Generator

from nuke_hdrgen.wire.errors import ServerTimeout, StorageError

POLL_S = 0.05

if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _try_lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def locked(
    path: str,
    deadline_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Generator[None, None, None]:
    """Hold the lock of the file at `path` (made when missing, never removed).

    Raises ServerTimeout when another process holds it for longer than the deadline, StorageError when it cannot be
    made.
    """
    try:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise StorageError(f"{path} cannot be made ({error.strerror}); set XDG_RUNTIME_DIR") from error
    try:
        ends = clock() + deadline_s
        while not _taken(descriptor):
            if clock() > ends:
                raise ServerTimeout(f"another program has been starting the sidecar for {deadline_s:.0f} s; try again")
            sleep(POLL_S)
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        _try_lock(descriptor)
    except OSError:
        return False
    return True
