"""Where results lie."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuke_hdrgen.bake.paths import frame_path, frames_among, params8, result_pattern
from nuke_hdrgen.wire.errors import BadParameter

SCRIPTS = {"ev1": "-2", "ev2": "{curve x1 0 x50 1}", "pack": "merge"}


def test_params8_is_a_contract_that_never_changes() -> None:
    assert params8(SCRIPTS) == "8f7c826f"
    assert params8(dict(reversed(SCRIPTS.items()))) == params8(SCRIPTS)
    assert params8({**SCRIPTS, "ev2": "{curve x1 0 x50 2}"}) != params8(SCRIPTS)


def test_a_pattern_has_forward_slashes_and_frames_four_digits() -> None:
    pattern = result_pattern("C:\\cache\\", "a1", SCRIPTS)
    assert pattern == f"C:/cache/a1/{params8(SCRIPTS)}/out.####.exr"
    assert [frame_path("out.####.exr", n) for n in (7, 1001, 12345, -5)] == [
        "out.0007.exr", "out.1001.exr", "out.12345.exr", "out.-005.exr",
    ]  # fmt: skip


@pytest.mark.parametrize(("root", "bake_id"), [("", "a"), (" ", "a"), ("/c", ""), ("/c", ".."), ("/c", "a/b")])
def test_what_is_no_place(root: str, bake_id: str) -> None:
    with pytest.raises(BadParameter, match=r"cache_root|bake_id"):
        result_pattern(root, bake_id, SCRIPTS)


def test_views_have_a_file_each() -> None:
    pattern = result_pattern("/c", "a", SCRIPTS, views=2)
    assert pattern.endswith("/out.%V.####.exr")
    assert frame_path(pattern, 12, "left").endswith("/out.left.0012.exr")


@given(st.sets(st.integers(-500, 200_000), max_size=20))
def test_the_frames_of_names_are_those_that_made_them(frames: set[int]) -> None:
    names = [frame_path("out.####.exr", frame) for frame in frames]
    others = [".out.0001.exr.5.part", "out.1.exr", "out.00001.exr", "in.0001.exr", "out.0001.exr.part", "out.####.exr"]
    assert frames_among([*names, *others], "/c/a/b/out.####.exr") == tuple(sorted(frames))


def test_a_frame_is_there_when_every_view_is() -> None:
    names = ["out.left.0001.exr", "out.right.0001.exr", "out.left.0002.exr"]
    assert frames_among(names, "/c/out.%V.####.exr", ("left", "right")) == (1,)
    assert frames_among(names, "/c/out.%V.####.exr", ("left",)) == (1, 2)
    assert frames_among(names, "/c/out.%V.####.exr", ()) == ()
