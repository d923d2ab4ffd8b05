"""Finds a running sidecar or starts one: starters take turns under a lock, and losers adopt the winner's.

It owns the start of the process, its cleaned environment and its two lifetimes. It must not know the sidecar's code:
its command comes from the caller, `$HDRGEN_SIDECAR` or the user's file (`client.installed`).
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Dict, Mapping, Optional, Sequence, Tuple, Type

from nuke_hdrgen.client.address import SERVER_VARIABLE, find_server, has_ended, read_endpoint, runtime_folder
from nuke_hdrgen.client.connection import Clock, Connection, connect
from nuke_hdrgen.client.installed import INSTALL, read_installed
from nuke_hdrgen.client.lock import locked
from nuke_hdrgen.wire.errors import AlreadyRunning, NoServer
from nuke_hdrgen.wire.messages import Welcome

COMMAND_VARIABLE = "HDRGEN_SIDECAR"
DROPPED_VARIABLES = ("PYTHONHOME", "PYTHONPATH", "LD_LIBRARY_PATH")
PARENT_ARGUMENTS = ("--parent-fd", "0")
LOCK_NAME = "start.lock"
LOG_NAME = "sidecar.log"
READY_S = 30.0
_DETACHED: int = getattr(subprocess, "DETACHED_PROCESS", 0) | getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
_POLL_S = 0.05
_END_S = 10.0
_LOG_TAIL_BYTES = 4096


@dataclass(frozen=True)
class Start:
    """How to start a sidecar, and which one will do: its package version and digest of settings ("" takes any)."""

    command: Sequence[str]
    package: str = ""
    settings: str = ""
    ready_s: float = READY_S
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


def sidecar_command(environment: Mapping[str, str]) -> Tuple[str, ...]:
    """The command in `$HDRGEN_SIDECAR`, split as a shell would, else the one in the user's file.

    Raises NoServer when neither names one, and PermissionRefused when the file is not this user's alone to write.
    """
    text = environment.get(COMMAND_VARIABLE, "")
    try:
        command = tuple(shlex.split(text))
    except ValueError as error:
        raise NoServer(f"${COMMAND_VARIABLE} has an open quote; correct it") from error
    if command:
        return command
    installed = read_installed(environment)
    if installed is None:
        raise NoServer(f"no sidecar is running and none is known; run {INSTALL}, or set ${COMMAND_VARIABLE}")
    return installed.command


def clean_environment(environment: Mapping[str, str]) -> Dict[str, str]:
    """The environment without what a host such as Nuke sets for its own Python and libraries."""
    return {name: value for name, value in environment.items() if name not in DROPPED_VARIABLES}


def connect_or_start(
    start: Start, session: str, server: Optional[str] = None, clock: Clock = time.monotonic
) -> Connection:
    """A connection to the sidecar that is named or running, else to a shared one started now.

    A named server is never started. Raises NoServer, AlreadyRunning when a server of another version or settings
    runs, and what `connect` raises.
    """
    if server or start.environment.get(SERVER_VARIABLE):
        return _checked(connect(find_server(server, start.environment), session, clock=clock), start)
    running = _running(start, session, clock)
    if running is not None:
        return running
    folder = runtime_folder(start.environment, create=True)
    with locked(os.path.join(folder, LOCK_NAME), 2 * start.ready_s, clock):
        running = _running(start, session, clock)
        if running is not None:
            return running
        process = _spawn(start.command, start.environment, folder, subprocess.DEVNULL)
        return _wait_ready(process, start, session, folder, clock)


class PrivateSidecar:
    """A sidecar of one's own in a folder of its own, for a farm task or a test; it dies with this process.

    The write end of its standard input is held here: when this process ends, however it ends, the sidecar reads the
    end of the pipe and stops.
    """

    def __init__(self, start: Start, session: str, clock: Clock = time.monotonic) -> None:
        self.folder = tempfile.mkdtemp(prefix="hdrgen-")
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, self.folder, ignore_errors=True)
            environment = {**start.environment, "XDG_RUNTIME_DIR": self.folder}
            environment.pop(SERVER_VARIABLE, None)
            folder = runtime_folder(environment, create=True)
            self.process = _spawn((*start.command, *PARENT_ARGUMENTS), environment, folder, subprocess.PIPE)
            undo.callback(self._end)
            self.connection = _wait_ready(self.process, replace(start, environment=environment), session, folder, clock)
            undo.callback(self.connection.close)
            self._undo = undo.pop_all()

    def __enter__(self) -> PrivateSidecar:
        """The sidecar itself; `connection` is greeted."""
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """End the connection and the sidecar, and remove its folder."""
        self._undo.close()

    def _end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _running(start: Start, session: str, clock: Clock) -> Optional[Connection]:
    """A connection to the running server, or None when there is none that answers."""
    endpoint = read_endpoint(runtime_folder(start.environment))
    if endpoint is None or has_ended(endpoint):
        return None
    try:
        connection = connect(endpoint, session, clock=clock)
    except NoServer:
        return None
    return _checked(connection, start)


def _checked(connection: Connection, start: Start) -> Connection:
    """The connection, unless its server is of another version or settings than `start` asks for."""
    welcome = connection.welcome
    assert isinstance(welcome, Welcome)
    for what, has, wanted in (
        ("version", welcome.package, start.package),
        ("settings", welcome.settings, start.settings),
    ):
        if wanted and has != wanted:
            connection.close()
            raise AlreadyRunning(
                f"a sidecar of {what} {has or 'unknown'} is running (pid {welcome.pid}), this is {wanted}; stop it, or "
                f"name another with ${SERVER_VARIABLE} or --server",
                pid=welcome.pid,
            )
    return connection


def _spawn(command: Sequence[str], environment: Mapping[str, str], folder: str, stdin: int) -> subprocess.Popen[bytes]:
    log_path = os.path.join(folder, LOG_NAME)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)
    try:
        with os.fdopen(os.open(log_path, flags, 0o600), "wb") as log:
            return subprocess.Popen(
                list(command),
                stdin=stdin,
                stdout=log,
                stderr=log,
                env=clean_environment(environment),
                start_new_session=True,
                creationflags=_DETACHED,
            )
    except OSError as error:
        raise NoServer(
            f"the sidecar cannot be started with {command[0]!r} ({error.strerror}); correct ${COMMAND_VARIABLE}, or "
            "run `hdrgen doctor --install` again"
        ) from error


def _wait_ready(process: subprocess.Popen[bytes], start: Start, session: str, folder: str, clock: Clock) -> Connection:
    """The first connection to the server being started. Raises NoServer when it ends or is not ready in time."""
    ends = clock() + start.ready_s
    while clock() < ends:
        connection = _running(start, session, clock)
        if connection is not None:
            return connection
        try:
            status = process.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            continue
        raise NoServer(f"the sidecar ended at its start with status {status}: {_last_line(folder)}")
    process.kill()
    process.wait()
    raise NoServer(f"the sidecar was not ready within {start.ready_s:.0f} s: {_last_line(folder)}")


def _last_line(folder: str) -> str:
    path = os.path.join(folder, LOG_NAME)
    with open(path, "rb") as log:
        log.seek(max(0, os.path.getsize(path) - _LOG_TAIL_BYTES))
        lines = log.read().decode("utf-8", "replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return said[-1][:300] if said else "it said nothing; run its command in a shell to see why"
