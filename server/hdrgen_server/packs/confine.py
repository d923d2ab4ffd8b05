"""What a process may do that opens a file from elsewhere: bounded memory, time and files, no network, no programs.

It owns the bounds. It must not know what is opened. The reader that it guards (`packs/pickled.py`) runs no code from a
file in the first place; this is the second wall.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from nuke_hdrgen.wire.errors import PermissionRefused

# Audit events (Python's table of them) that start a program, reach a network or load native code.
FORBIDDEN = (
    "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.startfile", "os.kill", "pty.spawn",
    "subprocess.Popen", "socket.", "urllib.Request", "ctypes.", "webbrowser.open",
)  # fmt: skip


def confine(memory: int, largest_file: int, seconds: int) -> None:
    """Bind this process, for good: `memory` bytes beyond what it has now, files of at most `largest_file` bytes, and
    `seconds` of computing in all, after which the system ends it.

    Where the system has no resource limits (Windows), only the refusals hold.
    """
    try:
        resource = importlib.import_module("resource")
    except ImportError:
        pass
    else:
        limits = {
            resource.RLIMIT_AS: _address_space() + memory,
            resource.RLIMIT_FSIZE: largest_file,
            resource.RLIMIT_CPU: seconds,
            resource.RLIMIT_CORE: 0,
        }
        for kind, value in limits.items():
            hard = resource.getrlimit(kind)[1]
            bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (bound, bound))
    sys.addaudithook(_refuse)


def _refuse(event: str, _arguments: object) -> None:
    if event.startswith(FORBIDDEN):
        raise PermissionRefused(f"a file that was being converted tried {event}; do not use it")


def _address_space() -> int:
    """Bytes of address space in use, 4 GiB where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 4 << 30
    return pages * 4096
