"""One whole picture through the model: its VAE and its transformer tile by tile, the conditions of the whole.

It owns the order of the tiles and what is held in memory: the picture's codes and latents and one tile's activations.
It must not know colourspaces, plates or files. Codes are (H, W, 3) float32 numpy arrays, SDR (BT.709, BT.1886) going in
and PQ of BT.2020 coming out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hdrgen_server.image.tiles import Tile, pad_to, plan_tiles
from hdrgen_server.networks.tiled import blend, divided, weights, window
from hdrgen_server.systems.lumaflux.config import PATCH
from hdrgen_server.systems.lumaflux.flow import euler, start_of
from hdrgen_server.systems.lumaflux.model import LumaFlux
from hdrgen_server.systems.lumaflux.steering import View
from hdrgen_server.systems.lumaflux.tonefield import Field

Float32 = npt.NDArray[np.float32]
Step = Callable[[int, int], None]
SMALLEST_TILE = 128


@dataclass(frozen=True)
class Tiling:
    """Edges of the VAE's and the transformer's tiles and what neighbours share, in pixels; 0 is the whole picture."""

    vae: int
    vae_overlap: int
    transformer: int
    transformer_overlap: int

    def halved(self, times: int, cell: int) -> Tiling:
        """Tiles of half the edge, `times` over; whole pictures are cut at the largest edge first."""

        def half(edge: int) -> int:
            return max(SMALLEST_TILE, (edge or LARGEST_TILE) >> times) // cell * cell if times else edge

        vae, transformer = half(self.vae), half(self.transformer)
        return Tiling(
            vae, min(self.vae_overlap, vae // 4) if vae else self.vae_overlap,
            transformer, min(self.transformer_overlap, transformer // 4) if transformer else self.transformer_overlap,
        )  # fmt: skip


LARGEST_TILE = 2048
ON_CPU = Tiling(512, 64, 512, 128)
ON_CUDA = Tiling(1024, 128, 2048, 256)


@dataclass(frozen=True)
class Drive:
    """How a picture is converted: Euler steps, tone strength, bridge noise and its seed."""

    steps: int
    strength: float
    noise: float
    seed: int


@dataclass(frozen=True, eq=False)
class Converted:
    """PQ codes of the result, the SDR codes after the VAE alone, and the tone field that was applied."""

    pq_hwc: Float32
    round_trip_hwc: Float32
    field: Field


class FrameConverter:
    """One picture. `step(done, total)` is called before each tile; what it raises (cancel) ends the work."""

    def __init__(self, model: LumaFlux, codes_hwc: Float32, tiling: Tiling, drive: Drive, step: Step) -> None:
        self._model, self._drive, self._step = model, drive, step
        config = model.config
        self._factor = config.vae.factor
        self._size = codes_hwc.shape[0], codes_hwc.shape[1]
        height, width = (-(-length // config.cell) * config.cell for length in self._size)
        self._codes_hwc = pad_to(codes_hwc, height, width)
        self._pixels = plan_tiles(height, width, tiling.vae, tiling.vae_overlap, config.cell)
        edge, overlap = (length // self._factor for length in (tiling.transformer, tiling.transformer_overlap))
        self._latents = plan_tiles(height // self._factor, width // self._factor, edge, overlap, PATCH)
        self._done = 0
        self.total = 3 * len(self._pixels) + drive.steps * len(self._latents)

    @torch.inference_mode()
    def run(self, earlier: Field | None = None, share: float = 0.0) -> Converted:
        """Convert it; the tone field keeps `share` of an earlier frame's."""
        model, drive = self._model, self._drive
        self._step(0, self.total)
        codes = torch.from_numpy(self._codes_hwc).permute(2, 0, 1)[None].to(model.device)
        conditions = model.condition(codes)
        sdr = self._encode(codes)
        generator = torch.Generator().manual_seed(drive.seed)
        noise = torch.randn(sdr.shape, generator=generator).to(sdr)
        views = [_view(tile, conditions.view.grid) for tile in self._latents]
        seen = [conditions.seen(view) for view in views] if len(views) > 1 else [conditions]

        def velocity(point: Tensor, time: float) -> Tensor:
            found = torch.zeros_like(point)
            at = torch.tensor([time], device=point.device)
            for tile, part in zip(self._latents, seen, strict=True):
                self._report()
                place = (..., *window(tile))
                found[place] += model.velocity(part, point[place], at) * weights(tile, point)
            return found

        final = euler(start_of(sdr, noise, drive.noise), velocity, drive.steps)
        field = model.field(conditions, final)
        if earlier is not None:
            field = field.mixed(earlier, share)
        pq_hwc = self._decode(final, lambda codes: model.finish(codes, field, drive.strength))
        round_trip_hwc = self._decode(sdr, lambda codes: codes.clamp(0, 1))
        self._step(self.total, self.total)
        return Converted(pq_hwc, round_trip_hwc, field)

    def _report(self) -> None:
        self._step(self._done, self.total)
        self._done += 1

    def _encode(self, codes: Tensor) -> Tensor:
        shape = (self._model.config.vae.latent_channels, *(length // self._factor for length in codes.shape[2:]))
        latent = torch.zeros(1, *shape, device=codes.device)
        for tile in self._pixels:
            self._report()
            part = divided(tile, self._factor)
            latent[(..., *window(part))] += self._model.encode(codes[(..., *window(tile))]) * weights(part, latent)
        return latent

    def _decode(self, latent: Tensor, finish: Callable[[Tensor], Tensor]) -> Float32:
        height, width = self._size
        found_hwc = np.zeros((*self._codes_hwc.shape[:2], 3), np.float32)
        for tile in self._pixels:
            self._report()
            decoded = finish(self._model.decode(latent[(..., *window(divided(tile, self._factor)))]))
            found_hwc[window(tile)] += decoded[0].permute(1, 2, 0).cpu().numpy() * blend(tile)[..., None]
        return found_hwc[:height, :width]


def _view(tile: Tile, grid: tuple[int, int]) -> View:
    rows, columns = (slice(span.start // PATCH, span.stop // PATCH) for span in (tile.rows, tile.columns))
    return View(grid, rows, columns)
