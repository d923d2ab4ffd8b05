"""The user's file that names the sidecar's command, so that a Nuke finds it without a variable.

It owns the file's place, its format and its checks, both ways. It must not know how a sidecar is started, nor which
command is the right one: `hdrgen doctor --install` says that.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from dataclasses import dataclass
from typing import Any, List, Mapping, Optional, Tuple, cast

from nuke_hdrgen.wire.errors import NoServer, PermissionRefused, StorageError

FILE_NAME = "sidecar.json"
INSTALL = "`hdrgen doctor --install`"
_FILE_BYTES = 64 * 1024
_ARGUMENTS = 64


@dataclass(frozen=True)
class Installed:
    """What the file says: the command's arguments, the program first, and the package version that wrote it."""

    command: Tuple[str, ...]
    package: str


def user_file(environment: Mapping[str, str], platform: str = sys.platform) -> str:
    """`$XDG_CONFIG_HOME/hdrgen/sidecar.json`, else the same below the platform's folder for a user's settings.

    That is `~/.config`, `%APPDATA%` on Windows and `~/Library/Application Support` on macOS. It may not be there. A
    relative `$XDG_CONFIG_HOME` counts as not set (XDG Base Directory Specification).
    """
    base = environment.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(base):
        home = environment.get("HOME") or os.path.expanduser("~")
        if platform == "win32":
            base = environment.get("APPDATA") or os.path.join(home, "AppData", "Roaming")
        elif platform == "darwin":
            base = os.path.join(home, "Library", "Application Support")
        else:
            base = os.path.join(home, ".config")
    return os.path.join(base, "hdrgen", FILE_NAME)


def read_installed(environment: Mapping[str, str]) -> Optional[Installed]:
    """What the user's file says, or None when there is none.

    Raises PermissionRefused when it is no file of this user's, or others may write it, and NoServer when it cannot
    be read or understood.
    """
    path = user_file(environment)
    try:
        data = _own_bytes(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise NoServer(f"{path} cannot be read ({error.strerror}); run {INSTALL} again") from error
    return _parsed(path, data)


def write_installed(installed: Installed, environment: Mapping[str, str]) -> str:
    """Write the user's file, for this user alone (0600), beside its place and renamed; returns its path.

    Raises StorageError when it cannot be written; no partial file stays.
    """
    path = user_file(environment)
    beside = f"{path}.{os.getpid()}.part"
    text = json.dumps({"command": list(installed.command), "package": installed.package}, indent=2) + "\n"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        _remove(beside)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(beside, path)
    except OSError as error:
        _remove(beside)
        what = f"{path} cannot be written ({error.strerror})"
        raise StorageError(f"{what}; make its folder writable, or set $HDRGEN_SIDECAR instead") from error
    return path


def _own_bytes(path: str) -> bytes:
    """What the file holds, one byte over the limit at most. Raises PermissionRefused unless it is this user's own."""
    # O_NONBLOCK: a FIFO in its place is refused, not waited for.
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(path, flags)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise PermissionRefused(f"{path} is no file; remove it and run {INSTALL}")
        if os.name == "posix" and (status.st_uid != os.getuid() or status.st_mode & 0o022):
            raise PermissionRefused(f"{path} is not yours alone to write; remove it and run {INSTALL}")
        return os.read(descriptor, _FILE_BYTES + 1)
    finally:
        os.close(descriptor)


def _parsed(path: str, data: bytes) -> Installed:
    try:
        said: Any = json.loads(data) if len(data) <= _FILE_BYTES else None
    except (ValueError, RecursionError) as error:
        raise _unreadable(path) from error
    fields = cast(Mapping[str, object], said) if isinstance(said, dict) else {}
    command, package = fields.get("command"), fields.get("package")
    if not isinstance(command, list) or not isinstance(package, str):
        raise _unreadable(path)
    arguments = [part for part in cast(List[object], command) if isinstance(part, str) and part and "\0" not in part]
    if not 0 < len(arguments) <= _ARGUMENTS or len(arguments) != len(cast(List[object], command)):
        raise _unreadable(path)
    return Installed(tuple(arguments), package)


def _unreadable(path: str) -> NoServer:
    return NoServer(f"{path} does not name a sidecar's command; run {INSTALL} again")


def _remove(path: str) -> None:
    try:
        os.remove(path)
    except OSError:
        return
