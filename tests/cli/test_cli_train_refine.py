"""`hdrgen train gmodiff --stage refine` says what it builds on is missing, in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_user import Run

REFINE = ("train", "gmodiff", "--stage", "refine")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*REFINE,), "--base"),
        ((*REFINE, "--base", "."), "--regressor"),
        ((*REFINE, "--size", "xl", "--base", ".", "--regressor", "r"), "gmodiff-refine-s"),
        ((*REFINE, "--base", ".", "--regressor", "r.safetensors", "--pack", "p"), "train first"),
        ((*REFINE, "--base", ".", "--regressor", "r.safetensors", "--data", "."), "config.json"),
        (("train", "gmodiff", "--data", ".", "--group", "3/2"), "K/N"),
        (("train", "gmodiff", "--stage", "all"), "regressor, refine"),
    ],
)
def test_what_is_missing_is_named(hdrgen: Run, bracket: list[Path], arguments: tuple[str, ...], words: str) -> None:
    status, out, err = hdrgen(*arguments)
    assert (status, out) == (2, ""), err
    assert err.startswith("hdrgen: ")
    assert words in err
    assert err.count("\n") == 1
