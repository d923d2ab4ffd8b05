"""Sequence patterns: what they mean on disk and which names results get."""

from __future__ import annotations

from pathlib import Path

import pytest

from hdrgen_server.image.sequence import find_sequence, frame_path, is_pattern
from nuke_hdrgen.wire.errors import BadInput, BadParameter


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in (1, 2, 3, 10):
        (tmp_path / f"in.{number:04d}.png").touch()
    (tmp_path / "in.7.png").touch()
    (tmp_path / "other.0001.png").touch()
    (tmp_path / "in.0005.jpg").touch()
    return tmp_path


@pytest.mark.parametrize("name", ["in.####.png", "in.%04d.png", "in.@@@@.png", "in.#.png"])
def test_every_notation_finds_the_same_frames(folder: Path, name: str) -> None:
    found = find_sequence(folder / name)
    assert found.frames == (1, 2, 3, 10)
    assert found.pattern == str(folder / "in.####.png")
    assert found.path(10) == folder / "in.0010.png"


@pytest.mark.parametrize("name", ["in.1-3#.png", "in.1-3####.png", "in.1-3%04d.png", "in.3,1,2####.png"])
def test_a_stated_range_is_taken_in_order(folder: Path, name: str) -> None:
    assert find_sequence(folder / name).frames == (1, 2, 3)


def test_a_stated_frame_that_is_missing_is_named(folder: Path) -> None:
    with pytest.raises(BadInput, match=r"has no frame 4 \(6 of 10 are missing\)"):
        find_sequence(folder / "in.1-10####.png")


def test_nothing_on_disk_is_bad_input(folder: Path) -> None:
    for name in ("no.####.png", "in.######.png", "missing/in.####.png"):
        with pytest.raises(BadInput, match="no file matches"):
            find_sequence(folder / name)


def test_names_without_a_token_are_no_patterns(tmp_path: Path) -> None:
    assert not is_pattern("shot_v02.mov")
    assert not is_pattern("in.0007.png")
    assert not is_pattern("folder.####/in.png")
    for call in (find_sequence, lambda name: frame_path(name, 1)):
        with pytest.raises(BadParameter, match="names one file"):
            call(str(tmp_path / "in.0007.png"))


@pytest.mark.parametrize(
    ("pattern", "frame", "name"),
    [
        ("out.####.exr", 7, "out.0007.exr"),
        ("out.%04d.exr", 12345, "out.12345.exr"),
        ("out.%d.exr", 12, "out.12.exr"),
        ("out.#.exr", 12, "out.0012.exr"),
        ("out.##.exr", 3, "out.03.exr"),
        ("a.b/out_####.exr", 0, "a.b/out_0000.exr"),
        ("out.####.exr", -5, "out.-005.exr"),
    ],
)
def test_result_names(pattern: str, frame: int, name: str) -> None:
    assert frame_path(pattern, frame) == Path(name)


def test_negative_frames_are_found_again(tmp_path: Path) -> None:
    frame_path(tmp_path / "a.####.exr", -5).touch()
    frame_path(tmp_path / "a.####.exr", 3).touch()
    assert find_sequence(tmp_path / "a.####.exr").frames == (-5, 3)
