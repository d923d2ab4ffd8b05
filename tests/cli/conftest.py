"""A user of the command line alone on the machine: own settings, own runtime folder, small pictures."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_user import Run, photograph

from hdrgen_server.cli.main import run


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings, data and the runtime folder in tmp_path; the working folder is tmp_path/work."""
    for name in ("HDRGEN_SERVER", "HDRGEN_DEVICE", "HDRGEN_NAN_POLICY", "OCIO"):
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def sidecar_ends(alone: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The shared sidecar that a command started is ended with the test."""
    monkeypatch.setenv("HDRGEN_DEVICE", "cpu")
    monkeypatch.setenv("HDRGEN_IDLE_EXIT_S", "20")
    yield
    endpoint = Path(os.environ["XDG_RUNTIME_DIR"]) / "hdrgen" / "endpoint.json"
    if not endpoint.is_file():
        return
    pid = json.loads(endpoint.read_text(encoding="utf-8"))["pid"]
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 20
    while endpoint.is_file() and time.monotonic() < deadline:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            break


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C reaches the processes that the test starts: in a script's background job it is ignored, and they inherit
    that.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def hdrgen(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run one command line in this process: (exit status, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def bracket(alone: Path) -> list[Path]:
    """Three small PNGs without EXIF, dark to bright."""
    return [photograph(alone / f"{name}.png", v) for name, v in (("a", 0.3), ("b", 0.6), ("c", 0.9))]
