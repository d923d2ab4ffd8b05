"""Stage two over a whole frame: latents tile by tile, one denoising step tile by tile, decoded tile by tile.

It owns the order of the tiles and what is held in memory: the frame's maps and latents, and one tile's activations. It
must not know brackets, files or how the initial map was made.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hdrgen_server.image.tiles import Tile
from hdrgen_server.systems.gmodiff.refine.initial import Array, Initial
from hdrgen_server.systems.gmodiff.refine.model import Refiner, mask_weight
from hdrgen_server.systems.gmodiff.refine.tiling import (
    Tiling,
    divided,
    gaussian_tiles,
    scaled,
    touches,
    weights,
    window,
)

Step = Callable[[int, int], None]


class FrameRefiner:
    """One frame's refinement. `step(done, total)` is called before each tile; what it raises (cancel) ends the work."""

    def __init__(self, refiner: Refiner, initial: Initial, tiling: Tiling, device: torch.device, step: Step) -> None:
        self._refiner, self._initial, self._device, self._step = refiner, initial, device, step
        self._factor = refiner.config.vae.factor
        self._whole = refiner.config.merge == "decoded"
        self._changed = mask_weight(torch.from_numpy(initial.mask_hw), refiner.config.mask_range).numpy()
        multiple = refiner.multiple
        height, width = (-(-length // multiple) * multiple for length in initial.mask_hw.shape)
        self._size = height, width
        latents = gaussian_tiles(
            height // self._factor, width // self._factor, tiling.latents, tiling.latent_overlap,
            multiple // self._factor,
        )  # fmt: skip
        pixels = gaussian_tiles(height, width, tiling.pixels, tiling.pixel_overlap, multiple)
        self._steps = [tile for tile in latents if self._counts(scaled(tile, self._factor))]
        self._decodes = [tile for tile in pixels if self._counts(tile)]
        wanted = [*(scaled(tile, self._factor) for tile in self._steps), *self._decodes]
        self._encodes = [tile for tile in pixels if any(touches(tile, other) for other in wanted)]
        self._kept: dict[Tile, list[Tensor]] = {}
        self._room = tiling.keep_bytes
        self._done, self.total = 0, len(self._encodes) + len(self._steps) + len(self._decodes)

    @torch.inference_mode()
    def run(self) -> Array:
        """The refined gain map (H, W, 3) in [0, 1]; where the mask leaves nothing to change, the initial one."""
        gain_hwc = self._initial.gain_hwc
        if not self._steps:
            return gain_hwc
        initial, condition = self._encode()
        refined = self._denoise(initial, condition)
        found_hwc = np.zeros((*self._size, 3), np.float32)
        for tile in self._decodes:
            self._report()
            found = self._decode(tile, initial, refined)
            found_hwc[window(tile)] += found[0].movedim(0, 2).float().cpu().numpy() * weights(tile)[..., None]
        found_hwc = found_hwc[: gain_hwc.shape[0], : gain_hwc.shape[1]]
        if not self._whole:
            found_hwc *= self._changed[..., None]
            found_hwc += gain_hwc
        return np.clip(found_hwc, 0, 1, out=found_hwc)

    def _report(self) -> None:
        self._step(self._done, self.total)
        self._done += 1

    def _counts(self, tile: Tile) -> bool:
        """Whether anything of a tile, in pixels, is taken: of unmasked merges all is, else what the mask says."""
        return self._whole or bool(self._changed[window(tile)].any())

    def _encode(self) -> tuple[Tensor, Tensor]:
        """Latents of the gain map and of L0, (1, C, h, w), on the CPU in float32."""
        shape = (self._refiner.config.vae.latent_channels, *(length // self._factor for length in self._size))
        gain, under = torch.zeros(1, *shape), torch.zeros(1, *shape)
        for tile in self._encodes:
            self._report()
            part = divided(tile, self._factor)
            weight = torch.from_numpy(weights(part))
            features = self._refiner.features(self._part(self._initial.gain_hwc, tile))
            gain[(..., *window(part))] += self._refiner.latent(features).float().cpu() * weight
            self._keep(tile, features)
            del features
            latent = self._refiner.condition_latent(self._part(self._initial.under_hwc, tile))
            under[(..., *window(part))] += latent.float().cpu() * weight
        return gain, under

    def _keep(self, tile: Tile, features: list[Tensor]) -> None:
        """Hold on to the encoder's features of a tile that will be decoded, as long as there is room for them."""
        size = sum(feature.nbytes for feature in features)
        if tile in self._decodes and size <= self._room:
            self._kept[tile] = features
            self._room -= size

    def _denoise(self, initial: Tensor, condition: Tensor) -> Tensor:
        """The refined latents: those of the initial map plus what each tile's step changes."""
        refined = initial.clone()
        for tile in self._steps:
            self._report()
            part = (..., *window(tile))
            prior = self._prior(scaled(tile, self._factor))
            found = self._refiner.denoise(self._to(initial[part]), self._to(condition[part]), prior)
            refined[part] += (found.float().cpu() - initial[part]) * torch.from_numpy(weights(tile))
        return refined

    def _decode(self, tile: Tile, initial: Tensor, refined: Tensor) -> Tensor:
        """One tile of the decoded map, or of what changed, (1, 3, h, w)."""
        part = (..., *window(divided(tile, self._factor)))
        features = self._kept.pop(tile, None) or self._refiner.features(self._part(self._initial.gain_hwc, tile))
        prior = self._prior(tile)
        if self._whole:
            return self._refiner.decode(self._to(refined[part]), features, prior)
        return self._refiner.change(self._to(initial[part]), self._to(refined[part]), features, prior)

    def _prior(self, tile: Tile) -> Tensor:
        """c_L of a tile in pixels; the frame's last cells are repeated where the tile reaches beyond it."""
        cell, pooled_chw = self._initial.cell, self._initial.pooled_chw
        rows, columns = (
            np.minimum(np.arange(span.start // cell, span.stop // cell), limit - 1)
            for span, limit in zip((tile.rows, tile.columns), pooled_chw.shape[1:], strict=True)
        )
        cells = torch.from_numpy(pooled_chw[:, rows[:, None], columns[None, :]])
        return self._refiner.embeddings(F.avg_pool2d(self._to(cells[None]), self._refiner.config.token // cell))

    def _part(self, pixels_hwc: Array, tile: Tile) -> Tensor:
        """A tile of a map as (1, 3, h, w), the frame's edge repeated where the tile reaches beyond it."""
        part = torch.from_numpy(pixels_hwc[window(tile)]).movedim(2, 0)[None]
        missing = (0, tile.columns.length - part.shape[3], 0, tile.rows.length - part.shape[2])
        return self._to(F.pad(part, missing, mode="replicate") if any(missing) else part)

    def _to(self, x: Tensor) -> Tensor:
        return x.to(self._device, memory_format=torch.channels_last)
