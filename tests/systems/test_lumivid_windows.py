"""Windows, cuts and the sequence of tokens, without networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lumivid_cases import random_transformer

from hdrgen_server.systems.lumivid.conditioning import sequence, unpack
from hdrgen_server.systems.lumivid.cuts import cuts, difference, segments
from hdrgen_server.systems.lumivid.sampling import euler, noised, seeded_noise
from hdrgen_server.systems.lumivid.shot import Scene, blended, weights_of
from nuke_hdrgen.wire.errors import BadParameter
from nuke_hdrgen.wire.windows import Windows

PLANS = [Windows(9, 4), Windows(17, 8), Windows(9, 0), Windows(10, 5), Windows(1, 0)]


def covering(plan: Windows, index: int, count: int) -> list[int]:
    """The windows that a frame lies in, by trying all."""
    return [
        k
        for k in range(count)
        if plan.exists(k, count) and k * plan.hop <= index < min(count, k * plan.hop + plan.size)
    ]


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("count", [1, 2, 8, 9, 10, 13, 14, 17, 18, 26, 40])
def test_inputs_are_the_frames_of_all_windows_that_a_frame_lies_in(plan, count):
    for index in range(count):
        windows = covering(plan, index, count)
        assert 1 <= len(windows) <= 2
        first, last = windows[0] * plan.hop, min(count, windows[-1] * plan.hop + plan.size)
        assert plan.inputs(index, count) == range(first, last)
        assert plan.start(index) == first
    assert plan.needed(0, count - 1, count) == range(count)


@pytest.mark.parametrize("plan", PLANS[:4])
def test_weights_over_all_windows_are_one(plan):
    for count in (1, 5, 9, 12, 18, 31):
        total = np.zeros(count)
        for k in range(count):
            if plan.exists(k, count):
                length = min(count - k * plan.hop, plan.size)
                weights = weights_of(length, plan, after=plan.exists(k + 1, count), before=k > 0)
                total[k * plan.hop : k * plan.hop + length] += weights
        np.testing.assert_allclose(total, 1)


def test_a_window_that_shares_too_much_is_refused():
    with pytest.raises(BadParameter, match="at most half a window"):
        Windows(9, 5)


def test_a_blend_is_of_each_windows_codes_and_stops():
    frames = [np.full((4, 4, 3), 0.1 + 0.001 * i, np.float32) for i in range(14)]

    def convert(first, codes):
        shape = np.full((len(codes), 4, 4, 3), first, np.float32)
        return Scene(shape, shape * 2, float(first))

    found = list(blended(enumerate(frames), Windows(9, 4), convert))
    assert [one.item for one in found] == list(range(14))
    expected = [0] * 5 + [1, 2, 3, 4] + [5] * 5
    np.testing.assert_allclose([one.hdr_hwc[0, 0, 0] for one in found], expected, rtol=1e-6)
    np.testing.assert_allclose([one.stops for one in found], expected)
    np.testing.assert_allclose([one.round_trip_hwc[0, 0, 0] for one in found], np.multiply(expected, 2), rtol=1e-6)


def picture(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 0.3 + 0.7 * (seed % 2), (6, 8, 3))
    return np.repeat(np.repeat(coarse, 16, axis=0), 16, axis=1).astype(np.float32)


def test_cuts_are_found_and_motion_and_flashes_are_none():
    one, other = picture(0), picture(1)
    assert difference(one, one) == 0
    assert cuts([one, np.roll(one, 6, axis=1), np.roll(one, 12, axis=1)]) == []
    assert cuts([one, np.clip(one * 2.5, 0, 1), one]) == []
    assert cuts([one, one, other, other, one]) == [2, 4]
    assert segments([one, other, one]) == [range(1), range(1, 2), range(2, 3)]
    assert cuts([np.zeros_like(one), np.ones_like(one)]) == []  # flat fields: a fade or a flash, no scene


def test_the_reference_comes_last_clean_and_in_its_own_place():
    rope = random_transformer().rope
    latents, reference = torch.randn(2, 8, 2, 4, 6), torch.randn(2, 8, 2, 2, 3)
    levels = torch.tensor([[0.0, 0.7], [0.3, 0.3]])
    seen = sequence(rope, latents, levels, reference, 24.0, 2.0)
    assert seen.count == 48
    assert seen.tokens.shape == (2, 60, 8)
    torch.testing.assert_close(unpack(seen.tokens[:, :48], (2, 4, 6)), latents)
    torch.testing.assert_close(unpack(seen.tokens[:, 48:], (2, 2, 3)), reference)
    assert (seen.levels[:, 48:] == 0).all()
    torch.testing.assert_close(seen.levels[0, :48], torch.tensor([0.0, 0.7]).repeat_interleave(24))
    own, beside = seen.positions[0, :, :48], seen.positions[0, :, 48:]
    assert own[0].amax() == pytest.approx(9 / 24)  # seconds: the first latent is one frame, the second eight
    assert (own[0, 0].tolist(), beside[1:, 0].tolist()) == ([0.0, pytest.approx(1 / 24)], [[0, 32], [0, 32]])
    assert own[1:].amax(dim=(1, 2)).tolist() == beside[1:].amax(dim=(1, 2)).tolist() == [64.0, 96.0]


def test_euler_follows_a_straight_line_to_its_end_whatever_the_steps():
    clean, noise = torch.randn(1, 2, 1, 3, 3), seeded_noise((1, 2, 1, 3, 3), 4)
    for levels in ([1.0, 0.0], [1.0, 0.9, 0.3, 0.0]):
        found = euler(noised(clean, noise, 1.0), lambda _point, _level: noise - clean, levels)
        torch.testing.assert_close(found, clean)
    torch.testing.assert_close(seeded_noise((3,), 4), seeded_noise((3,), 4))
