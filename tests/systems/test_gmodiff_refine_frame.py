"""A frame refined in tiles: the same as in one piece to a bound, untouched where nothing is wrong, cancelled between
tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from refine_cases import TINY, localised, random_initial, random_refiner, stirred
from torch import Tensor

from hdrgen_server.systems.gmodiff.refine.config import RefinerConfig
from hdrgen_server.systems.gmodiff.refine.frame import FrameRefiner
from hdrgen_server.systems.gmodiff.refine.initial import Initial
from hdrgen_server.systems.gmodiff.refine.model import Refiner, mask_weight
from hdrgen_server.systems.gmodiff.refine.tiling import UNTILED, Tiling, gaussian, gaussian_tiles, weights, window
from nuke_hdrgen.wire.errors import Cancelled

SMALL = Tiling(latents=32, latent_overlap=12, pixels=64, pixel_overlap=24)
CPU = torch.device("cpu")


def ignore(done: int, total: int) -> None:
    assert 0 <= done < total


def refine(refiner: Refiner, initial: Initial, tiling: Tiling, step: Callable[[int, int], None] = ignore) -> np.ndarray:
    return FrameRefiner(refiner, initial, tiling, CPU, step).run()


def small_refiner(config: RefinerConfig = TINY) -> Refiner:
    return stirred(random_refiner(config), amount=0.02)


@pytest.mark.parametrize("length", [64, 65, 200, 1088, 1920])
def test_gaussian_weights_add_up_to_one(length: int) -> None:
    tiles = gaussian_tiles(length, 72, 64, 24, 8)
    total = np.zeros((length, 72))
    for tile in tiles:
        assert tile.rows.start % 8 == 0
        assert tile.rows.length <= 64 or len(tiles) == 1
        total[window(tile)] += weights(tile)
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_tiles_are_as_small_as_their_number_allows() -> None:
    tiles = gaussian_tiles(1088, 1920, 512, 96, 64)
    assert {(t.rows.length, t.columns.length) for t in tiles} == {(448, 512)}
    assert len(tiles) == 3 * 5  # of 512 x 512 they would hold 14 % more
    assert gaussian(96).argmax() in {47, 48}
    assert gaussian(96)[0] / gaussian(96).max() < 1e-5


@pytest.mark.parametrize("merge", ["masked", "decoded"])
def test_one_piece_is_the_network_s_own_answer(merge: str) -> None:
    refiner = small_refiner(replace(TINY, merge=merge))
    initial = random_initial(refiner, 64, 48)
    found = refine(refiner, initial, UNTILED)

    def planes(x: np.ndarray) -> Tensor:
        return torch.from_numpy(x).movedim(-1, 0)[None]

    with torch.no_grad():
        pooled = torch.nn.functional.avg_pool2d(torch.from_numpy(initial.pooled_chw)[None], TINY.token // initial.cell)
        expected = refiner(
            planes(initial.gain_hwc),
            planes(initial.mask_hw[..., None]),
            planes(initial.under_hwc),
            refiner.prior(pooled),
        )
    np.testing.assert_allclose(found, expected[0].movedim(0, 2).numpy(), atol=1e-4)


@pytest.mark.parametrize("merge", ["masked", "decoded"])
def test_tiles_agree_with_one_piece(merge: str) -> None:
    refiner = localised(small_refiner(replace(TINY, merge=merge)))
    initial = random_initial(refiner, 90, 71)
    tiled, whole = refine(refiner, initial, SMALL), refine(refiner, initial, UNTILED)
    assert tiled.shape == whole.shape == (90, 71, 3)
    change = np.abs(whole - initial.gain_hwc).max()
    assert change > 1e-3
    assert np.abs(tiled - whole).max() < 0.01 * change


def test_a_reliable_frame_is_not_touched_and_costs_nothing() -> None:
    refiner = small_refiner()
    initial = random_initial(refiner, 96, 96)
    still = replace(initial, mask_hw=np.full((96, 96), 0.1, np.float32))
    work = FrameRefiner(refiner, still, SMALL, CPU, ignore)
    assert work.total == 0
    assert np.array_equal(work.run(), initial.gain_hwc)


def test_only_tiles_that_the_mask_needs_are_computed() -> None:
    refiner = localised(small_refiner())
    initial = random_initial(refiner, 128, 128)
    mask_hw = np.zeros((128, 128), np.float32)
    mask_hw[10:30, 10:30] = 1
    local = FrameRefiner(refiner, replace(initial, mask_hw=mask_hw), SMALL, CPU, ignore)
    everything = FrameRefiner(refiner, replace(initial, mask_hw=np.ones_like(mask_hw)), SMALL, CPU, ignore)
    assert 0 < local.total < everything.total / 2
    found, whole = local.run(), everything.run()
    np.testing.assert_allclose(found[10:30, 10:30], whole[10:30, 10:30], atol=0.02)
    outside = mask_weight(torch.from_numpy(mask_hw), TINY.mask_range).numpy() == 0
    assert np.array_equal(found[outside], initial.gain_hwc[outside])
    assert np.abs(found - initial.gain_hwc).max() > 1e-3


def test_cancel_comes_between_tiles() -> None:
    refiner = small_refiner()
    initial = random_initial(refiner, 96, 96)
    seen: list[int] = []

    def cancel(done: int, total: int) -> None:
        seen.append(done)
        if done == 3:
            raise Cancelled("the job was cancelled")

    with pytest.raises(Cancelled):
        refine(refiner, initial, SMALL, cancel)
    assert seen == [0, 1, 2, 3]


def test_smaller_tiles_keep_room_for_their_overlap() -> None:
    once = Tiling().halved(1)
    assert once == replace(Tiling(), latents=72, pixels=384, keep_bytes=Tiling().keep_bytes // 2)
    assert Tiling().halved(4) == replace(once, latents=64, pixels=192, keep_bytes=Tiling().keep_bytes // 16)
    assert UNTILED.halved(2) == replace(UNTILED, keep_bytes=UNTILED.keep_bytes // 4)
