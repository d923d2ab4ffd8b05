"""Where results lie."""

from __future__ import annotations

import pytest

from nuke_hdrgen.bake.paths import frame_path, params8, result_pattern
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
