"""The sidecar as the command line sees it: connecting, starting the shared one, and what is wrong with it.

It owns how settings become an address and a start. It must not know jobs or pixels.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from hdrgen_server import __version__
from hdrgen_server.cli.findings import Finding
from hdrgen_server.cli.jobs import session_name
from hdrgen_server.gateway.runtime import ENDPOINT_NAME, default_runtime_folder
from hdrgen_server.settings import Settings
from nuke_hdrgen.client import launch
from nuke_hdrgen.client.address import find_server, has_ended, read_endpoint
from nuke_hdrgen.client.connection import Connection, connect
from nuke_hdrgen.wire.errors import BadParameter, HDRGenError, NoServer

CLIENT = f"hdrgen {__version__}"


def sidecar_command(settings: Settings) -> tuple[str, ...]:
    """What starts the sidecar: the setting, split as a shell would, else this Python's. Raises BadParameter."""
    try:
        given = shlex.split(settings.sidecar)
    except ValueError as error:
        raise BadParameter(f"setting sidecar {settings.sidecar!r} has an open quote; correct it") from error
    return tuple(given) or (sys.executable, "-m", "hdrgen_server.gateway")


def connect_or_start(settings: Settings) -> Connection:
    """Connect to the sidecar, the shared one started when none runs; it ends itself after idle minutes.

    Raises AlreadyRunning when one of another version or settings runs, NoServer when it cannot be started.
    """
    start = launch.Start(sidecar_command(settings), __version__, settings.digest)
    return launch.connect_or_start(start, session_name(), settings.server or None)


def connect_to(settings: Settings) -> Connection:
    """Connect to the sidecar that runs; never starts one. Raises NoServer and what `connect` raises."""
    endpoint = find_server(settings.server or None, os.environ)
    return connect(endpoint, session_name(), CLIENT)


def runtime_folder() -> Path:
    """The folder of the endpoint file, sockets and slots; it may not be there."""
    return default_runtime_folder()


def findings(settings: Settings) -> list[Finding]:
    """Whether a sidecar answers, and what a dead one left behind."""
    folder = runtime_folder()
    endpoint_file = folder / ENDPOINT_NAME
    try:
        endpoint = read_endpoint(str(folder))
        if endpoint is not None and has_ended(endpoint):
            what = f"{endpoint_file} names a sidecar with pid {endpoint.pid} that has ended"
            return [Finding("warning", "sidecar", what, "nothing: the next start replaces it")]
        with connect_to(settings) as link:
            welcome = link.welcome
    except NoServer as error:
        if settings.server or endpoint_file.exists():
            return [Finding("problem", "sidecar", error.message, "")]
        return [Finding("ok", "sidecar", "none is running; the first command that needs one starts it")]
    except HDRGenError as error:
        return [Finding("problem", "sidecar", error.message, "")]
    assert welcome is not None
    if welcome.package != __version__:
        what = f"the sidecar with pid {welcome.pid} is version {welcome.package}, this is {__version__}"
        return [Finding("problem", "sidecar", what, "stop it; the next command starts the right one")]
    workers = ", ".join(f"{w.device} {w.state}" for w in welcome.workers) or "no worker yet"
    return [Finding("ok", "sidecar", f"answers with pid {welcome.pid}: {workers}")]
