"""Tone-mapping operators against their sources' own numbers, and the chain of operator, 8 bits and x264."""

from __future__ import annotations

import math

import numpy as np
import pytest
from panoramas import panorama

from hdrgen_server.colour.curves import CURVES
from hdrgen_server.systems.bt2446.expand import method_a, method_c
from hdrgen_server.training.degradations import CRFS, degrade, through_x264
from hdrgen_server.training.tone_mapping import OPERATORS, tone_map
from hdrgen_server.training.views import View, anchor_exposure, perspective


def grey(nits: np.ndarray) -> np.ndarray:
    return np.asarray(nits, np.float32)[None, :, None].repeat(3, 2)


def shown(operator: str, nits: np.ndarray) -> np.ndarray:
    """Light relative to SDR white, of neutrals."""
    return np.asarray(OPERATORS[operator](grey(nits)))[0, :, 1]


def view(seed: int = 1) -> np.ndarray:
    return anchor_exposure(perspective(panorama(seed), View(20, 0, 0, 70), 64, 96))


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_rises_and_keeps_black(operator: str) -> None:
    nits = np.concatenate([[0], np.geomspace(0.01, 1000, 200)])
    light = shown(operator, nits)
    assert np.isfinite(light).all()
    assert np.diff(light).min() >= -1e-5
    assert abs(light[0]) < 1e-6 or (operator == "youtube_logc" and light[0] == pytest.approx(0.0928, abs=1e-3))
    codes = tone_map(view() * 3, operator)
    assert (codes.dtype, codes.shape, codes.min() >= 0, codes.max() <= 1) == (np.float32, (64, 96, 3), True, True)
    assert codes.std() > 0.02


def test_values_of_the_sources() -> None:
    assert shown("hard_clip_gm", [50, 100, 400]) == pytest.approx([0.5, 1, 4])
    assert shown("reinhard", [100, 1000]) == pytest.approx([0.505, 1.0], abs=1e-6)
    assert shown("gamma_clip", [100, 1000]) == pytest.approx([0.1 ** (1 / 1.4), 1], abs=1e-6)
    # Narkowicz's curve maps 1 to 2.54 / 3.16; LogC3 has 18 % grey at 0.391.
    assert shown("ocio_filmic", [45]) == pytest.approx([2.54 / 3.16], abs=1e-6)
    assert shown("youtube_logc", [18]) == pytest.approx([0.39101], abs=1e-4)
    # BT.2446-1, 4.1: 1000 cd/m2 is SDR white, and so is method C's peak here.
    assert shown("bt2446a", [1000]) == pytest.approx([1], abs=1e-3)
    assert shown("bt2446c_gm", [1000]) == pytest.approx([1], abs=1e-6)
    # BT.2390-10, 5.4.1: the identity below the knee, the target's peak at the source's.
    top, knee = CURVES["pq"].encode(np.array([10.0, 1.0])) / CURVES["pq"].encode(10.0)
    start = float(CURVES["pq"].decode((1.5 * knee - 0.5) * CURVES["pq"].encode(10.0))) * 100
    assert top == 1
    assert shown("bt2390_eetf_gm", [start / 4, start * 0.99]) * 100 == pytest.approx(
        [start / 4, start * 0.99], rel=1e-3
    )
    assert shown("bt2390_eetf_gm", [1000]) == pytest.approx([1], abs=1e-4)


def test_methods_a_and_c_are_undone_by_their_inverses() -> None:
    nits = np.geomspace(2, 900, 40)
    scale = 100 / float(15.09968 * math.log(1000 / (58.5 / 0.83802) - 0.74204) + 78.99439)
    back = method_c(grey(shown("bt2446c_gm", nits) / scale)[0])[:, 1] * 100
    np.testing.assert_allclose(back, nits, rtol=2e-3)
    # The Report's inverse of A is a fit of its own, no exact inverse.
    back = method_a(grey(shown("bt2446a", nits))[0])[:, 1] * 100
    np.testing.assert_allclose(np.log2(back), np.log2(nits), atol=0.45)


def test_luminance_operators_keep_chromaticity() -> None:
    colour = np.array([[[300.0, 120.0, 60.0]]], np.float32)
    for operator in ("bt2446a", "bt2446c_gm", "reinhard"):
        found = OPERATORS[operator](colour)[0, 0]
        np.testing.assert_allclose(found / found[0], colour[0, 0] / 300, rtol=1e-5)


def test_degrade_is_seeded_and_covers_all(monkeypatch: pytest.MonkeyPatch) -> None:
    light = view()
    first, again = (degrade(light, np.random.default_rng(4)) for _ in range(2))
    assert (first.operator, first.crf) == (again.operator, again.crf)
    assert first.codes_hwc.tobytes() == again.codes_hwc.tobytes()
    rng = np.random.default_rng(0)
    small = light[:16, :16]
    drawn = [degrade(small, rng) for _ in range(200)]
    assert {(d.operator, d.crf) for d in drawn} == {(o, c) for o in OPERATORS for c in CRFS}
    others = tuple(o for o in OPERATORS if o != "reinhard")
    assert "reinhard" not in {degrade(small, rng, others).operator for _ in range(30)}


def test_the_codec_is_a_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    codes = np.clip(tone_map(view(), "reinhard") + rng.normal(0, 0.02, (64, 96, 3)), 0, 1).astype(np.float32)
    errors = [float(np.sqrt(np.mean((through_x264(codes, crf) - codes) ** 2))) for crf in (1, *CRFS)]
    assert errors == sorted(errors)
    assert errors[0] < 0.02 < errors[-1] < 0.1
    odd = through_x264(codes[:33, :47], 23)
    assert odd.shape == (33, 47, 3)
    assert np.abs(odd.mean((0, 1)) - codes[:33, :47].mean((0, 1))).max() < 0.02
    for grey_code in (0.0, 0.25, 1.0):
        flat = through_x264(np.full((32, 32, 3), grey_code, np.float32), 23)
        np.testing.assert_allclose(flat, grey_code, atol=0.006)
