"""`--frames`: what is a range of frames, and which of a shot's frames it asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdrgen_server.cli.ranges import chosen, parse_range
from nuke_hdrgen.wire.errors import BadParameter

NUMBERS = st.integers(-999_999_999, 999_999_999)


@given(NUMBERS, NUMBERS, st.sampled_from(["", " "]))
def test_two_numbers_are_a_range_one_way_round(a, b, space):
    low, high = sorted((a, b))
    assert parse_range(f"{space}{low}-{high}{space}") == (low, high)
    assert parse_range(str(a)) == (a, a)
    if low != high:
        with pytest.raises(BadParameter, match=f"write {low}-{high}$"):
            parse_range(f"{high}-{low}")


@given(st.text(st.sampled_from("0123456789-,:x. ٣") | st.characters(), max_size=14))
def test_any_text_is_a_range_or_refused_in_one_line(text):
    try:
        first, last = parse_range(text)
        said = f"{first}-{last}"
    except BadParameter as error:
        first, last, said = 0, 0, error.message
    else:
        assert parse_range(said) == (first, last)
    assert first <= last
    assert "\n" not in said


@pytest.mark.parametrize(
    "text", ["", "-", "a", "1-", "1--", "1,2", "1-10x2", "1-3,5", "1:4", "1.5", "٣", "1" * 10, "1-2-3"]
)
def test_what_is_no_range_is_named(text):
    with pytest.raises(BadParameter, match="is no range of frames; write A-B"):
        parse_range(text)


@given(st.sets(st.integers(-50, 50), min_size=1), st.data())
def test_a_shots_frames_are_chosen_in_order(numbers, data):
    ordered = tuple(sorted(numbers))
    first, last = sorted(data.draw(st.tuples(st.sampled_from(ordered), st.sampled_from(ordered))))
    found = chosen(f"{first}-{last}", ordered, "in.####.png")
    assert found == ordered[ordered.index(first) : ordered.index(last) + 1]


@pytest.mark.parametrize(
    ("text", "numbers", "said"),
    [
        ("5-12", range(1, 11), "in has no frame 12; it has 1 to 10$"),
        ("0-3", range(1, 11), "in has no frame 0; it has 1 to 10$"),
        ("1-4", (1, 2, 3, 7), "in has no frame 4; it has 1 to 7, 3 of them missing$"),
        ("1", (0,), "in has no frame 1; it has frame 0 alone$"),
    ],
)
def test_what_is_outside_the_shot_is_named(text, numbers, said):
    with pytest.raises(BadParameter, match=said):
        chosen(text, tuple(numbers), "in")
