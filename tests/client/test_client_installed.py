"""The user's file that names the sidecar: where it is, what it must look like, and who may write it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from nuke_hdrgen.client.installed import Installed, read_installed, user_file, write_installed
from nuke_hdrgen.client.launch import sidecar_command
from nuke_hdrgen.wire.errors import NoServer, PermissionRefused, StorageError

INSTALLED = Installed(("/opt/my python/bin/python", "-m", "x"), "1.2.3")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(tmp_path), "HOME": "/nowhere"}


def put(environment: dict[str, str], data: str | bytes) -> Path:
    path = Path(user_file(environment))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("environment", "platform", "place"),
    [
        ({"XDG_CONFIG_HOME": "/c", "HOME": "/h"}, "linux", "/c/hdrgen/sidecar.json"),
        ({"XDG_CONFIG_HOME": "c", "HOME": "/h"}, "linux", "/h/.config/hdrgen/sidecar.json"),
        ({"HOME": "/h"}, "darwin", "/h/Library/Application Support/hdrgen/sidecar.json"),
        ({"HOME": "/h", "APPDATA": "/a"}, "win32", "/a/hdrgen/sidecar.json"),
        ({"HOME": "/h"}, "win32", "/h/AppData/Roaming/hdrgen/sidecar.json"),
    ],
)
def test_the_place_by_platform(environment: dict[str, str], platform: str, place: str) -> None:
    assert user_file(environment, platform) == place


def test_what_was_written_is_read_and_used(environment: dict[str, str]) -> None:
    assert read_installed(environment) is None
    old = os.umask(0o002)
    try:
        path = write_installed(INSTALLED, environment)
    finally:
        os.umask(old)
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    assert [p.name for p in Path(path).parent.iterdir()] == ["sidecar.json"]
    assert read_installed(environment) == INSTALLED
    assert sidecar_command(environment) == INSTALLED.command
    assert sidecar_command({**environment, "HDRGEN_SIDECAR": "other -x"}) == ("other", "-x"), "the variable wins"
    again = Installed(("/other",), "2")
    write_installed(again, environment)
    assert read_installed(environment) == again


@pytest.mark.parametrize(
    "said",
    [
        b"", b"{", b"[]", b"\xff", b"null", "[" * 100_000,
        json.dumps({"command": [], "package": "1"}),
        json.dumps({"command": "python -m x", "package": "1"}),
        json.dumps({"command": ["a", 1], "package": "1"}),
        json.dumps({"command": ["a", ""], "package": "1"}),
        json.dumps({"command": ["a\0b"], "package": "1"}),
        json.dumps({"command": ["a"] * 65, "package": "1"}),
        json.dumps({"command": ["a"]}),
        json.dumps({"command": ["a"], "package": "1", "more": "x" * 70_000}),
    ],
)  # fmt: skip
def test_what_names_no_command_is_refused(environment: dict[str, str], said: str | bytes) -> None:
    path = put(environment, said)
    with pytest.raises(NoServer, match="hdrgen doctor --install") as caught:
        sidecar_command(environment)
    assert str(path) in caught.value.message


def test_a_file_that_others_may_write_is_refused(environment: dict[str, str]) -> None:
    path = Path(write_installed(INSTALLED, environment))
    path.chmod(0o620)
    with pytest.raises(PermissionRefused, match="not yours alone"):
        read_installed(environment)
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(PermissionRefused, match="no file"):
        read_installed(environment)
    path.unlink()
    path.mkdir()
    with pytest.raises(PermissionRefused, match="no file"):
        read_installed(environment)
    path.rmdir()
    path.symlink_to(path)
    with pytest.raises(NoServer, match="cannot be read"):
        read_installed(environment)


def test_a_link_to_a_file_of_ones_own_is_followed(environment: dict[str, str], tmp_path: Path) -> None:
    path = Path(write_installed(INSTALLED, environment))
    path.rename(tmp_path / "dotfiles.json")
    path.symlink_to(tmp_path / "dotfiles.json")
    assert read_installed(environment) == INSTALLED


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(environment: dict[str, str]) -> None:
    os.chown(write_installed(INSTALLED, environment), 12345, -1)
    with pytest.raises(PermissionRefused, match="not yours alone"):
        read_installed(environment)


def test_a_place_that_cannot_be_written(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "hdrgen").write_bytes(b"in the way")
    with pytest.raises(StorageError, match="HDRGEN_SIDECAR"):
        write_installed(INSTALLED, environment)
    assert read_installed(environment) is None
    (tmp_path / "hdrgen").unlink()
    (tmp_path / "hdrgen" / "sidecar.json").mkdir(parents=True)
    with pytest.raises(StorageError):
        write_installed(INSTALLED, environment)
    assert [p.name for p in (tmp_path / "hdrgen").iterdir()] == ["sidecar.json"], "no partial file stays"
