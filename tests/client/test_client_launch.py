"""Finding or starting a sidecar, with real processes: one start for many starters, both lifetimes, clear failures."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nuke_hdrgen.client import launch, lock
from nuke_hdrgen.client.address import parse_address
from nuke_hdrgen.wire import messages as m
from nuke_hdrgen.wire.errors import AlreadyRunning, NoServer, ServerTimeout, StorageError
from tests.fakes import fake_gateway
from tests.fakes.fake_gateway import FakeGateway, Side

COMMAND = (sys.executable, str(Path(fake_gateway.__file__)))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[launch.Start]:
    environment = {
        **os.environ,
        "XDG_RUNTIME_DIR": str(tmp_path),
        "PYTHONHOME": "/nowhere",
        "PYTHONPATH": "/nowhere",
        "LD_LIBRARY_PATH": "/nowhere",
    }
    environment.pop("HDRGEN_SERVER", None)
    yield launch.Start(COMMAND, fake_gateway.VERSION, "s1", environment=environment)
    for pid in starts(tmp_path):
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def starts(base: Path) -> list[int]:
    path = base / "hdrgen" / "starts"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def test_many_starters_one_sidecar(start: launch.Start, tmp_path: Path) -> None:
    pids: list[int] = []
    barrier = threading.Barrier(4)

    def begin() -> None:
        barrier.wait(10)
        with launch.connect_or_start(start, "s") as connection:
            assert connection.welcome is not None
            pids.append(connection.welcome.pid)

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(pids) == 4
    assert set(pids) == set(starts(tmp_path))
    assert len(starts(tmp_path)) == 1
    seen = json.loads((tmp_path / "hdrgen" / "environment.json").read_text())
    assert not set(launch.DROPPED_VARIABLES) & set(seen)
    with launch.connect_or_start(start, "s") as connection:
        assert connection.ask(m.Status(), m.Health).live, "a later starter adopts it"
    assert len(starts(tmp_path)) == 1


def test_a_killed_sidecar_is_replaced(start: launch.Start, tmp_path: Path) -> None:
    launch.connect_or_start(start, "s").close()
    (pid,) = starts(tmp_path)
    os.kill(pid, signal.SIGKILL)
    with launch.connect_or_start(start, "s") as connection:
        assert connection.welcome is not None
        assert connection.welcome.pid != pid
    assert len(starts(tmp_path)) == 2


@pytest.mark.parametrize(("changes", "says"), [({"package": "9.9"}, "version 0.1.0"), ({"settings": "s2"}, "settings")])
def test_another_version_or_settings_is_refused_by_name(
    start: launch.Start, changes: dict[str, str], says: str
) -> None:
    launch.connect_or_start(start, "s").close()
    with pytest.raises(AlreadyRunning, match=says):
        launch.connect_or_start(launch.replace(start, **changes), "s")
    launch.connect_or_start(launch.replace(start, package="", settings=""), "s").close()


def test_a_named_server_is_never_started(start: launch.Start, tmp_path: Path) -> None:
    with pytest.raises(NoServer):
        launch.connect_or_start(start, "s", str(tmp_path / "none"))
    with FakeGateway(tmp_path / "named") as gateway:
        launch.connect_or_start(start, "s", gateway.address).close()
        environment = {**start.environment, "HDRGEN_SERVER": gateway.address}
        launch.connect_or_start(launch.replace(start, environment=environment), "s").close()
        assert len(gateway.hellos) == 2
    assert starts(tmp_path) == []


def test_a_start_that_fails_says_why(start: launch.Start) -> None:
    failing = launch.replace(start, command=(*COMMAND, "--fail"))
    with pytest.raises(NoServer, match="status 5: the device is on fire"):
        launch.connect_or_start(failing, "s")
    silent = launch.replace(start, command=(sys.executable, "-c", ""))
    with pytest.raises(NoServer, match="status 0: it said nothing"):
        launch.connect_or_start(silent, "s")
    missing = launch.replace(start, command=("/no/such/program",))
    with pytest.raises(NoServer, match="cannot be started with '/no/such/program'"):
        launch.connect_or_start(missing, "s")


def test_a_start_that_is_never_ready_is_ended(start: launch.Start, tmp_path: Path) -> None:
    slow = launch.replace(start, command=(*COMMAND, "--never-ready"), ready_s=1.0)
    with pytest.raises(NoServer, match="not ready within 1 s"):
        launch.connect_or_start(slow, "s")
    for pid in starts(tmp_path):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_private_sidecar_dies_with_its_owner(start: launch.Start, tmp_path: Path) -> None:
    with launch.PrivateSidecar(start, "s") as sidecar:
        assert sidecar.connection.ask(m.Status(), m.Health).live
        pid, base = sidecar.process.pid, Path(sidecar.folder)
        assert base.stat().st_mode & 0o777 == 0o700
    assert sidecar.process.returncode == 0, "it ended by itself, because its pipe did"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not base.exists()
    assert starts(tmp_path) == [], "the shared folder was not touched"


def test_a_private_sidecar_that_does_not_listen_to_its_pipe(
    start: launch.Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_END_S", 0.1)
    with launch.PrivateSidecar(launch.replace(start, command=(*COMMAND, "--deaf")), "s") as sidecar:
        pass
    assert sidecar.process.returncode == -signal.SIGKILL


def test_a_private_sidecar_that_fails_leaves_nothing(
    start: launch.Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch.tempfile, "tempdir", str(tmp_path))
    with pytest.raises(NoServer, match="on fire"):
        launch.PrivateSidecar(launch.replace(start, command=(*COMMAND, "--fail")), "s")
    assert list(tmp_path.iterdir()) == []


def test_the_command_from_the_environment(tmp_path: Path) -> None:
    assert launch.sidecar_command({"HDRGEN_SIDECAR": "'/opt/my python' -m x"}) == ("/opt/my python", "-m", "x")
    with pytest.raises(NoServer, match="hdrgen doctor --install"):
        launch.sidecar_command({"XDG_CONFIG_HOME": str(tmp_path)})
    with pytest.raises(NoServer, match="open quote"):
        launch.sidecar_command({"HDRGEN_SIDECAR": "'x"})


def test_a_lock_has_a_deadline(tmp_path: Path) -> None:
    now = [0.0]
    path = str(tmp_path / "lock")

    def sleep(seconds: float) -> None:
        now[0] += seconds

    held = lock.locked(path, 1.0)
    with held, pytest.raises(ServerTimeout, match="starting"), lock.locked(path, 1.0, lambda: now[0], sleep):
        pass
    assert now[0] >= 1.0
    with lock.locked(path, 1.0):
        pass
    with pytest.raises(StorageError, match="cannot be made"), lock.locked(str(tmp_path / "none" / "lock"), 1.0):
        pass


def test_a_gateway_that_answers_an_old_address_is_not_taken_for_dead(tmp_path: Path) -> None:
    def other(side: Side) -> None:
        side.greet(package="0.0.1")
        side.receive()

    with FakeGateway(tmp_path / "s", other) as gateway:
        folder = tmp_path / "hdrgen"
        folder.mkdir(mode=0o700)
        said = {"address": gateway.address, "pid": os.getpid(), "version": "0.0.1", "token": None}
        (folder / "endpoint.json").write_text(json.dumps(said))
        environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
        with pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}"):
            launch.connect_or_start(launch.Start(("false",), "0.1.0", environment=environment), "s")
        assert parse_address(gateway.address).path
