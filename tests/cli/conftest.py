"""A user of the command line alone on the machine: own settings, own runtime folder, small pictures."""

from __future__ import annotations

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
