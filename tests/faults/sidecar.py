"""A real gateway process, with the system `faulty` registered, and short ways to talk to it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import hdrgen_server
from hdrgen_server.packs import descriptors
from nuke_hdrgen.client.address import Address, Endpoint
from nuke_hdrgen.client.connection import connect
from nuke_hdrgen.client.job import run_job
from nuke_hdrgen.wire import messages as m
from nuke_hdrgen.wire.errors import NoServer
from nuke_hdrgen.wire.limits import Limits

SITE = Path(__file__).parent / "site"
SERVER = Path(hdrgen_server.__file__).parents[1]
SPACE = m.Colourspace("lin_rec709_scene", "lin_rec709_scene")
SHAPE = (8, 16, 3)
PATIENT = Limits(silence_s=60.0)


def body(value: int = 0) -> bytes:
    return bytes([value]) * (SHAPE[0] * SHAPE[1] * SHAPE[2] * 2)


def frame(index: int, name: str = "") -> m.Frame:
    return m.Frame(
        id=name or "x", index=index, number=index + 1001, format="f16", shape=SHAPE, channels=("R", "G", "B"),
        colourspace=SPACE,
    )  # fmt: skip


def order(name: str, frames: int = 1, **parameters) -> m.Open:
    return m.Open(
        id=name, operation="faulty", frames=frames, output=SPACE, pack="faulty", parameters=parameters, encoding="raw"
    )


def echo(name: str, frames: int = 1) -> m.Open:
    return m.Open(id=name, operation="echo", frames=frames, output=SPACE, pack="echo")


class Sidecar:
    def __init__(self, folder: Path, *arguments: str, **settings: object) -> None:
        self.folder = folder
        self.runtime = folder / "run"
        systems = folder / "systems"
        systems.mkdir(parents=True)
        for real in (*descriptors.SYSTEMS_FOLDER.glob("*.toml"), SITE / "faulty.toml"):
            (systems / real.name).write_bytes(real.read_bytes())
        pack = folder / "packs" / "faulty"
        pack.mkdir(parents=True)
        pack.joinpath("pack.toml").write_text(
            'format = 1\nname = "faulty"\nsystem = "faulty"\nlicence = "Apache-2.0"\n'
        )
        paths = [str(SITE), str(SERVER), str(SERVER.parent), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(p for p in paths if p),
            "FAULTY_SYSTEMS": str(systems),
            "HDRGEN_PACKS_FOLDERS": str(folder / "packs"),
            "HDRGEN_DATA_FOLDER": str(folder / "data"),
            "XDG_CONFIG_HOME": str(folder / "config"),
            **{f"HDRGEN_{name.upper()}": str(value) for name, value in settings.items()},
        }
        command = [sys.executable, "-m", "hdrgen_server.gateway", "--device", "cpu", "--runtime-dir", str(self.runtime)]
        self.log = (folder / "stderr").open("wb")
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [*command, *arguments], env=environment, stderr=self.log, stdin=subprocess.PIPE, cwd=folder
        )
        self.endpoint = Endpoint(Address(path=str(self.runtime / "hdrgen.sock")))

    def connect(self, session: str = "test"):
        deadline = time.monotonic() + 30
        while True:
            try:
                return connect(self.endpoint, session, limits=PATIENT)
            except NoServer:
                if time.monotonic() > deadline or self.ends_within(0.01):
                    raise

    def ends_within(self, seconds: float) -> bool:
        """Wait for the process to end."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def health(self) -> m.Health:
        with self.connect("health") as connection:
            return connection.ask(m.Status(), m.Health)

    def until(self, condition, seconds: float = 30.0) -> m.Health:
        """Ask for health until the condition holds."""
        deadline = time.monotonic() + seconds
        with self.connect("health") as connection:
            while True:
                health = connection.ask(m.Status(), m.Health)
                if condition(health):
                    return health
                assert time.monotonic() < deadline, f"never came true: {health}"

    def run(self, request: m.Open, session: str = "test", **kwargs):
        with self.connect(session) as connection:
            return [
                (result, bytes(data)) for result, data in run_job(connection, request, frames_of(request), **kwargs)
            ]

    def works(self) -> None:
        """The next job succeeds."""
        ((result, data),) = self.run(order("next"), session="next")
        assert result.index == 0
        assert len(data) == 2 * len(body())

    def text(self) -> str:
        return (self.folder / "stderr").read_text() + (self.runtime / "worker.log").read_text()

    def end(self) -> int:
        self.process.terminate()
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            self.process.stdin.close()
            self.log.close()


def frames_of(request: m.Open):
    return [(replace(frame(i), id=request.id), body()) for i in range(request.frames)]


@contextmanager
def sidecar(folder: Path, *arguments: str, **settings: object):
    running = Sidecar(folder, *arguments, **settings)
    try:
        yield running
    finally:
        running.end()
