"""Where stage two's tiles lie, in latents and in pixels, and with which Gaussian weights they are blended.

It owns the plan. It must not know torch, networks or what a tile computes. Gaussian weights of variance 0.01 over
tiles of 96 latents that share 32 are the public code's; fitting the tiles to the frame is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hdrgen_server.image.tiles import Span, Tile, plan_tiles

VARIANCE = 0.01


@dataclass(frozen=True)
class Tiling:
    """Largest tiles and least overlaps: of the UNet in latents, of the VAE in pixels. Size 0 is no tiles.

    `keep_bytes` is how much of the encoder's features may be held from encoding to decoding; other tiles' are made
    twice.
    """

    latents: int = 144
    latent_overlap: int = 32
    pixels: int = 768
    pixel_overlap: int = 96
    keep_bytes: int = 2 << 30

    def halved(self, times: int) -> Tiling:
        """Smaller tiles for less memory; they stay at least twice their overlap."""
        latents, pixels = self.latents >> times, self.pixels >> times
        return Tiling(
            max(latents, 2 * self.latent_overlap) if self.latents else 0,
            self.latent_overlap,
            max(pixels, 2 * self.pixel_overlap) if self.pixels else 0,
            self.pixel_overlap,
            self.keep_bytes >> times,
        )


UNTILED = Tiling(0, 0, 0, 0)
LARGE = Tiling(latents=256, pixels=2048)
"""In one piece up to 2048 pixels: the exact result, where all of a frame is decoded or memory is no matter."""


def gaussian_tiles(height: int, width: int, tile: int, overlap: int, multiple: int) -> list[Tile]:
    """Tiles of at most `tile` that start at multiples of `multiple`, as small as their number allows, row-major.

    Their weights are Gaussians divided by the sum of all, so that they add up to 1 everywhere.
    """
    rows, columns = (_spans(length, tile, overlap, multiple) for length in (height, width))
    return [Tile(row, column, row.length, column.length) for row in rows for column in columns]


def gaussian(length: int) -> npt.NDArray[np.float64]:
    """exp(-x^2 / 2 VARIANCE) at the middle of each of `length` cells of -0.5 to 0.5."""
    x = (np.arange(length) + 0.5) / length - 0.5
    return np.exp(-(x**2) / (2 * VARIANCE))


def scaled(tile: Tile, factor: int) -> Tile:
    """A tile of latents as the pixels that it stands for, without weights."""
    rows, columns = (Span(s.start * factor, s.stop * factor, np.ones(0, np.float32)) for s in (tile.rows, tile.columns))
    return Tile(rows, columns, rows.length, columns.length)


def divided(tile: Tile, factor: int) -> Tile:
    """A tile of pixels as its latents, each with the mean weight of its pixels, so that the sums stay 1."""
    rows, columns = (
        Span(s.start // factor, s.stop // factor, s.weights.reshape(-1, factor).mean(axis=1))
        for s in (tile.rows, tile.columns)
    )
    return Tile(rows, columns, rows.length, columns.length)


def window(tile: Tile) -> tuple[slice, slice]:
    """A tile as two slices."""
    return slice(tile.rows.start, tile.rows.stop), slice(tile.columns.start, tile.columns.stop)


def weights(tile: Tile) -> npt.NDArray[np.float32]:
    """A tile's weights, (rows, columns)."""
    return tile.rows.weights[:, None] * tile.columns.weights[None, :]


def touches(first: Tile, second: Tile) -> bool:
    """Whether two tiles of one frame share a pixel."""
    return all(
        a.start < b.stop and b.start < a.stop for a, b in ((first.rows, second.rows), (first.columns, second.columns))
    )


def _spans(length: int, tile: int, overlap: int, multiple: int) -> list[Span]:
    if tile == 0 or length <= tile:
        return [Span(0, length, np.ones(length, np.float32))]
    tile = max(tile // multiple * multiple, multiple)
    count = len(_even(length, tile, overlap, multiple))
    fitted = -(-(length + (count - 1) * overlap) // count)
    fitted = min(tile, -(-fitted // multiple) * multiple)
    spans = _even(length, fitted, overlap, multiple)
    if len(spans) != count:
        spans = _even(length, tile, overlap, multiple)
    total = np.zeros(length)
    for span in spans:
        total[span.start : span.stop] += gaussian(span.length)
    return [Span(s.start, s.stop, (gaussian(s.length) / total[s.start : s.stop]).astype(np.float32)) for s in spans]


def _even(length: int, tile: int, overlap: int, multiple: int) -> list[Span]:
    return [tile.rows for tile in plan_tiles(length, 1, tile, min(overlap, tile // 2), multiple)]
