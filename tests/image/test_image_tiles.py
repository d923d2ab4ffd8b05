"""Tiles: exact cover, weights that add up to one, padding, bounded memory, and no seams."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import uniform_filter1d

from hdrgen_server.image.tiles import pad_to, plan_tiles, run_tiled
from nuke_hdrgen.wire.errors import BadParameter, Cancelled

SIZES = st.one_of(st.sampled_from([1, 2, 3, 7, 13, 97, 101, 127]), st.integers(1, 200))


@st.composite
def tilings(draw: st.DrawFn) -> tuple[int, int, int]:
    multiple = draw(st.sampled_from([1, 2, 8, 16]))
    tile = multiple * draw(st.integers(1, 8))
    return tile, draw(st.integers(0, tile // 2)), multiple


@settings(max_examples=200, deadline=None)
@given(SIZES, SIZES, tilings())
def test_weights_add_up_to_one_everywhere(height: int, width: int, tiling: tuple[int, int, int]) -> None:
    tile, overlap, multiple = tiling
    total = np.zeros((height, width), np.float32)
    for item in plan_tiles(height, width, tile, overlap, multiple):
        assert item.padded_height % multiple == 0
        assert item.rows.length <= item.padded_height <= tile
        weight = item.rows.weights[:, None] * item.columns.weights[None, :]
        assert weight.dtype == np.float32
        assert (weight > 0).all()
        total[item.rows.start : item.rows.stop, item.columns.start : item.columns.stop] += weight
    assert np.abs(total - 1.0).max() <= 1e-6


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 300), tilings())
def test_neighbours_share_the_overlap(width: int, tiling: tuple[int, int, int]) -> None:
    tile, overlap, multiple = tiling
    tiles = plan_tiles(1, width, tile, overlap, multiple)
    spans = [item.columns for item in tiles]
    assert spans[0].start == 0
    assert spans[-1].stop == width
    for first, second in pairwise(spans):
        assert first.stop - second.start >= overlap
        assert second.start > first.start


@settings(max_examples=100, deadline=None)
@given(SIZES, SIZES, tilings(), st.integers(0, 2**31))
def test_a_pointwise_function_comes_back_as_if_untiled(
    height: int, width: int, tiling: tuple[int, int, int], seed: int
) -> None:
    tile, overlap, multiple = tiling
    array = np.random.default_rng(seed).random((height, width, 2), np.float32)
    result = run_tiled(lambda part: part[..., :1] * 3.0 + part[..., 1:] + 1.0, array, tile, overlap, multiple)
    np.testing.assert_allclose(result, array[..., :1] * 3.0 + array[..., 1:] + 1.0, rtol=1e-5)


def test_a_local_function_has_no_seam() -> None:
    rows, columns = np.mgrid[0:193, 0:211].astype(np.float32)
    array = (np.sin(rows / 17) + np.cos(columns / 23) + 3.0)[..., None].astype(np.float32)

    def blur(part: np.ndarray) -> np.ndarray:
        return uniform_filter1d(uniform_filter1d(part, 5, axis=0, mode="mirror"), 5, axis=1, mode="mirror")

    tiled, whole = run_tiled(blur, array, 64, 24, 8), blur(array)
    assert np.abs(tiled / whole - 1.0).max() < 2e-3
    jumps = np.abs(np.diff(tiled - whole, axis=1)).max()
    assert jumps < 2e-3


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (3, 4), (2, 17)])
def test_padding_reflects_and_falls_back_to_the_edge(shape: tuple[int, int]) -> None:
    array = np.arange(shape[0] * shape[1], dtype=np.float32).reshape(*shape, 1)
    padded = pad_to(array, 16, 24)
    assert padded.shape == (16, 24, 1)
    assert padded.flags.c_contiguous
    assert np.array_equal(padded[: shape[0], : shape[1]], array)
    assert set(np.unique(padded)) == set(np.unique(array))
    if shape[1] == 5:
        assert padded[0, 5, 0] == array[0, 3, 0]


def test_memory_does_not_grow_with_the_number_of_tiles() -> None:
    array = np.zeros((2048, 512, 3), np.float32)
    tracemalloc.start()
    run_tiled(lambda part: part + 1.0, array, 128, 32)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < array.nbytes * 1.3


def test_every_tile_is_reported_and_cancel_ends_the_run() -> None:
    seen: list[tuple[int, int]] = []
    run_tiled(lambda part: part, np.ones((20, 20, 1), np.float32), 16, 4, on_tile=lambda *s: seen.append(s))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]

    def cancel(done: int, _total: int) -> None:
        if done == 2:
            raise Cancelled("cancelled")

    with pytest.raises(Cancelled):
        run_tiled(lambda part: part, np.ones((20, 20, 1), np.float32), 16, 4, on_tile=cancel)


@pytest.mark.parametrize(
    "arguments", [(0, 4, 8, 0, 1), (4, 4, 8, 5, 1), (4, 4, 9, 0, 8), (4, 4, 8, -1, 1), (4, 4, 8, 0, 0)]
)
def test_plans_that_cannot_be_are_refused(arguments: tuple[int, ...]) -> None:
    with pytest.raises(BadParameter):
        plan_tiles(*arguments)


def test_a_function_that_changes_size_is_named() -> None:
    with pytest.raises(ValueError, match="came back as"):
        run_tiled(lambda part: part[:1], np.ones((4, 4, 1), np.float32), 0, 0)


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 300), tilings())
def test_tiles_start_where_strides_fall_alike_and_pad_to_one_shape(width: int, tiling: tuple[int, int, int]) -> None:
    tile, overlap, multiple = tiling
    tiles = plan_tiles(1, width, tile, overlap, multiple)
    assert len({item.padded_width for item in tiles}) == 1
    if tile - overlap >= multiple:
        assert all(item.columns.start % multiple == 0 for item in tiles)
