"""Results on disk: keys, names that are taken, other days' results, and file systems that lag."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import OpenEXR
import pytest

from nuke_hdrgen.wire.errors import StorageError
from tests.host.conftest import ROOT, files


@pytest.fixture
def results(start_nuke):
    start_nuke()
    import nuke_hdrgen.host.results as module

    return module


def write(path: Path, key: str | None, value: float = 1.0, padding: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"type": OpenEXR.scanlineimage, **({} if key is None else {"hdrgen/key": key})}
    header |= {f"aaa/{i}": "x" * 1000 for i in range(padding)}
    OpenEXR.File(header, {"R": np.full((2, 2), value, np.float32)}).write(str(path))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_keys(results, tmp_path: Path) -> None:
    write(tmp_path / "a.exr", "k1")
    write(tmp_path / "long.exr", "k2", padding=200)
    write(tmp_path / "none.exr", None)
    (tmp_path / "empty.exr").touch()
    (tmp_path / "cut.exr").write_bytes((tmp_path / "a.exr").read_bytes()[:100])
    said = {name: results.read_key(str(tmp_path / f"{name}.exr")) for name in ("a", "long", "none", "empty", "cut")}
    assert said == {"a": "k1", "long": "k2", "none": "", "empty": "", "cut": ""}
    assert results.read_key(str(tmp_path / "gone.exr")) is None
    with pytest.raises(StorageError, match="cannot be read"):
        results.read_key(str(tmp_path))


def test_a_name_is_given_once(results, tmp_path: Path) -> None:
    write(tmp_path / "part", "new")
    target = tmp_path / "c" / "d" / "out.0001.exr"
    assert results.adopt(str(tmp_path / "part"), str(target))
    write(tmp_path / "other", "other", 2.0)
    assert not results.adopt(str(tmp_path / "other"), str(target))
    assert results.read_key(str(target)) == "new"
    assert names(target.parent) == ["out.0001.exr"]


def test_without_links_a_copy_is_given_the_name_once(results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    write(tmp_path / "part", "new")
    target = tmp_path / "cache" / "out.0001.exr"
    assert results.adopt(str(tmp_path / "part"), str(target))
    assert not results.adopt(str(tmp_path / "part"), str(target))
    assert names(tmp_path / "cache") == ["out.0001.exr"]


def test_the_same_result_of_other_days_is_found(results, tmp_path: Path) -> None:
    for folder, key in (("p1", "k1"), ("p2", "k2")):
        write(tmp_path / "id" / folder / "out.0001.exr", key)
    wanted = f"{tmp_path}/id/p3/out.0001.exr"
    assert results.same_elsewhere(wanted, "k2") == f"{tmp_path}/id/p2/out.0001.exr"
    assert results.same_elsewhere(wanted, "k3") is None
    assert results.same_elsewhere(f"{tmp_path}/id/p3/out.0002.exr", "k2") is None


def test_carrying_leaves_what_is_made_anew_and_what_is_no_result(results, tmp_path: Path) -> None:
    for frame in (1, 2, 3):
        write(tmp_path / "old" / f"out.{frame:04d}.exr", f"k{frame}")
    (tmp_path / "old" / ".out.0004.exr.77.part").touch()
    (tmp_path / "old" / "notes.txt").touch()
    results.carry(f"{tmp_path}/old/out.####.exr", f"{tmp_path}/new/out.####.exr", {"out.0002.exr"})
    assert names(tmp_path / "new") == ["out.0001.exr", "out.0003.exr"]
    assert results.baked_frames(f"{tmp_path}/new/out.####.exr", ("main",)) == (1, 3)
    assert results.baked_frames(f"{tmp_path}/gone/out.####.exr", ("main",)) == ()


def test_a_late_file_is_waited_for_and_no_longer_than_said(results, tmp_path: Path) -> None:
    now = [0.0]
    path = tmp_path / "out.0001.exr"

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] == 10.0:
            path.touch()

    assert results.wait_for(str(path), 60.0, lambda: now[0], sleep)
    assert now[0] == 10.0
    now[0] = 100.0
    assert not results.wait_for(str(tmp_path / "never.exr"), 60.0, lambda: now[0], sleep)
    assert now[0] == 160.0


def test_a_folder_that_cannot_be_made(results, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="choose another cache_root"):
        results.check_writable(str(tmp_path / "file" / "below"))
    results.check_writable(str(tmp_path / "fine"))
    assert names(tmp_path / "fine") == []


def test_many_writers_of_one_name_leave_one_whole_file(tmp_path: Path) -> None:
    """Processes race for one name; the first wins, none of them tears it, and nothing else stays."""
    for number in range(4):
        write(tmp_path / f"source{number}.exr", f"k{number}", float(number))
    script = (
        "import sys, types; sys.modules['nuke'] = types.ModuleType('nuke'); sys.path.insert(0, sys.argv[1])\n"
        "from nuke_hdrgen.host.results import adopt\n"
        "sys.stdin.read(1); print(adopt(sys.argv[2], sys.argv[3]))"
    )
    target = tmp_path / "cache" / "out.0001.exr"
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(ROOT), str(tmp_path / f"source{number}.exr"), str(target)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for number in range(4)
    ]  # fmt: skip
    won = [racer.communicate("x")[0].strip() for racer in racers]
    assert sorted(won) == ["False", "False", "False", "True"]
    winner = tmp_path / f"source{won.index('True')}.exr"
    assert files(tmp_path / "cache") == {"out.0001.exr": winner.read_bytes()}
