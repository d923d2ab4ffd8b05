"""`hdrgen doctor`: what is wrong here, in sentences, the unused GPU first, each with what to do."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from hdrgen_server.cli import console, findings, install, server
from hdrgen_server.cli.findings import Finding
from hdrgen_server.settings import load_settings
from nuke_hdrgen.wire.errors import UsageError

MARKS = {"problem": "wrong", "warning": "look at", "ok": "ok"}


def examine() -> list[Finding]:
    """Every finding, problems first. Raises BadParameter when the settings cannot be read."""
    settings = load_settings()
    runtime = server.runtime_folder()
    found = findings.gpu(settings, findings.probe_torch(), findings.graphics_cards())
    found += findings.ocio(settings)
    found += findings.runtime_folder(runtime)
    found += server.findings(settings)
    found += install.findings(os.environ)
    found += findings.packs(settings)
    found += findings.space({
        "slots": runtime, "packs": settings.data_folder, "caches": settings.cache_folder,
    })  # fmt: skip
    found += findings.environment()
    return sorted(found, key=lambda finding: list(MARKS).index(finding.level))


def command(
    install_now: Annotated[
        bool, typer.Option("--install", help="Tell this user's Nuke how to start the sidecar; look at nothing else.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one machine-readable object.")] = False,
) -> None:
    """Say what is wrong on this machine and what to do about it. Exit status 2 when something is."""
    if install_now:
        written = install.install(load_settings(), os.environ)
        if as_json:
            console.emit_json(written.as_dict())
        else:
            for line in written.lines():
                console.answer(line)
        return
    found = examine()
    problems = [finding for finding in found if finding.level == "problem"]
    if as_json:
        console.emit_json({"ok": not problems, "findings": [finding.as_dict() for finding in found]})
    else:
        for finding in found:
            console.answer(f"{MARKS[finding.level]:<8} {finding.topic:<9} {finding.what}{_advice(finding)}")
    if problems:
        raise typer.Exit(UsageError.exit_status)


def _advice(finding: Finding) -> str:
    return f"; {finding.do}" if finding.do else ""
