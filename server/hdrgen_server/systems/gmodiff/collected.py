"""The maps between both stages of GMODiff: full frames, filled tile by tile, and the result of the refined one.

It owns the blending of these maps. It must not know diffusers, requests or files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from hdrgen_server.image.tiles import Tile
from hdrgen_server.systems.gmodiff.candidates import Bracket
from hdrgen_server.systems.gmodiff.refine.initial import Initial
from hdrgen_server.systems.gmodiff.refine.prior import pooled_features
from hdrgen_server.systems.gmodiff.regressor import Regression, reconstruct

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Collected:
    """Full-size maps of a frame (H, W), filled tile by tile, and the regressor's features at one cell every `cell`
    pixels.
    """

    gain_hwc: Array
    reference_hwc: Array
    under_hwc: Array
    pooled_chw: Array
    cell: int

    @classmethod
    def empty(cls, height: int, width: int, channels: int, cell: int) -> Collected:
        """Zeros for a frame of this size and so many feature channels."""
        gain, reference, under = (np.zeros((height, width, 3), np.float32) for _ in range(3))
        return cls(
            gain, reference, under, np.zeros((channels, -(-height // cell), -(-width // cell)), np.float32), cell
        )

    def add(self, tile: Tile, bracket: Bracket, regression: Regression) -> None:
        """Blend in what stage one says about a tile, which starts at a multiple of `cell`."""
        rows, columns = tile.rows, tile.columns
        window = (slice(rows.start, rows.stop), slice(columns.start, columns.stop))
        weight = rows.weights[:, None, None] * columns.weights[None, :, None]
        self.gain_hwc[window] += _hwc(regression.gain) * weight
        self.reference_hwc[window] = _hwc(bracket.codes[:, 0])
        self.under_hwc[window] = _hwc(bracket.codes[:, int(bracket.ev[0].argmin())])
        by_row, by_column = _cells(rows.weights, self.cell), _cells(columns.weights, self.cell)
        top, left = rows.start // self.cell, columns.start // self.cell
        pooled = pooled_features(regression.features, (len(by_row), len(by_column)))[0].float().cpu().numpy()
        self.pooled_chw[:, top : top + len(by_row), left : left + len(by_column)] += (
            pooled * by_row[:, None] * by_column[None, :]
        )


def initial_of(collected: Collected, mask_hw: Array) -> Initial:
    """The maps as stage two takes them, the gain map held in [0, 1]."""
    gain_hwc = np.clip(collected.gain_hwc, 0, 1)
    return Initial(gain_hwc, mask_hw, collected.under_hwc, collected.pooled_chw, collected.cell)


def refined_scene_linear(
    draft_hwc: Array, initial: Initial, collected: Collected, gain_hwc: Array, scale: float
) -> Array:
    """The draft with H = s (L + alpha) R(G) of the refined map wherever that differs from the initial one."""
    changed = (gain_hwc != initial.gain_hwc).any(axis=2)
    gain, codes = (torch.from_numpy(x[changed]) for x in (gain_hwc, collected.reference_hwc))
    result_hwc = draft_hwc.copy()
    result_hwc[changed] = reconstruct(gain, codes, torch.tensor(scale)).numpy()
    return result_hwc


def _cells(weights: Array, cell: int) -> Array:
    """Mean weights of each cell; a last one that is cut short counts as its last pixel."""
    padded = np.pad(weights, (0, -len(weights) % cell), mode="edge")
    return padded.reshape(-1, cell).mean(axis=1)


def _hwc(planes: torch.Tensor) -> Array:
    return planes[0].permute(1, 2, 0).float().cpu().numpy()
