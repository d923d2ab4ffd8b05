"""The listening socket and who may connect to it.

It owns binding, the probe of a socket that is already there, and the check of a peer's uid. It must not know
messages, sessions or jobs.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nuke_hdrgen.wire.errors import AlreadyRunning, BadParameter, PermissionRefused, StorageError

PATH_LIMIT = 107  # bytes of sun_path without its NUL on Linux, unix(7)
PROBE_S = 1.0
BACKLOG = 64
SOCKET_BUFFER = 4 << 20
_UCRED = struct.Struct("3i")


@dataclass(frozen=True)
class Listener:
    """A bound socket, its address as clients write it, and the file to remove at the end."""

    socket: socket.socket
    address: str
    path: Path | None

    def close(self) -> None:
        """Stop listening and remove the socket file."""
        self.socket.close()
        if self.path is not None:
            with suppress(OSError):
                if stat.S_ISSOCK(self.path.lstat().st_mode):
                    self.path.unlink()


@dataclass(frozen=True)
class Peer:
    """Who is at the other end of a Unix socket; all -1 over TCP."""

    pid: int = -1
    uid: int = -1
    gid: int = -1


def listen_unix(path: Path, group: int | None = None) -> Listener:
    """Bind a Unix socket, 0600 (0660 for a group). A stale socket is replaced only after a failed connect.

    Raises BadParameter (path too long), AlreadyRunning (a server answers there), PermissionRefused (something that is
    no socket, or another user's, is there) or StorageError.
    """
    if len(os.fsencode(path)) > PATH_LIMIT:
        raise BadParameter(
            f"the socket path has {len(os.fsencode(path))} bytes, the system allows {PATH_LIMIT}; name a shorter one"
        )
    _clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o177 if group is None else 0o117)
    try:
        listener.bind(str(path))
        if group is not None:
            os.chown(path, -1, group)
    except OSError as error:
        listener.close()
        raise StorageError(f"the socket cannot be made: {error.strerror}; name another with --socket") from error
    finally:
        os.umask(umask)
    return Listener(_listening(listener), f"unix:{path}", path)


def listen_tcp(port: int = 0) -> Listener:
    """Bind loopback TCP; the address is tcp:HOST:PORT. Raises AlreadyRunning when the port is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        raise AlreadyRunning(f"port {port} of this machine is taken ({error.strerror}); name another") from error
    host, bound = listener.getsockname()
    return Listener(_listening(listener), f"tcp:{host}:{bound}", None)


def peer_of(connection: socket.socket) -> Peer:
    """The process at the other end, as the kernel knows it (SO_PEERCRED, unix(7))."""
    if connection.family != socket.AF_UNIX:
        return Peer()
    return Peer(*_UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))


def check_peer(peer: Peer, members: frozenset[int] = frozenset()) -> None:
    """Raises PermissionRefused unless the peer runs as this user, as root, or as a member of the shared group."""
    if peer.uid not in {os.getuid(), 0} | members:
        raise PermissionRefused("this sidecar belongs to another user; start your own with `hdrgen serve`")


def _listening(listener: socket.socket) -> socket.socket:
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):  # accepted connections inherit them over TCP
        with suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def _clear(path: Path) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise PermissionRefused("something that is no socket is at the socket's path; move it, or name another path")
    if status.st_uid != os.getuid():
        raise PermissionRefused("another user's socket is at this path; name another with --socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_S)
        outcome = probe.connect_ex(str(path))
        if outcome == errno.ECONNREFUSED:
            path.unlink(missing_ok=True)
            return
        owner = f" with pid {peer_of(probe).pid}" if outcome == 0 else ""
    raise AlreadyRunning(f"a sidecar{owner} already answers at this socket; use it, or stop it first")
