"""The runtime folder: made private, locked by one server, and the endpoint file that tells clients where it is.

It owns the folder's checks, the lock, and the endpoint file's life. It must not know sockets, messages or jobs.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nuke_hdrgen.wire.errors import AlreadyRunning, PermissionRefused, StorageError

ENDPOINT_NAME = "endpoint.json"
LOCK_NAME = "server.lock"


def default_runtime_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """`$XDG_RUNTIME_DIR/hdrgen`, else `<tempdir>/hdrgen-<uid>`."""
    base = environment.get("XDG_RUNTIME_DIR", "")
    return Path(base) / "hdrgen" if base else Path(tempfile.gettempdir()) / f"hdrgen-{os.getuid()}"


def private_folder(folder: Path, *, group: int | None = None) -> Path:
    """Make the folder, 0700 (0750 and the group's for a service shared with it), or check the one that is there.

    Raises PermissionRefused when it is not ours, not a folder, or a link; StorageError when it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode):
            raise PermissionRefused("the runtime folder is a link or a file; remove it, or name another folder")
        if status.st_uid != os.getuid():
            raise PermissionRefused("the runtime folder belongs to another user; name another with --runtime-dir")
        if group is not None:
            os.chown(folder, -1, group)
        folder.chmod(0o700 if group is None else 0o750)
    except FileExistsError as error:
        raise PermissionRefused("the runtime folder's path is a file; remove it, or name another folder") from error
    except OSError as error:
        raise StorageError(f"the runtime folder cannot be made: {error.strerror}; name another folder") from error
    return folder


@dataclass
class ServerLock:
    """The right to serve from one runtime folder, held until `release` or the process's end."""

    path: Path
    descriptor: int

    @classmethod
    def take(cls, folder: Path) -> ServerLock:
        """Raises AlreadyRunning naming the owner's pid."""
        path = folder / LOCK_NAME
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise AlreadyRunning(
                f"a sidecar with pid {owner} already serves from this runtime folder; use it, or stop it first",
                pid=int(owner) if owner.isdigit() else None,
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return cls(path, descriptor)

    def release(self) -> None:
        """Give the lock up. The file stays: unlinking it would let two servers hold two locks."""
        os.ftruncate(self.descriptor, 0)
        os.close(self.descriptor)


def write_endpoint(folder: Path, endpoint: Mapping[str, Any], *, group: int | None = None) -> Path:
    """Write the endpoint file (JSON: address, pid, version, token) in one step, 0600, or 0640 and the group's.

    Raises StorageError when it cannot be written.
    """
    path = folder / ENDPOINT_NAME
    beside = folder / f".{ENDPOINT_NAME}.{os.getpid()}"
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            if group is not None:
                os.fchown(stream.fileno(), -1, group)
                os.fchmod(stream.fileno(), 0o640)
            json.dump(dict(endpoint), stream)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise StorageError(
            f"the endpoint file cannot be written: {error.strerror}; make room, or name another --runtime-dir"
        ) from error
    return path


def remove_endpoint(folder: Path) -> None:
    """Remove the endpoint file when it is this process's."""
    path = folder / ENDPOINT_NAME
    try:
        ours = json.loads(path.read_text(encoding="utf-8")).get("pid") == os.getpid()
    except (OSError, ValueError, AttributeError):
        return
    if ours:
        path.unlink(missing_ok=True)
