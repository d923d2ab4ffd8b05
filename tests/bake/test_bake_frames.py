"""Frame ranges in both directions, and the expression of what is baked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuke_hdrgen.bake.frames import baked_expression, format_frames, parse_frames, runs
from nuke_hdrgen.wire.errors import BadParameter

FRAMES = st.sets(st.integers(-2000, 2000), min_size=1, max_size=60)


@pytest.mark.parametrize(
    ("text", "frames"),
    [
        ("5", (5,)),
        ("-3--1", (-3, -2, -1)),
        ("1001-1010x3", (1001, 1004, 1007, 1010)),
        ("1,2 2,  9-10", (1, 2, 9, 10)),
        ("7 1-3", (1, 2, 3, 7)),
    ],
)
def test_what_a_range_means(text: str, frames: tuple[int, ...]) -> None:
    assert parse_frames(text) == frames


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no frame"), (" , ", "no frame"), ("ten", "no frame range"), ("1-", "no frame range"),
        ("10-1", "runs backwards"), ("1-5x0", "runs backwards"), ("1-200000", "more than 100000"),
        ("1-60000 60001-120000", "more than 100000"), ("1.5", "no frame range"), ("1-2-3", "no frame range"),
        ("99999999999", "no frame range"),
    ],
)  # fmt: skip
def test_what_is_no_range(text: str, why: str) -> None:
    with pytest.raises(BadParameter, match=why):
        parse_frames(text)


@given(FRAMES)
def test_a_text_of_frames_reads_back(frames: set[int]) -> None:
    assert parse_frames(format_frames(frames)) == tuple(sorted(frames))


@given(FRAMES)
def test_runs_hold_every_frame_once_and_never_touch(frames: set[int]) -> None:
    found = runs(frames)
    assert [f for first, last in found for f in range(first, last + 1)] == sorted(frames)
    assert all(later[0] > earlier[1] + 1 for earlier, later in zip(found, found[1:], strict=False))


@given(st.text(max_size=40))
def test_any_text_is_frames_or_a_clear_error(text: str) -> None:
    try:
        frames = parse_frames(text)
    except BadParameter as error:
        frames = ()
        line = error.message
    else:
        line = ""
    assert bool(frames) != bool(line)
    assert "\n" not in line


@given(FRAMES, st.integers(-2100, 2100))
def test_the_expression_is_one_on_baked_frames_alone(frames: set[int], frame: int) -> None:
    text = baked_expression(frames).replace("&&", " and ").replace("||", " or ")
    assert bool(eval(text, {"frame": frame})) == (frame in frames)


def test_nothing_baked_is_zero() -> None:
    assert baked_expression(()) == "0"
