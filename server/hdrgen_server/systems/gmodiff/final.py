"""GMODiff's second stage within a job: a pack's refiner, loaded, with the tiles that a device takes.

It owns loading and the choice of tiles. It must not know brackets, requests or files beyond the pack's. It imports
diffusers, so a job of draft quality never imports it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from hdrgen_server.networks import offload
from hdrgen_server.packs.manifest import Pack
from hdrgen_server.systems.gmodiff.refine.config import RefinerConfig
from hdrgen_server.systems.gmodiff.refine.frame import FrameRefiner
from hdrgen_server.systems.gmodiff.refine.initial import Initial
from hdrgen_server.systems.gmodiff.refine.loading import BASE_FILE, REFINED_FILE, load_base, load_refined
from hdrgen_server.systems.gmodiff.refine.model import Refiner, mask_weight
from hdrgen_server.systems.gmodiff.refine.prepare import prepare
from hdrgen_server.systems.gmodiff.refine.tiling import LARGE, Tiling

Array = npt.NDArray[np.float32]


def load_refiner(pack: Pack, config: RefinerConfig, device: str, *, offloaded: bool = False) -> Refiner:
    """A pack's refiner, ready to run: bfloat16 where it holds on CUDA, float32 elsewhere. Raises BadInput naming the
    file. Offloaded, it is never as a whole on the device.
    """
    base = pack.file(BASE_FILE) if BASE_FILE in {file.path for file in pack.files} else pack.path
    refiner = load_base(config, Path(base))
    load_refined(refiner, pack.file(REFINED_FILE).parent)
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    if offloaded:
        offload.place(prepare(refiner, torch.device("cpu"), dtype), torch.device(device), offloaded=True)
        return refiner
    return prepare(refiner, torch.device(device), dtype)


class SecondStage:
    """A loaded refiner. One frame at a time."""

    def __init__(self, refiner: Refiner, device: str) -> None:
        self.refiner, self._device = refiner, device

    def tiling(self, asked: int, rung: int) -> Tiling:
        """Tiles for a device or for an edge in pixels that was asked for (0: none), halved once a rung from 2."""
        whole = self.refiner.config.merge == "decoded" or self._device.startswith("cuda")
        tiling = LARGE if whole else Tiling()
        if asked:
            factor = self.refiner.config.vae.factor
            tiling = Tiling(
                max(asked // factor, 2 * tiling.latent_overlap),
                tiling.latent_overlap,
                max(asked, 2 * tiling.pixel_overlap),
                tiling.pixel_overlap,
            )
        return tiling.halved(max(0, rung - 1))

    def taken(self, mask_hw: Array) -> Array:
        """How much of the refinement each pixel took, 0 to 1, (H, W)."""
        if self.refiner.config.merge == "decoded":
            return np.ones_like(mask_hw)
        return mask_weight(torch.from_numpy(mask_hw), self.refiner.config.mask_range).numpy()

    def refine(self, initial: Initial, tiling: Tiling, step: Callable[[int, int], None]) -> Array:
        """The refined gain map (H, W, 3) in [0, 1]; `step(done, total)` comes before each tile."""
        return FrameRefiner(self.refiner, initial, tiling, torch.device(self._device), step).run()
