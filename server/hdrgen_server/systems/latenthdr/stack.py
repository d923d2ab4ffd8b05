"""One picture's stack of exposures: base latent in, exposures out, decoded in batches within a bound of memory.

It owns the order of batches and tiles, progress and cancel between them, and the wrap of panoramas. It must not know
plates, prompts, merging or files. Pictures are (H, W, 3) float32 numpy arrays nominally in [-1, 1], codes in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hdrgen_server.image.tiles import Tile, pad_to, plan_tiles
from hdrgen_server.networks.tiled import blend, divided, weights, window
from hdrgen_server.systems.latenthdr.head import ExposureHead
from hdrgen_server.systems.latenthdr.spaces import LatentSpace
from hdrgen_server.systems.qwenlog.frame import Tiling
from hdrgen_server.systems.qwenlog.model import wrap_of, wrapped

Float32 = npt.NDArray[np.float32]
Step = Callable[[int, int], None]
BATCH_PIXELS = 512 * 512
"""Pixels that the decoder works on at once, at least one tile: more than one exposure only where tiles are smaller."""


@dataclass(frozen=True)
class Exposed:
    """One exposure: its EV and codes, (H, W, 3), as decoded."""

    ev: float
    codes_hwc: Float32


class StackMaker:
    """One picture of `height` x `width`. `step(done, total)` is called before each tile of a batch; what it raises
    (cancel) ends the work. `passes` is how often `encode` and `decode` will be called beside the stack.
    """

    def __init__(
        self,
        head: ExposureHead,
        space: LatentSpace,
        size: tuple[int, int],
        evs: Sequence[float],
        tiling: Tiling,
        step: Step,
        *,
        passes: int = 0,
        panorama: bool = False,
    ) -> None:
        self._head, self._space, self._size, self._evs, self._step = head, space, size, tuple(evs), step
        factor = space.factor
        self._height, self._width = (-(-length // factor) * factor for length in size)
        self._panorama = panorama
        self._wrap = wrap_of(self._width // factor) if panorama else 0
        wide = self._width + 2 * self._wrap * factor
        self._tiles = plan_tiles(self._height, wide, tiling.edge, tiling.overlap, factor)
        largest = max(tile.rows.length * tile.columns.length for tile in self._tiles)
        self._batch = max(1, BATCH_PIXELS // largest)
        batches = -(-len(self._evs) // self._batch)
        self._done, self.total = 0, (passes + batches) * len(self._tiles)

    def encode(self, picture_hwc: Float32) -> Tensor:
        """The latent (1, C, h, w) of a picture; what its size lacks of whole latents is reflected."""
        factor, by = self._space.factor, self._wrap
        whole = pad_to(picture_hwc, self._height, self._width)
        planes = torch.from_numpy(whole).permute(2, 0, 1)[None].to(self._space.device)
        picture = wrapped(planes, by * factor)
        rows, columns = picture.shape[2] // factor, picture.shape[3] // factor
        latent = torch.zeros(1, self._space.channels, rows, columns, device=picture.device)
        for tile in self._tiles:
            self._report()
            part = divided(tile, factor)
            latent[(..., *window(part))] += self._space.encode(picture[(..., *window(tile))]) * weights(part, latent)
        return latent[..., by : columns - by]

    def decode(self, latents: Tensor) -> Float32:
        """The pictures (B, H, W, 3) of latents (B, C, h, w)."""
        by = self._wrap * self._space.factor
        seen = wrapped(latents, self._wrap)
        found = np.zeros((len(latents), self._height, self._width + 2 * by, 3), np.float32)
        for tile in self._tiles:
            self._report()
            decoded = self._space.decode(seen[(..., *window(self._latents(tile)))])
            rows, columns = window(tile)
            found[:, rows, columns] += decoded.permute(0, 2, 3, 1).cpu().numpy() * blend(tile)[None, ..., None]
        height, width = self._size
        return found[:, :height, by : by + width]

    @torch.inference_mode()
    def stack(self, base: Tensor) -> Iterator[Exposed]:
        """The exposures of a base latent (1, C, h, w), in the order of their EVs."""
        for first in range(0, len(self._evs), self._batch):
            evs = self._evs[first : first + self._batch]
            at = torch.tensor(evs, device=base.device)
            latents = self._head(base.expand(len(evs), -1, -1, -1), at, around=self._panorama)
            pictures = self.decode(latents)
            for ev, picture_hwc in zip(evs, pictures, strict=True):
                yield Exposed(ev, (picture_hwc + 1) / 2)

    def finished(self) -> None:
        """Report the end."""
        self._step(self.total, self.total)

    def _report(self) -> None:
        self._step(self._done, self.total)
        self._done += 1

    def _latents(self, tile: Tile) -> Tile:
        return divided(tile, self._space.factor)
