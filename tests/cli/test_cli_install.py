"""`hdrgen doctor --install`: Nuke's client finds and starts the sidecar by what it wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_user import Run

from hdrgen_server import __version__
from hdrgen_server.cli import install
from nuke_hdrgen.client import launch
from nuke_hdrgen.client.installed import Installed, user_file, write_installed


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HDRGEN_SIDECAR", raising=False)


def test_install_writes_what_the_client_reads(hdrgen: Run) -> None:
    assert install.findings(os.environ)[0].do == install.ADVICE
    status, out, err = hdrgen("doctor", "--install")
    assert (status, err) == (0, "")
    assert user_file(os.environ) in out
    assert launch.sidecar_command(os.environ) == (sys.executable, "-m", "hdrgen_server.gateway")
    export = next(line for line in out.splitlines() if "export" in line)
    shown = subprocess.run(
        ["sh", "-c", f"{export}; echo $NUKE_PATH"],
        env={"NUKE_PATH": "/site"},
        capture_output=True,
        text=True,
        check=True,
    )
    folder, site = shown.stdout.strip().split(":")
    assert (Path(folder) / "init.py").is_file()
    assert site == "/site"
    assert [f.level for f in install.findings(os.environ)] == ["ok"]
    record = json.loads(hdrgen("doctor", "--install", "--json")[1])
    assert record["nuke_path"] == folder
    assert record["command"][0] == sys.executable


def test_the_installed_command_starts_a_sidecar(hdrgen: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDRGEN_DEVICE", "cpu")
    assert hdrgen("doctor", "--install")[0] == 0
    start = launch.Start(launch.sidecar_command(os.environ), __version__)
    with launch.PrivateSidecar(start, "s") as sidecar:
        assert sidecar.connection.welcome is not None
        assert sidecar.connection.welcome.package == __version__


def test_the_setting_is_what_is_installed(hdrgen: Run, alone: Path) -> None:
    (alone / "hdrgen.toml").write_text("sidecar = 'sh -c \"exit 3\"'\n", encoding="utf-8")
    assert hdrgen("doctor", "--install")[0] == 0
    program, *rest = launch.sidecar_command(os.environ)
    assert Path(program).is_absolute()
    assert rest == ["-c", "exit 3"]
    for text, words in (("'/nowhere/python'", "cannot be run"), ('"sh \'x"', "open quote")):
        (alone / "hdrgen.toml").write_text(f"sidecar = {text}\n", encoding="utf-8")
        status, _, err = hdrgen("doctor", "--install")
        assert status == 2
        assert words in err


@pytest.mark.parametrize(
    ("installed", "level", "words"),
    [
        (Installed(("/nowhere/python",), __version__), "problem", "cannot be run"),
        (Installed((sys.executable,), "0.0.0"), "warning", "version 0.0.0"),
    ],
)
def test_doctor_looks_at_what_is_installed(installed: Installed, level: str, words: str) -> None:
    path = write_installed(installed, os.environ)
    (found,) = install.findings(os.environ)
    assert (found.level, found.do) == (level, install.ADVICE)
    assert words in found.what
    Path(path).chmod(0o666)
    assert install.findings(os.environ)[0].level == "problem"


def test_the_variable_is_said_to_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDRGEN_SIDECAR", "x")
    assert "HDRGEN_SIDECAR" in install.findings(os.environ)[0].what
