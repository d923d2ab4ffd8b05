"""Which sidecar a Nuke talks to: the one that is named or running, else one started from the installed command.

It owns the two lifetimes as Nuke uses them: shared with a GUI, private in terminal mode. It must not know nodes.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import Callable, Generator

from nuke_hdrgen import __version__
from nuke_hdrgen.client.address import SERVER_VARIABLE, find_server
from nuke_hdrgen.client.connection import Connection, connect
from nuke_hdrgen.client.launch import PrivateSidecar, Start, connect_or_start, sidecar_command
from nuke_hdrgen.wire.errors import NoServer
from nuke_hdrgen.wire.messages import Free, Health, Status

FREE_S = 8.0  # a worker tells what it holds every two seconds
FREE_POLL_S = 0.25
CLIENT = f"nuke-hdrgen {__version__}"


def session() -> str:
    """The name under which this Nuke's connections take turns with others'."""
    return f"nuke-{os.getpid()}"


def open_shared() -> Connection:
    """A connection to the sidecar that is named or running, else to a shared one started now.

    Raises NoServer saying how to get one, AlreadyRunning when one of another version runs, and what `connect` raises.
    """
    environment = dict(os.environ)
    try:
        command = sidecar_command(environment)
    except NoServer as not_installed:
        try:
            return connect(find_server(None, environment), session(), CLIENT)
        except NoServer as none_runs:
            raise (none_runs if environment.get(SERVER_VARIABLE) else not_installed) from none_runs
    return connect_or_start(Start(command, __version__, environment=environment), session())


@contextmanager
def private_or_named() -> Generator[Callable[[], Connection], None, None]:
    """How to connect from a farm task: to the sidecar in `$HDRGEN_SERVER`, else to one that lives as long as this."""
    environment = dict(os.environ)
    if environment.get(SERVER_VARIABLE):
        yield lambda: connect(find_server(None, environment), session(), CLIENT)
        return
    with PrivateSidecar(Start(sidecar_command(environment), __version__, environment=environment), session()) as own:
        yield own.connection.again


def free_devices() -> str:
    """Have the sidecar unload every idle pack, wait until it has, and say in a line what is free now.

    Packs at work stay. Never starts a sidecar. Raises NoServer.
    """
    ends = time.monotonic() + FREE_S
    with connect(find_server(None, os.environ), session(), CLIENT) as connection:
        health = connection.ask(Free(), Health)
        while any(worker.packs for worker in health.workers) and time.monotonic() < ends:
            time.sleep(FREE_POLL_S)
            health = connection.ask(Status(), Health)
    memory = (f"{w.device}: {w.memory_free_mib:.0f} of {w.memory_total_mib:.0f} MiB free" for w in health.workers)
    return "; ".join(memory) or "no worker holds any memory"
