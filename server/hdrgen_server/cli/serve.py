"""`hdrgen serve`: becomes the gateway process, in the foreground."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from hdrgen_server.settings import load_settings


def command(
    socket: Annotated[str | None, typer.Option(metavar="PATH", help="Socket path to bind.")] = None,
    device: Annotated[
        str | None, typer.Option(metavar="D", help="auto, cpu, cuda, cuda:N, or several with commas.")
    ] = None,
    idle_exit: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="End after this long without work; 0 never does.")
    ] = None,
    socket_group: Annotated[
        str | None, typer.Option(metavar="GROUP", help="Unix group whose members may connect too.")
    ] = None,
) -> None:
    """Run the sidecar in the foreground until it is interrupted.

    Clients find it through its endpoint file in the runtime folder. Exit status 3 when one already runs
    there.
    """
    load_settings(socket=socket, device=device, idle_exit_s=idle_exit, socket_group=socket_group)  # one line if bad
    given = {"--socket": socket, "--device": device, "--idle-exit": idle_exit or 0.0, "--socket-group": socket_group}
    options = [text for name, value in given.items() if value is not None for text in (name, str(value))]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "hdrgen_server.gateway", *options])  # noqa: S606 becomes it
