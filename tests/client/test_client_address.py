"""Addresses, the runtime folder's checks and the endpoint file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from nuke_hdrgen.client import address as a
from nuke_hdrgen.wire.errors import BadParameter, NoServer, PermissionRefused, StorageError


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"XDG_RUNTIME_DIR": str(tmp_path)}


@pytest.fixture
def folder(environment: dict[str, str]) -> Path:
    return Path(a.runtime_folder(environment, create=True))


def put(folder: Path, mode: int = 0o600, text: str | None = None, **changes: object) -> Path:
    said = {"address": "unix:/run/x", "pid": os.getpid(), "version": "0.1.0", "token": "t", **changes}
    path = folder / a.ENDPOINT_NAME
    path.write_text(json.dumps(said) if text is None else text)
    path.chmod(mode)
    return path


def ended_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("text", "address", "shown"),
    [
        ("unix:/run/x", a.Address("/run/x"), "unix:/run/x"),
        ("/run/x", a.Address("/run/x"), "unix:/run/x"),
        ("unix:/" + "x" * 106, a.Address("/" + "x" * 106), "unix:/" + "x" * 106),
        ("tcp:127.0.0.1:80", a.Address(port=80), "tcp:127.0.0.1:80"),
        ("localhost:65535", a.Address(port=65535), "tcp:127.0.0.1:65535"),
    ],
)
def test_forms(text: str, address: a.Address, shown: str) -> None:
    assert a.parse_address(text) == address
    assert str(address) == shown


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("unix:relative", "absolute"),
        ("unix:/a\0b", "absolute"),
        ("/" + "x" * 107, "108 bytes"),
        ("/" + "\u00fc" * 60, "121 bytes"),
        ("tcp:0.0.0.0:80", "not this machine"),
        ("render01:80", "ssh -L"),
        ("tcp:[::1]:80", "not this machine"),
        ("tcp:127.0.0.1:0", "neither"),
        ("tcp:127.0.0.1:65536", "neither"),
        ("127.0.0.1:-1", "neither"),
        ("127.0.0.1:\u0661", "neither"),
        ("80", "neither"),
        ("", "neither"),
    ],
)
def test_refused_forms(text: str, says: str) -> None:
    with pytest.raises(BadParameter, match=says):
        a.parse_address(text)


def test_the_folder_is_private(environment: dict[str, str], folder: Path) -> None:
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    with pytest.raises(PermissionRefused, match="not yours alone"):
        a.runtime_folder(environment)


def test_without_xdg_it_is_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert a.runtime_folder({}) == str(tmp_path / f"hdrgen-{os.getuid()}")
    assert not any(tmp_path.iterdir()), "nothing is made unless asked"
    (tmp_path / f"hdrgen-{os.getuid()}").symlink_to(tmp_path)
    with pytest.raises(PermissionRefused, match="no folder"):
        a.runtime_folder({})


def test_a_file_in_its_place_is_refused(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "hdrgen").write_text("")
    with pytest.raises(PermissionRefused, match="no folder"):
        a.runtime_folder(environment, create=True)
    with pytest.raises(PermissionRefused, match="cannot be looked at"):
        a.runtime_folder({"XDG_RUNTIME_DIR": str(tmp_path / "hdrgen")})
    with pytest.raises(StorageError, match="cannot be made"):
        a.runtime_folder({"XDG_RUNTIME_DIR": str(tmp_path / "hdrgen")}, create=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_users_folder_is_refused(environment: dict[str, str], folder: Path) -> None:
    os.chown(folder, 12345, 12345)
    with pytest.raises(PermissionRefused, match="not yours alone"):
        a.runtime_folder(environment)


def test_the_endpoint_file(environment: dict[str, str], folder: Path) -> None:
    with pytest.raises(NoServer, match="hdrgen serve"):
        a.find_server(None, environment)
    put(folder)
    found = a.find_server(None, environment)
    assert found == a.Endpoint(a.Address("/run/x"), os.getpid(), "0.1.0", "t")
    assert "'t'" not in repr(found)
    assert not found.named
    put(folder, token=None)
    assert a.find_server("", environment).token is None


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "[" * 100000, json.dumps({"address": "unix:/x"})]
    + [
        json.dumps({"address": "unix:/x", "pid": pid, "version": v, "token": t})
        for pid, v, t in ((0, "1", None), ("1", "1", None), (1, None, None), (1, "1", 5), (2**31, "1", None))
    ],
)
def test_an_endpoint_file_of_something_else(folder: Path, text: str) -> None:
    put(folder, text=text)
    with pytest.raises(NoServer, match="does not name a sidecar"):
        a.read_endpoint(str(folder))


def test_an_endpoint_file_that_others_can_write_is_refused(folder: Path) -> None:
    put(folder, mode=0o666)
    with pytest.raises(PermissionRefused):
        a.read_endpoint(str(folder))


def test_an_endpoint_file_that_is_a_link_is_refused(folder: Path, tmp_path: Path) -> None:
    put(folder).rename(tmp_path / "elsewhere")
    (folder / a.ENDPOINT_NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionRefused, match="no file"):
        a.read_endpoint(str(folder))


@pytest.mark.parametrize(("error", "expected"), [(FileNotFoundError(2, "gone"), None), (OSError(5, "I/O"), NoServer)])
def test_an_endpoint_file_that_goes_while_it_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, expected: type[Exception] | None
) -> None:
    put(folder)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(a, "open", fail, raising=False)
    if expected is None:
        assert a.read_endpoint(str(folder)) is None
    else:
        with pytest.raises(expected, match="cannot be read"):
            a.read_endpoint(str(folder))


def test_a_stale_endpoint_file_is_named(environment: dict[str, str], folder: Path) -> None:
    pid = ended_pid()
    put(folder, pid=pid)
    with pytest.raises(NoServer, match=f"pid {pid} has ended"):
        a.find_server(None, environment)


def test_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    here = a.Address("/x")
    assert not a.has_ended(a.Endpoint(here, os.getpid()))
    assert not a.has_ended(a.Endpoint(here, None))

    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert not a.has_ended(a.Endpoint(here, 1))


def test_order_of_addresses(environment: dict[str, str], folder: Path) -> None:
    put(folder, address="127.0.0.1:4000", pid=ended_pid())
    environment["HDRGEN_SERVER"] = "tcp:127.0.0.1:4000"
    assert a.find_server("/run/named", environment) == a.Endpoint(a.Address("/run/named"), named=True)
    assert a.find_server(None, environment) == a.Endpoint(a.Address(port=4000), token="t", named=True)
    assert a.find_server("localhost:4001", environment).token is None
    (folder / a.ENDPOINT_NAME).unlink()
    assert a.find_server(None, environment).token is None
