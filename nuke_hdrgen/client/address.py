"""Where the sidecar is: an address that was named, else the endpoint file of the private runtime folder.

It owns address forms, the runtime folder's checks and the endpoint file's reading. It must not know the protocol.
"""

from __future__ import annotations

import getpass
import json
import os
import stat
import tempfile
from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional, cast

from nuke_hdrgen.wire.errors import BadParameter, NoServer, PermissionRefused, StorageError

SERVER_VARIABLE = "HDRGEN_SERVER"
ENDPOINT_NAME = "endpoint.json"
UNIX_PATH_BYTES = 107  # sun_path holds 108 with its NUL: unix(7)
LOOPBACK = ("127.0.0.1", "localhost")
_ENDPOINT_BYTES = 64 * 1024


@dataclass(frozen=True)
class Address:
    """A Unix socket's path, or a port of this machine when `path` is empty."""

    path: str = ""
    port: int = 0

    def __str__(self) -> str:
        """The form that `parse_address` reads."""
        return f"unix:{self.path}" if self.path else f"tcp:127.0.0.1:{self.port}"


@dataclass(frozen=True, repr=False)
class Endpoint:
    """A server that may be there. `named` when the user gave the address, so that it may be another user's service."""

    address: Address
    pid: Optional[int] = None
    version: str = ""
    token: Optional[str] = None
    named: bool = False

    def __repr__(self) -> str:
        """Never shows the token."""
        return f"Endpoint({self.address}, pid={self.pid}, version={self.version!r})"


def parse_address(text: str) -> Address:
    """`unix:/path` or `/path`, `tcp:127.0.0.1:port` or `127.0.0.1:port`.

    Raises BadParameter for any other form, another host than this machine, or a path over 107 bytes.
    """
    if text.startswith(("unix:", "/")):
        path = text.removeprefix("unix:")
        if not path.startswith("/") or "\0" in path:
            raise BadParameter(f"server address {text!r} needs an absolute path, such as unix:/run/hdrgen/socket")
        length = len(os.fsencode(path))
        if length > UNIX_PATH_BYTES:
            raise BadParameter(
                f"the socket path has {length} bytes, the system allows {UNIX_PATH_BYTES}; set XDG_RUNTIME_DIR or "
                "--server to a shorter one"
            )
        return Address(path=path)
    host, colon, port = (text.removeprefix("tcp:")).rpartition(":")
    if not colon or not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise BadParameter(f"server address {text[:200]!r} is neither unix:/PATH nor tcp:127.0.0.1:PORT")
    if host not in LOOPBACK:
        raise BadParameter(f"server {host[:200]!r} is not this machine; forward a remote one with `ssh -L`")
    return Address(port=int(port))


def runtime_folder(environment: Mapping[str, str], create: bool = False) -> str:
    """`$XDG_RUNTIME_DIR/hdrgen`, else `<tempdir>/hdrgen-<uid>`; checked, and made 0700 when `create`.

    Raises PermissionRefused when it is no folder, another user's or writable for others; StorageError when it cannot
    be made. It may be missing when not `create`.
    """
    base = environment.get("XDG_RUNTIME_DIR", "")
    folder = os.path.join(base, "hdrgen") if base else os.path.join(tempfile.gettempdir(), f"hdrgen-{_user()}")
    if create:
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
        except FileExistsError as error:
            raise PermissionRefused(f"{folder} is no folder; remove it, or set XDG_RUNTIME_DIR") from error
        except OSError as error:
            raise StorageError(f"{folder} cannot be made ({error.strerror}); set XDG_RUNTIME_DIR") from error
    _check_private(folder, stat.S_ISDIR, "folder")
    return folder


def read_endpoint(folder: str) -> Optional[Endpoint]:
    """What the endpoint file says, or None when there is none.

    Raises PermissionRefused when the file is not this user's own, NoServer when it cannot be understood.
    """
    path = os.path.join(folder, ENDPOINT_NAME)
    if not _check_private(path, stat.S_ISREG, "file"):
        return None
    try:
        with open(path, "rb") as stream:
            said: Any = json.loads(stream.read(_ENDPOINT_BYTES))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NoServer(f"{path} cannot be read ({error.strerror}); start a sidecar with `hdrgen serve`") from error
    except (ValueError, RecursionError) as error:
        raise _unreadable(path) from error
    return _endpoint(path, cast(object, said))


def find_server(server: Optional[str], environment: Mapping[str, str]) -> Endpoint:
    """The server to use: the argument, else `$HDRGEN_SERVER`, else the endpoint file.

    A named address takes its token from the endpoint file where that names the same one. Raises BadParameter for a
    bad address and NoServer when nothing is named or the server that the file names has ended.
    """
    text = server or environment.get(SERVER_VARIABLE, "")
    endpoint = None if text.startswith(("/", "unix:")) else read_endpoint(runtime_folder(environment))
    if text:
        address = parse_address(text)
        same = endpoint is not None and endpoint.address == address
        return Endpoint(address, token=endpoint.token if endpoint is not None and same else None, named=True)
    if endpoint is None:
        raise NoServer("no sidecar is running; start one with `hdrgen serve`")
    if has_ended(endpoint):
        raise NoServer(f"the sidecar with pid {endpoint.pid} has ended; start one with `hdrgen serve`")
    return endpoint


def has_ended(endpoint: Endpoint) -> bool:
    """Whether the server's process is certainly gone (only POSIX can tell without touching it)."""
    if endpoint.pid is None or os.name != "posix":
        return False
    try:
        os.kill(endpoint.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _endpoint(path: str, said: object) -> Endpoint:
    if not isinstance(said, dict):
        raise _unreadable(path)
    fields = cast(Dict[str, object], said)
    address, pid, version, token = (fields.get(name) for name in ("address", "pid", "version", "token"))
    if (
        not isinstance(address, str)
        or not isinstance(pid, int)
        or not 0 < pid < 2**31
        or not isinstance(version, str)
        or not (token is None or isinstance(token, str))
    ):
        raise _unreadable(path)
    return Endpoint(parse_address(address), pid, version, token or None)


def _unreadable(path: str) -> NoServer:
    return NoServer(f"{path} does not name a sidecar; remove it and start one with `hdrgen serve`")


def _check_private(path: str, is_type: Any, kind: str) -> bool:
    """Whether it exists; raises PermissionRefused unless it is of this type, this user's, and only theirs to write."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise PermissionRefused(f"{path} cannot be looked at ({error.strerror}); set XDG_RUNTIME_DIR") from error
    if not is_type(status.st_mode):
        raise PermissionRefused(f"{path} is no {kind}; remove it, or set XDG_RUNTIME_DIR to a folder of your own")
    if os.name == "posix" and (status.st_uid != os.getuid() or status.st_mode & 0o022):
        raise PermissionRefused(f"{path} is not yours alone; remove it, or set XDG_RUNTIME_DIR to a folder of your own")
    return True


def _user() -> str:
    return str(os.getuid()) if os.name == "posix" else getpass.getuser()
