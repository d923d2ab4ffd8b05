"""One whole picture out of noise, or out of a start picture: the steps, and the VAE tile by tile.

It owns the order of the work and what is held in memory. It must not know colourspaces, curves, requests or files.
Pictures are (H, W, C) float32 numpy arrays nominally in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hdrgen_server.image.tiles import Tile, plan_tiles
from hdrgen_server.networks.tiled import blend, divided, weights, window
from hdrgen_server.systems.qwenlog.config import PATCH
from hdrgen_server.systems.qwenlog.flow import euler, guided, levels, noised, seeded_noise, started
from hdrgen_server.systems.qwenlog.model import QwenImage, wrap_of, wrapped

Float32 = npt.NDArray[np.float32]
Step = Callable[[int, int], None]
SMALLEST_TILE = 128
TURN = 0.618
"""Of a panorama's width, from step to step: the golden section comes back to no place soon."""


@dataclass(frozen=True)
class Tiling:
    """Edge of the VAE's tiles and what neighbours share, in pixels; the transformer sees the whole picture."""

    edge: int
    overlap: int

    def halved(self, times: int, cell: int) -> Tiling:
        """Tiles of half the edge, `times` over."""
        edge = max(SMALLEST_TILE, self.edge >> times) // cell * cell
        return replace(self, edge=edge, overlap=min(self.overlap, edge // 4 // cell * cell))


ON_CPU = Tiling(512, 128)
ON_CUDA = Tiling(1024, 128)


@dataclass(frozen=True)
class Drive:
    """What is asked of one picture: Euler steps, guidance (1 for none), seed, and whether it goes all around."""

    width: int
    height: int
    steps: int
    guidance: float
    seed: int
    panorama: bool = False


@dataclass(frozen=True, eq=False)
class Prompts:
    """The tokens, (T, width) each, of what is wanted and of what is to be avoided."""

    wanted: Tensor
    unwanted: Tensor


class PictureMaker:
    """One picture. `step(done, total)` is called before each step and tile; what it raises (cancel) ends the work."""

    def __init__(self, model: QwenImage, drive: Drive, tiling: Tiling, step: Step) -> None:
        self._model, self._drive, self._step = model, drive, step
        factor = model.config.vae.factor
        self._size = drive.height // factor, drive.width // factor
        self._wrap = wrap_of(self._size[1]) if drive.panorama else 0
        width = drive.width + 2 * self._wrap * factor
        self._tiles = plan_tiles(drive.height, width, tiling.edge, tiling.overlap, factor)
        self._marks = levels(model.config.flow, drive.steps, self._size[0] * self._size[1] // PATCH**2)
        self._done, self._total = 0, 0

    def run(self, prompts: Prompts, start_hwc: Float32 | None = None, strength: float = 1.0) -> Float32:
        """The picture; with a start picture of the same size, `strength` of the steps begin from it."""
        self._total = len(self._tiles)
        picture_hwc = self._decode(self._drawn(prompts, start_hwc, strength))
        self._step(self._total, self._total)
        return picture_hwc

    def latents(self, prompts: Prompts, start_hwc: Float32 | None = None, strength: float = 1.0) -> Tensor:
        """The same picture as latents (1, C, h, w), for who decodes them otherwise; at strength 0 the start's own."""
        return self._drawn(prompts, start_hwc, strength)

    @torch.inference_mode()
    def _drawn(self, prompts: Prompts, start_hwc: Float32 | None, strength: float) -> Tensor:
        model, drive = self._model, self._drive
        marks = self._marks if start_hwc is None else started(self._marks, strength)
        steps = len(marks) - 1 if start_hwc is None or strength else 0
        self._total += steps + (len(self._tiles) if start_hwc is not None else 0)
        begun = None if start_hwc is None else self._encode(start_hwc)
        if begun is not None and not steps:
            return begun
        channels = model.config.vae.latent_channels
        noise = seeded_noise((1, channels, *self._size), drive.seed).to(model.device)
        point = noise if begun is None else noised(begun, noise, marks[0])
        wanted, unwanted = (prompt[None].to(model.device) for prompt in (prompts.wanted, prompts.unwanted))

        def velocity(latents: Tensor, level: float) -> Tensor:
            self._report()
            turn = self._turn(marks.index(level))
            seen, at = latents.roll(turn, dims=-1), torch.tensor([level], device=latents.device)
            found = model.velocity(seen, at, wanted, panorama=drive.panorama)
            if drive.guidance != 1:
                found = guided(found, model.velocity(seen, at, unwanted, panorama=drive.panorama), drive.guidance)
            return found.roll(-turn, dims=-1)

        return euler(point, velocity, marks)

    def _turn(self, step: int) -> int:
        """By how many latents a panorama is turned in a step: each step has its edge elsewhere, so none is left."""
        cells = self._size[1] // PATCH
        return int(cells * (step * TURN % 1)) * PATCH if self._drive.panorama else 0

    def _report(self) -> None:
        self._step(self._done, self._total)
        self._done += 1

    def _encode(self, picture_hwc: Float32) -> Tensor:
        model = self._model
        by = self._wrap * model.config.vae.factor
        picture = wrapped(torch.from_numpy(picture_hwc).permute(2, 0, 1)[None].to(model.device), by)
        height, width = self._size
        shape = (1, model.config.vae.latent_channels, height, width + 2 * self._wrap)
        latents = torch.zeros(shape, device=model.device)
        for tile in self._tiles:
            self._report()
            part = self._latents(tile)
            latents[(..., *window(part))] += model.encode(picture[(..., *window(tile))]) * weights(part, latents)
        return latents[..., self._wrap : self._wrap + width]

    @torch.inference_mode()
    def _decode(self, latents: Tensor) -> Float32:
        model, by = self._model, self._wrap * self._model.config.vae.factor
        seen = wrapped(latents.float(), self._wrap)
        found_hwc = np.zeros((self._drive.height, self._drive.width + 2 * by, model.config.vae.channels), np.float32)
        for tile in self._tiles:
            self._report()
            decoded = model.decode(seen[(..., *window(self._latents(tile)))])
            found_hwc[window(tile)] += decoded[0].permute(1, 2, 0).cpu().numpy() * blend(tile)[..., None]
        return np.ascontiguousarray(found_hwc[:, by : by + self._drive.width])

    def _latents(self, tile: Tile) -> Tile:
        return divided(tile, self._model.config.vae.factor)
