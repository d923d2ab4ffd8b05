"""The merge operator keeps the reference's exposure, finds what nobody saw, and refuses what is no bracket."""

from __future__ import annotations

import itertools
import subprocess
import sys
from types import MappingProxyType

import numpy as np
import pytest

from hdrgen_server.colour.curves import CURVES
from hdrgen_server.colour.interop import colourspace
from hdrgen_server.contracts.frame import Colourspace, Frame
from hdrgen_server.contracts.operator import Request
from hdrgen_server.packs.descriptors import load_descriptor
from hdrgen_server.systems.merge import merge as m
from hdrgen_server.systems.merge.operator import MergeOperator
from nuke_hdrgen.wire.errors import BadInput, UsageError

RNG = np.random.default_rng(11)
LIGHT = np.exp2(RNG.uniform(-7, 1.8, (37, 53, 3))).astype(np.float32)
SRGB = colourspace("srgb_rec709_scene")
LINEAR = colourspace("lin_rec709_scene")


class Quiet:
    def step(self, done: int, total: int, frame: int = 0) -> None:
        pass


def shoot(ev: float, light: np.ndarray = LIGHT) -> np.ndarray:
    codes = CURVES["srgb"].encode(np.clip(light * 2.0**ev, 0, 1).astype(np.float32))
    return (np.rint(codes * 255) / 255).astype(np.float32)


def encoded(ev: float) -> Frame:
    return Frame(shoot(ev), ("R", "G", "B"), SRGB, ev=ev)


def linear(ev: float, level: float = 4.0, **more: object) -> Frame:
    return Frame(np.minimum(LIGHT * np.float32(2.0**ev), level), ("R", "G", "B"), LINEAR, ev=ev, **more)  # type: ignore[arg-type]


def run(frames: list[Frame], aovs: bool = False, **given: object) -> Frame:
    operator = MergeOperator(load_descriptor("merge"))
    request = Request("hdrfuse", operator.descriptor.resolve(given), aovs=aovs)
    (result,) = operator.run(request, frames, Quiet())
    return result


@pytest.mark.parametrize("count", range(2, 8))
def test_any_count_and_any_reference_keep_that_exposure(count: int) -> None:
    evs = [-2.0 + 0.9 * i for i in range(count)]
    for reference in range(count):
        result = run([encoded(ev) for ev in evs], reference=reference)
        ratio = result.pixels / (LIGHT * 2.0 ** evs[reference])
        assert np.median(ratio) == pytest.approx(1.0, abs=0.01)
        assert result.colourspace.interop_id == "lin_rec709_scene"
        assert result.ev == 0.0


def test_the_default_reference_is_the_middle_ev_whatever_the_order() -> None:
    for order in itertools.permutations((-2.0, 0.0, 2.0)):
        assert np.median(run([encoded(ev) for ev in order]).pixels / LIGHT) == pytest.approx(1.0, abs=0.01)


def test_noise_weights_beat_the_triangle() -> None:
    noisy = []
    for ev in (-2.0, 0.0, 2.0):
        x = np.clip(LIGHT * 2.0**ev, 0, 1)
        x = np.clip(x + np.sqrt(2e-4 * x + 1e-6) * RNG.standard_normal(x.shape), 0, 1)
        noisy.append(shoot(0.0, x))
    errors = {}
    for weigh in (m.noise, m.hat):
        merged = m.merge_bracket(noisy, (-2, 0, 2), 1, weigh=weigh).scene_linear_hwc
        errors[weigh.__name__] = float(np.sqrt(np.mean(np.log2((merged + 1e-3) / (LIGHT + 1e-3)) ** 2)))
    assert errors["noise"] < 0.8 * errors["hat"]


def test_clipped_everywhere_takes_the_shortest_and_crushed_everywhere_the_longest() -> None:
    light = np.zeros((2, 2, 3), np.float32)
    light[0] = 50.0
    codes = [shoot(ev, light) for ev in (-2, 0, 2)]
    for weigh in (m.noise, m.hat):
        merged = m.merge_bracket(codes, (-2, 0, 2), 1, weigh=weigh)
        assert merged.scene_linear_hwc[0] == pytest.approx(4.0)
        assert merged.scene_linear_hwc[1] == pytest.approx(0.0, abs=1e-6)
        assert merged.clipped_hwc[0].all()
        assert not merged.clipped_hwc[1].any()
        assert merged.crushed_hwc[1].all()
        assert not merged.crushed_hwc[0].any()


def test_bands_of_rows_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = [shoot(ev) for ev in (-2, 0, 2)]
    whole = m.merge_bracket(codes, (-2, 0, 2), 1)
    monkeypatch.setattr(m, "BAND_ROWS", 5)
    banded = m.merge_bracket(codes, (-2, 0, 2), 1)
    assert np.array_equal(whole.scene_linear_hwc, banded.scene_linear_hwc)
    assert np.array_equal(whole.clipped_hwc, banded.clipped_hwc)


@pytest.mark.parametrize("metadata", [{}, {"clip_level": 4.0}])
def test_linear_frames_merge_below_their_clip_level(metadata: dict[str, float]) -> None:
    frames = [linear(ev, metadata=MappingProxyType(metadata)) for ev in (-2.0, 0.0, 2.0)]
    assert run(frames).pixels == pytest.approx(LIGHT, rel=2e-3)


def test_linear_frames_without_a_clip_are_all_used() -> None:
    frames = [linear(ev, level=1e9) for ev in (-2.0, 0.0, 2.0)]
    assert run(frames).pixels == pytest.approx(LIGHT, rel=1e-4)


def test_primaries_stay_those_of_the_input() -> None:
    acescg = colourspace("lin_ap1_scene")
    red = np.full((4, 4, 3), 0.3, np.float32) * np.array([1, 0, 0], np.float32)
    frames = [Frame(red * np.float32(2.0**ev), ("R", "G", "B"), acescg, ev=ev) for ev in (-1.0, 0.0)]
    result = run(frames, reference=1)
    assert result.colourspace.interop_id == "lin_ap1_scene"
    assert result.pixels == pytest.approx(red, rel=1e-3)


def test_alpha_layers_and_metadata_of_the_reference_come_through() -> None:
    alpha = RNG.random((37, 53, 1)).astype(np.float32)
    depth = RNG.random((37, 53)).astype(np.float16)
    frames = [
        Frame(
            np.concatenate([shoot(ev), alpha if ev == 0 else alpha * 0], axis=2), ("R", "G", "B", "A"), SRGB,
            ev=ev, layers={"depth.Z": depth}, metadata={"camera": "x"},
        )
        for ev in (-2.0, 0.0)
    ]  # fmt: skip
    result = run(frames, aovs=True, reference=1)
    assert result.channels == ("R", "G", "B", "A")
    assert np.array_equal(result.pixels[..., 3:], alpha)
    assert result.layers["depth.Z"] is depth
    assert result.metadata["camera"] == "x"
    expected = (frames[0].rgb >= 250 / 255).any(axis=2) | (frames[1].rgb <= 2 / 255).all(axis=2)
    assert np.array_equal(result.layers["hdrgen.generated"] > 0, expected)


def test_calibration_recovers_an_s_curve() -> None:
    y, x = np.mgrid[0:160, 0:200].astype(np.float32)
    light = np.exp2(-6 + 7 * x / 200 + np.sin(y / 20))[..., None] * np.array([1, 0.8, 0.6], np.float32)
    frames = []
    for ev in (-2.0, 0.0, 2.0):
        c = CURVES["srgb"].encode(np.clip(light * 2.0**ev, 0, 1).astype(np.float32))
        c = c + 0.35 * (c * c * (3 - 2 * c) - c)
        frames.append(Frame((np.rint(c * 255) / 255).astype(np.float32), ("R", "G", "B"), SRGB, ev=ev))
    spread = {}
    for response in ("srgb", "calibrated"):
        stops = np.log2(run(frames, response=response).pixels / light)
        spread[response] = float((stops - np.median(stops))[light < 1.5].std())
    assert spread["calibrated"] < 0.5 * spread["srgb"]


NO_BRACKETS: list[tuple[list[Frame], dict[str, object]]] = [
    ([encoded(0.0)], {}),
    ([], {}),
    ([encoded(0.0), encoded(0.0)], {}),
    ([encoded(0.0), encoded(2.0)], {"reference": 5}),
    ([encoded(0.0), Frame(np.zeros((3, 4, 3), np.float32), ("R", "G", "B"), SRGB, ev=1.0)], {}),
    ([encoded(0.0), linear(1.0)], {}),
    ([encoded(0.0), Frame(np.full_like(LIGHT, np.nan), ("R", "G", "B"), SRGB, ev=1.0)], {}),
    ([encoded(float("nan")), encoded(1.0)], {}),
    ([Frame(LIGHT, ("R", "G", "B"), Colourspace("Raw", range="data"), ev=float(i)) for i in range(2)], {}),
]


@pytest.mark.parametrize("case", range(len(NO_BRACKETS)))
def test_what_is_no_bracket_is_refused_in_one_line(case: int) -> None:
    frames, given = NO_BRACKETS[case]
    with pytest.raises(UsageError) as caught:
        run(frames, **given)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("shapes", "evs", "reference", "words"),
    [
        ([(2, 2)], [0], 0, "2 to 7 frames"),
        ([(2, 2)] * 2, [0], 0, "one EV for each"),
        ([(2, 2), (2, 3)], [0, 1], 0, "3x2"),
        ([(2, 2)] * 2, [0, float("inf")], 0, "frame 1 has no EV"),
        ([(2, 2)] * 2, [1, 1], 0, "equal EVs"),
        ([(2, 2)] * 2, [0, 1], 2, "reference 2"),
    ],
)
def test_the_pure_merge_checks_its_own_input(
    shapes: list[tuple[int, int]], evs: list[float], reference: int, words: str
) -> None:
    with pytest.raises(BadInput, match=words):
        m.merge_bracket([np.zeros((*shape, 3), np.float32) for shape in shapes], evs, reference)


def test_merging_needs_no_torch() -> None:
    code = "import sys, hdrgen_server.systems.merge.operator; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, check=False).returncode
        == 0
    )
