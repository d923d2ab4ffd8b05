"""Tasks from knob values: inputs, parameters, seeds and what is refused."""

from __future__ import annotations

import pytest

from nuke_hdrgen.bake.gizmos import GIZMOS, OPERATIONS, gizmo_of
from nuke_hdrgen.bake.plan import (
    SEED_LIMIT,
    Source,
    Value,
    extra_parameters,
    params_scripts,
    plate_of,
    reference_index,
    seed_at,
    task_at,
)
from nuke_hdrgen.wire.errors import BadInput, BadParameter

COMMON: dict[str, Value] = {"pack": "", "quality": "draft", "seed": 7, "parameters": "", "colourspace": "x",
                            "chromaticities": "", "take": 0}  # fmt: skip
BRACKET: dict[str, Value] = {
    **COMMON, "source": "inputs", "exposures": 3, "reference": "middle",
    **{f"ev{number}": float(2 * number - 4) for number in range(1, 8)},
    **{f"offset{number}": number - 1 for number in range(1, 8)},
}  # fmt: skip
PLATE: dict[str, Value] = {**COMMON, "mode": "frame by frame", "encoding": "Rec.1886", "clip_threshold": 245}
PROMPT: dict[str, Value] = {
    **COMMON, "prompt": "noon", "negative_prompt": "", "size_width": 64, "size_height": 32,
    "projection": "panorama", "variation": 1, "strength": 0.6,
}  # fmt: skip


def task(operation: str, values: dict[str, Value], connected=(1, 2, 3), frame: int = 10):
    return task_at(OPERATIONS[operation], values, connected, frame, "main", "Node1")


def test_a_bracket_of_inputs() -> None:
    made = task("hdrfuse", BRACKET)
    assert made.sources == (Source(1, 10, -2.0), Source(2, 10, 0.0), Source(3, 10, 2.0))
    assert made.parameters == {"reference": 1}


def test_unconnected_and_surplus_inputs_are_left_out() -> None:
    made = task("hdrfuse", {**BRACKET, "reference": "3"}, (1, 3, 5))
    assert [source.number for source in made.sources] == [1, 3]
    assert made.parameters == {"reference": 1}


def test_a_bracket_of_frames() -> None:
    made = task("hdrfuse", {**BRACKET, "source": "frames"}, (1,))
    assert made.sources == (Source(1, 10, -2.0), Source(1, 11, 0.0), Source(1, 12, 2.0))


@pytest.mark.parametrize(
    ("evs", "index"), [((0.0, 1.0, 2.0), 1), ((5.0, -1.0, 0.0), 2), ((0.0, 2.0), 0), ((3.0, 1.0, 2.0, 0.0), 1)]
)
def test_the_middle_is_the_middle_ev(evs: tuple[float, ...], index: int) -> None:
    sources = [Source(number, 1, ev) for number, ev in enumerate(evs, start=1)]
    assert reference_index(BRACKET, sources) == index


@pytest.mark.parametrize(
    ("changes", "connected", "plate"),
    [
        ({}, (1, 2, 3), (1, 0)),
        ({"reference": "3"}, (1, 3), (2, 0)),
        ({"source": "frames", "reference": "3"}, (1,), (0, 2)),
        ({"reference": "7"}, (1, 2), (0, 0)),
        ({}, (), (0, 0)),
    ],
)
def test_the_plate_is_the_reference(changes: dict[str, Value], connected, plate: tuple[int, int]) -> None:
    assert plate_of({**BRACKET, **changes}, connected) == plate


def test_a_plate() -> None:
    made = task("sdr2hdr", PLATE, (1,))
    assert made.sources == (Source(1, 10),)
    assert made.parameters == {"clip_threshold": 245, "encoding": "rec1886"}


def test_a_prompt_with_and_without_a_start_picture() -> None:
    alone, started = task("txt2hdr", PROMPT, ()), task("txt2hdr", PROMPT, (1,))
    assert alone.parameters == {
        "prompt": "noon", "negative_prompt": "", "width": 64, "height": 32, "projection": "panorama",
    }  # fmt: skip
    assert started.parameters == {**alone.parameters, "strength": 0.6}
    assert (alone.sources, started.sources) == ((), (Source(1, 10),))


def test_seeds() -> None:
    prompt, plate = OPERATIONS["txt2hdr"], OPERATIONS["sdr2hdr"]
    assert [seed_at(prompt, {**PROMPT, "variation": n}, 5) for n in (1, 2)] == [7, 8]
    assert seed_at(prompt, {**PROMPT, "seed": SEED_LIMIT - 1, "variation": 2}, 5) == 0
    frames = {seed_at(plate, PLATE, frame) for frame in range(100)}
    assert len(frames) == 100
    assert all(0 <= seed < SEED_LIMIT for seed in frames)
    assert {seed_at(plate, {**PLATE, "mode": "shot"}, frame) for frame in range(100)} == {7}


def test_extra_parameters() -> None:
    assert extra_parameters(" a=1  b=1.5 c=true d=x=y e= ") == {"a": 1, "b": 1.5, "c": True, "d": "x=y", "e": ""}
    assert extra_parameters("big=1e999") == {"big": "1e999"}
    assert task("sdr2hdr", {**PLATE, "parameters": "clip_threshold=200"}, (1,)).parameters["clip_threshold"] == 200
    for text in ("alone", "=1"):
        with pytest.raises(BadParameter, match="is not NAME=VALUE"):
            extra_parameters(text)


@pytest.mark.parametrize(
    ("operation", "values", "connected", "error", "line"),
    [
        ("hdrfuse", BRACKET, (1,), BadInput, "Node1 has 1 of 3 exposures connected"),
        ("hdrfuse", {**BRACKET, "exposures": 8}, (1, 2), BadParameter, "exposures is 8"),
        ("hdrfuse", {**BRACKET, "exposures": 1}, (1, 2), BadParameter, "exposures is 1"),
        ("hdrfuse", {**BRACKET, "reference": "2"}, (1, 3), BadParameter, "choose one of 1, 3"),
        ("hdrfuse", {**BRACKET, "source": "frames"}, (2,), BadInput, "nothing in input 1"),
        ("hdrfuse", {**BRACKET, "source": "frames", "offset2": 0}, (1,), BadParameter, "same frame offset"),
        ("sdr2hdr", PLATE, (), BadInput, "has no input"),
        ("sdr2hdr", {**PLATE, "seed": -1}, (1,), BadParameter, "seed is not drawn"),
        ("txt2hdr", {**PROMPT, "prompt": "\n"}, (), BadParameter, "empty prompt"),
    ],
)
def test_what_is_refused(operation, values, connected, error, line) -> None:
    with pytest.raises(error, match=line):
        task(operation, values, connected)


def test_params_scripts_hold_what_decides_a_bake_and_nothing_else() -> None:
    for gizmo in GIZMOS:
        scripts = {name: f"script of {name}" for name in (*gizmo.baked, "gain", "mix", "name")}
        made = params_scripts(gizmo, scripts, (1, 3))
        assert set(made) - {"inputs"} == set(gizmo.baked)
        assert made.get("inputs", "1 3") == "1 3"


def test_which_gizmo_a_node_is() -> None:
    for gizmo in GIZMOS:
        assert gizmo_of({"bake_id", "result_path", gizmo.mark}) is gizmo
    assert gizmo_of({"bake_id", "result_path"}) is None
    assert gizmo_of({"ev1"}) is None
