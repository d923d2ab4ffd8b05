"""`hdrgen cache`: what it lists, and that pruning removes only what it said, and nothing that is not ours."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from cli_user import Run

from hdrgen_server.cli import cache_prune, cache_scan
from hdrgen_server.contracts.frame import Colourspace, Frame
from hdrgen_server.image.exr import write_exr

DAY = 86400.0
PIXELS = np.ones((4, 6, 3), np.float32)
ATTRIBUTES = {"hdrgen/operation": "hdrfuse", "hdrgen/pack": "merge", "hdrgen/seed": "7"}


def bake(root: Path, name: str, files: tuple[str, ...], age_s: float = 0.0) -> Path:
    """Results of a node as a bake leaves them, last touched `age_s` ago."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    frame = Frame(PIXELS, ("R", "G", "B"), Colourspace("lin_rec709_scene", "lin_rec709_scene"))
    for file in files:
        write_exr(frame, folder / file, attributes=ATTRIBUTES)
    aged(folder, age_s)
    return folder


def aged(folder: Path, age_s: float) -> None:
    when = time.time() - age_s
    for path in (*folder.iterdir(), folder):
        os.utime(path, (when, when))


def tree(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


@pytest.fixture
def root(alone: Path) -> Path:
    """An old bake, a new one of the same node, and one with views of a node that no script names."""
    folder = alone / "hdrgen_cache"
    bake(folder, "a1b2c3/00000001", ("out.1001.exr", "out.1002.exr", "out.1004.exr"), 40 * DAY)
    bake(folder, "a1b2c3/00000002", ("out.1001.exr",))
    bake(folder, "ffff/00000003", ("out.left.0001.exr", "out.right.0001.exr"), 2 * DAY)
    scripts = alone / "shots" / "deep"
    scripts.mkdir(parents=True)
    text = f"HDRFuse {{\n bake_id a1b2c3\n result_path {folder}/a1b2c3/00000002/out.####.exr\n}}\n"
    (scripts / "comp_v1.nk~").write_text(text, encoding="utf-8")
    (scripts / "notes.txt").write_text("ffff", encoding="utf-8")
    return folder


def test_list_says_what_made_a_bake_and_who_reads_it(hdrgen: Run, root: Path) -> None:
    listed = json.loads(hdrgen("cache", "list", root, root, "--scripts", "shots", "--json")[1])["bakes"]
    assert [(b["bake_id"], b["params"], b["frames"], b["views"]) for b in listed] == [
        ("a1b2c3", "00000001", "1001-1002,1004", []),
        ("a1b2c3", "00000002", "1001", []),
        ("ffff", "00000003", "1", ["left", "right"]),
    ]
    assert {(b["operation"], b["pack"], b["seed"]) for b in listed} == {("hdrfuse", "merge", "7")}
    assert listed[1]["bytes"] == (root / "a1b2c3/00000002/out.1001.exr").stat().st_size
    assert [len(b["scripts"]) for b in listed] == [0, 1, 0]
    assert [len(b["scripts_of_id"]) for b in listed] == [1, 1, 0]
    status, out, err = hdrgen("cache", "list", root, "--scripts", "shots")
    assert (status, err) == (0, "")
    assert "(comp_v1.nk~)" in out
    assert "bakes: 3" in out


@pytest.mark.parametrize(
    ("arguments", "gone"),
    [
        (("--older-than", "30d"), {"a1b2c3/00000001"}),
        (("--older-than", "24h"), {"a1b2c3/00000001", "ffff/00000003"}),
        (("--unreferenced", "--scripts", "shots"), {"ffff/00000003"}),
        (("--unreferenced", "--scripts", "shots", "--older-than", "1w"), set[str]()),
        (("--older-than", "0h"), {"a1b2c3/00000001", "ffff/00000003"}),
        (("--older-than", "0h", "--recent"), {"a1b2c3/00000001", "a1b2c3/00000002", "ffff/00000003"}),
    ],
)
def test_prune_says_first_and_then_removes_just_that(
    hdrgen: Run, root: Path, arguments: tuple[str, ...], gone: set[str]
) -> None:
    before = tree(root)
    said = json.loads(hdrgen("cache", "prune", root, *arguments, "--json")[1])
    assert {f"{b['bake_id']}/{b['params']}" for b in said["bakes"]} == gone
    assert said["removed"] is False
    assert tree(root) == before
    status, out, _ = hdrgen("cache", "prune", root, *arguments, "--yes")
    assert status == 0
    assert (f"removed {said['files']} files" if gone else "nothing to remove") in out
    assert tree(root) == [name for name in before if not name.startswith(tuple(gone))]
    assert (root / "ffff").exists() is ("ffff/00000003" not in gone), "an empty folder goes too"


def test_what_is_not_ours_stays(hdrgen: Run, root: Path, alone: Path) -> None:
    outside = bake(alone / "elsewhere", "cccc/00000009", ("out.0001.exr",), 40 * DAY)
    (root / "linked").symlink_to(alone / "elsewhere" / "cccc")
    old = root / "a1b2c3" / "00000001"
    (old / "out.0009.exr").symlink_to(outside / "out.0001.exr")
    (old / "plate.1001.exr").write_bytes(b"somebody's")
    (old / "out.1003.exr").mkdir()
    (root / "a1b2c3" / "thumbs").mkdir()
    (root / "a1b2c3" / "thumbs" / "out.0001.exr").write_bytes(b"no bake")
    aged(old, 40 * DAY)
    status, out, _ = hdrgen("cache", "prune", root, "--older-than", "30d", "--yes")
    assert status == 0
    assert "3 other files stay there" in out
    assert (outside / "out.0001.exr").is_file()
    assert (root / "linked").is_symlink()
    assert tree(root) == [
        "a1b2c3/00000001/out.0009.exr", "a1b2c3/00000001/plate.1001.exr", "a1b2c3/00000002/out.1001.exr",
        "a1b2c3/thumbs/out.0001.exr", "ffff/00000003/out.left.0001.exr", "ffff/00000003/out.right.0001.exr",
    ]  # fmt: skip


def test_what_killed_renders_left(hdrgen: Run, root: Path) -> None:
    kept = root / "a1b2c3" / "00000002"
    old, new = kept / ".out.1001.exr.123.456.part", kept / ".out.1002.exr.k3_x.part"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    assert "killed renders" in hdrgen("cache", "list", root)[2]
    assert hdrgen("cache", "prune", root, "--older-than", "99w", "--yes")[0] == 0
    assert (old.exists(), new.exists()) == (False, True)
    assert (kept / "out.1001.exr").is_file()


def test_a_file_that_changed_since_it_was_looked_at_stays(root: Path) -> None:
    removals = cache_prune.choose(cache_scan.scan(root), cache_prune.Criteria(30 * DAY), time.time())
    again = root / "a1b2c3" / "00000001" / "out.1002.exr"
    again.unlink()
    again.write_bytes(b"baked again")
    assert cache_prune.remove(removals)[0] == 2
    assert again.read_bytes() == b"baked again"


def test_content_that_keeps_another_name_gives_nothing_back(hdrgen: Run, root: Path) -> None:
    old = root / "a1b2c3" / "00000001"
    size = (old / "out.1001.exr").stat().st_size
    total = json.loads(hdrgen("cache", "list", root, "--json")[1])["bytes"]
    new = root / "a1b2c3" / "00000004"
    new.mkdir()
    (new / "out.1001.exr").hardlink_to(old / "out.1001.exr")
    assert json.loads(hdrgen("cache", "list", root, "--json")[1])["bytes"] == total
    for yes in ((), ("--yes",)):
        told = json.loads(hdrgen("cache", "prune", root, "--older-than", "30d", *yes, "--json")[1])
        assert (told["files"], told["bytes"]) == (3, 2 * size), yes
    told = json.loads(hdrgen("cache", "prune", root, "--older-than", "0h", "--recent", "--json")[1])
    assert told["bytes"] == total - 2 * size


def test_a_folder_that_became_a_link_is_not_followed(root: Path, alone: Path) -> None:
    outside = bake(alone / "elsewhere", "00000001", ("out.1001.exr",), 40 * DAY)
    removals = cache_prune.choose(cache_scan.scan(root), cache_prune.Criteria(30 * DAY), time.time())
    (root / "a1b2c3").rename(alone / "moved")
    (root / "a1b2c3").symlink_to(outside.parent)
    with pytest.raises(cache_prune.StorageError, match="could not be emptied"):
        cache_prune.remove(removals)
    assert tree(outside) == ["out.1001.exr"]


def test_a_damaged_result_is_listed_with_its_problem(hdrgen: Run, root: Path) -> None:
    (root / "a1b2c3" / "00000002" / "out.1001.exr").write_bytes(b"")
    status, out, err = hdrgen("cache", "list", root)
    assert status == 0
    assert "a1b2c3/00000002" in out
    assert "cannot read" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("list", "nowhere"), "no folder"),
        (("prune", "hdrgen_cache"), "--older-than AGE or --unreferenced"),
        (("prune", "hdrgen_cache", "--unreferenced"), "go together"),
        (("prune", "hdrgen_cache", "--older-than", "30d", "--scripts", "shots"), "go together"),
        (("prune", "hdrgen_cache", "--older-than", "month"), "no age"),
        (("prune", "hdrgen_cache", "--unreferenced", "--scripts", "nowhere"), "neither a folder nor a script"),
        (("prune", "hdrgen_cache", "--unreferenced", "--scripts", "hdrgen_cache"), "no .nk file"),
    ],
)
def test_what_is_wrong_is_one_line(hdrgen: Run, root: Path, arguments: tuple[str, ...], words: str) -> None:
    before = tree(root)
    status, _, err = hdrgen("cache", *arguments, "--json")
    assert (status, err.count("\n")) == (2, 1)
    assert words in err
    assert tree(root) == before


def test_a_script_that_cannot_be_read_stops_the_pruning(hdrgen: Run, root: Path, alone: Path) -> None:
    (alone / "shots" / "lost.nk").symlink_to(alone / "gone.nk")
    status, _, err = hdrgen("cache", "prune", root, "--unreferenced", "--scripts", "shots", "--yes")
    assert status == 2
    assert "lost.nk" in err
    assert (root / "ffff").is_dir()
