"""`hdrgen status`: whether the sidecar is there, ready, and what it is doing."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from hdrgen_server.cli import console, server
from hdrgen_server.settings import load_settings
from nuke_hdrgen.wire.messages import Health, Status


def command(
    address: Annotated[str | None, typer.Option("--server", metavar="ADDRESS", help="Sidecar; else found.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one machine-readable object.")] = False,
) -> None:
    """Say whether the sidecar is live and ready, and what it is doing. Exit status 5 when none answers."""
    with server.connect_to(load_settings(server=address)) as link:
        welcome = link.welcome
        health = link.ask(Status(), Health)
    assert welcome is not None
    if as_json:
        console.emit_json({
            "pid": welcome.pid, "package": welcome.package, "wire": welcome.wire,
            **console.plain(dataclasses.asdict(health)),
        })  # fmt: skip
        return
    state = "ready" if health.ready else "live, not ready"
    console.answer(f"sidecar {welcome.package}, pid {welcome.pid}: {state}, up {health.uptime_s:.0f} s")
    console.answer(f"queue {health.queue.depth} of {health.queue.limit}, sessions {health.sessions}")
    for worker in health.workers:
        memory = f"{worker.memory_free_mib:.0f} of {worker.memory_total_mib:.0f} MiB free"
        console.answer(f"worker {worker.device}: {worker.state}, {memory}, packs {', '.join(worker.packs) or 'none'}")
    missing = [name for name, ready in health.packs_ready.items() if not ready]
    console.answer(f"packs not loaded: {', '.join(missing)}" if missing else "every pack is ready")
    for error in health.recent_errors:
        console.answer(f"{error.ago_s:.0f} s ago: {error.code}: {error.message}")
