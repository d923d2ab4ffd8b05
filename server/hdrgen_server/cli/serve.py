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
) -> None:
    """Run the sidecar in the foreground until it is interrupted.

    Clients find it through its endpoint file in the runtime folder. Exit status 3 when one already runs
    there.
    """
    given = {"socket": socket, "device": device, "idle_exit_s": 0.0 if idle_exit is None else idle_exit}
    load_settings(**given)  # a bad value is said here, in one line
    environment = os.environ | {f"HDRGEN_{k.upper()}": str(v) for k, v in given.items() if v is not None}
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, "-m", "hdrgen_server.gateway"], environment)  # noqa: S606 becomes it
