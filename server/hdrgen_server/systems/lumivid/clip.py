"""One clip through the model: SDR codes in, HDR codes out, tile by tile, in one stage or two.

It owns the order of the work and what is held in memory: the clip, its latents and one tile's activations. It must not
know windows, colourspaces, plates or files. Codes are (F, H, W, 3) float32 numpy arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from hdrgen_server.image.tiles import Tile, plan_tiles
from hdrgen_server.networks.tiled import blend, divided, weights, window
from hdrgen_server.systems.lumivid.model import LumiVid
from hdrgen_server.systems.lumivid.sampling import euler, noised, seeded_noise

Float32 = npt.NDArray[np.float32]
Step = Callable[[], None]
SMALLEST_TILE = 128


@dataclass(frozen=True)
class Tiling:
    """Edge of the tiles of VAE and transformer and what neighbours share, in pixels."""

    edge: int
    overlap: int

    def halved(self, times: int, cell: int) -> Tiling:
        """Tiles of half the edge, `times` over, in whole cells."""
        edge = max(SMALLEST_TILE, self.edge >> times, 2 * cell) // cell * cell
        return Tiling(edge, min(self.overlap, edge // 4) // cell * cell)


@dataclass(frozen=True)
class Drive:
    """What is asked of a clip: levels of the first stage and of the second (none for one stage), frames a second, seed
    of the noise.
    """

    first: Sequence[float]
    second: Sequence[float]
    fps: float
    seed: int


@dataclass(frozen=True, eq=False)
class Made:
    """Codes of the HDR that was found, and those of the plate after the VAE alone: of HDR where the flow begins at the
    plate, else of SDR. Each (F, H, W, 3), not limited.
    """

    hdr: Float32
    round_trip: Float32


def padded_length(frames: int, time: int) -> int:
    """The next length of `time` k + 1 frames, 9 at least for a still: one latent alone knows no time."""
    return max(1, -(-(frames - 1) // time)) * time + 1


class ClipConverter:
    """Converts clips. `step()` is called before each tile of each step; what it raises (cancel) ends the work."""

    def __init__(self, model: LumiVid, tiling: Tiling, drive: Drive, step: Step) -> None:
        self._model, self._drive, self._step = model, drive, step
        self._cell = model.config.cell * model.scale
        self._tiling = tiling.halved(0, self._cell)

    def steps(self, height: int, width: int) -> int:
        """How often `step` is called for a clip of this size."""
        rows, columns = (-(-side // self._cell) * self._cell for side in (height, width))
        large, drive = len(self._tiles(rows, columns)), self._drive
        shrunk = self._model.scale > 1
        encoded = large + (1 if shrunk else 0)
        if not drive.second:
            begun = large if self._model.config.from_plate else 0
            return large * (len(drive.first) - 1) + encoded + begun + 2 * large
        small = len(self._tiles(rows // 2, columns // 2))
        first = small * (len(drive.first) - 1) + (1 if shrunk else small)
        return first + 1 + large * (len(drive.second) - 1) + encoded + 2 * large

    @torch.inference_mode()
    def run(self, codes: Float32, plate: Float32 | None = None) -> Made:
        """Convert (F, H, W, 3) SDR codes. Shorter clips than the VAE takes go on with their last frame; sides that are
        no multiple of a cell go on by reflection. `plate` are the same frames in the codes of HDR, for a flow of one
        stage that begins there.
        """
        whole = self._padded(codes)
        drive, model = self._drive, self._model
        if plate is not None:
            begin, reference = (self._latents(x, whole) for x in (self._padded(plate), whole))
            latents = self._sample(begin, drive.first, reference, whole)
            return self._made(latents, begin, whole, codes)
        two = bool(drive.second)
        small = _resized(whole, 0.5) if two else whole
        reference = self._latents(model.shown(small), small)
        latents = self._sample(self._noise(small), drive.first, reference, small)
        if two:
            reference = self._latents(model.shown(whole), whole)
            latents = self._doubled(latents)
            latents = noised(latents, self._noise(whole), drive.second[0])
            latents = self._sample(latents, drive.second, reference, whole)
        plain = reference if model.scale == 1 else self._latents(whole, whole)
        return self._made(latents, plain, whole, codes)

    def _made(self, latents: Tensor, plain: Tensor, whole: Tensor, codes: Float32) -> Made:
        frames, height, width = codes.shape[:3]
        decoded = (self._decoded(x, whole) for x in (latents, plain))
        return Made(*(x[:frames, :height, :width] for x in decoded))

    def _padded(self, codes: Float32) -> Tensor:
        frames, height, width = codes.shape[:3]
        time = self._model.config.vae.time
        rows, columns = (-(-side // self._cell) * self._cell - side for side in (height, width))
        edges = [(0, padded_length(frames, time) - frames), (0, 0), (0, 0), (0, 0)]
        grown = np.pad(codes, edges, mode="edge")
        grown = np.pad(grown, [(0, 0), (0, rows), (0, columns), (0, 0)], mode="symmetric")
        return torch.from_numpy(np.ascontiguousarray(grown.transpose(3, 0, 1, 2)))[None].to(self._model.device)

    def _noise(self, codes: Tensor) -> Tensor:
        vae = self._model.config.vae
        frames, height, width = codes.shape[2:]
        shape = (1, vae.latent_channels, vae.latent_frames(frames), height // vae.space, width // vae.space)
        return seeded_noise(shape, self._drive.seed).to(self._model.device)

    def _tiles(self, height: int, width: int) -> list[Tile]:
        return plan_tiles(height, width, self._tiling.edge, self._tiling.overlap, self._cell)

    def _latents(self, codes: Tensor, whole: Tensor) -> Tensor:
        """Latents of codes, which may be smaller than the whole clip: then they are encoded in one."""
        model, space = self._model, self._model.config.vae.space
        if codes.shape[3:] != whole.shape[3:]:
            self._step()
            return model.encode(codes)
        found = torch.zeros_like(self._noise(codes))
        for tile in self._tiles(*codes.shape[3:]):
            self._step()
            part = divided(tile, space)
            found[(..., *window(part))] += model.encode(codes[(..., *window(tile))]) * weights(part, found)
        return found

    def _sample(self, latents: Tensor, levels: Sequence[float], reference: Tensor, codes: Tensor) -> Tensor:
        model, space = self._model, self._model.config.vae.space
        tiles = [divided(tile, space) for tile in self._tiles(*codes.shape[3:])]

        def velocity(point: Tensor, level: float) -> Tensor:
            found = torch.zeros_like(point)
            at = torch.full((1, point.shape[2]), level, device=point.device)
            for tile in tiles:
                self._step()
                place, beside = window(tile), _shrunk(window(tile), model.scale)
                made = model.velocity(point[(..., *place)], at, reference[(..., *beside)], self._drive.fps)
                found[(..., *place)] += made * weights(tile, point)
            return found

        return euler(latents, velocity, levels)

    def _doubled(self, latents: Tensor) -> Tensor:
        self._step()
        return self._model.doubled(latents)

    def _decoded(self, latents: Tensor, whole: Tensor) -> Float32:
        model, space = self._model, self._model.config.vae.space
        frames, height, width = whole.shape[2:]
        found = np.zeros((frames, height, width, 3), np.float32)
        for tile in self._tiles(height, width):
            self._step()
            decoded = model.decode(latents[(..., *window(divided(tile, space)))])
            place = (slice(None), *window(tile))
            found[place] += decoded[0].permute(1, 2, 3, 0).cpu().numpy() * blend(tile)[..., None]
        return found


def _shrunk(place: tuple[slice, slice], scale: int) -> tuple[slice, slice]:
    """A tile's place in latents that are `scale` times smaller."""
    rows, columns = (slice(part.start // scale, -(-part.stop // scale)) for part in place)
    return rows, columns


def _resized(codes: Tensor, factor: float) -> Tensor:
    """Frames (1, 3, F, H, W) at another size."""
    frames = codes[0].transpose(0, 1)
    small = F.interpolate(frames, scale_factor=factor, mode="bilinear", antialias=True)
    return small.transpose(0, 1)[None]
