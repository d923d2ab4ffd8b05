"""A picture's tiles as a network sees them: slices, blending weights, and the same tiles at a latent's resolution.

It owns that translation of `image.tiles`. It must not know any network.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hdrgen_server.image.tiles import Tile


def window(tile: Tile) -> tuple[slice, slice]:
    """Where a tile lies in (…, H, W)."""
    return slice(tile.rows.start, tile.rows.stop), slice(tile.columns.start, tile.columns.stop)


def blend(tile: Tile) -> npt.NDArray[np.float32]:
    """How much each of a tile's pixels counts, (h, w); over all tiles that is 1 everywhere."""
    return tile.rows.weights[:, None] * tile.columns.weights[None, :]


def weights(tile: Tile, like: Tensor) -> Tensor:
    """The same as a tensor where `like` lies."""
    return torch.from_numpy(blend(tile)).to(like)


def divided(tile: Tile, factor: int) -> Tile:
    """A tile of pixels as its latents, each with the mean weight of its pixels, so that the sums stay 1."""
    rows, columns = (
        type(span)(span.start // factor, span.stop // factor, span.weights.reshape(-1, factor).mean(axis=1))
        for span in (tile.rows, tile.columns)
    )
    return Tile(rows, columns, rows.length, columns.length)
