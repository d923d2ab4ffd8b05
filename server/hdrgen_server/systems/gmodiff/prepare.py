"""From photographs of a bracket to what the regressor takes: aligned, linearised, the reference first.

It owns the order of these steps, the same for training and use. It must not know networks, tiles or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from hdrgen_server.systems.gmodiff.align import Shift, apply_shift, estimate_shift
from hdrgen_server.systems.gmodiff.candidates import Bracket
from hdrgen_server.systems.gmodiff.response import Response, estimate_response

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A bracket ready for the regressor, the reference first; arrays as in `candidates.Bracket` without the batch."""

    codes_nhwc: Array
    scene_linear_nhwc: Array
    evs: tuple[float, ...]
    valid_nhw1: Array
    shifts: tuple[Shift, ...]
    response: Response


def prepare(
    codes: Sequence[Array],
    evs: Sequence[float],
    reference: int,
    *,
    align: bool = True,
    response: Response | None = None,
) -> Prepared:
    """Align every exposure to the reference, find the camera curve unless it is given, and linearise.

    Takes codes in [0, 1], (H, W, 3) each; EVs in any offset. `response` None means: estimate it.
    """
    order = [reference, *(i for i in range(len(codes)) if i != reference)]
    relative = tuple(float(evs[i]) - float(evs[reference]) for i in order)
    base = codes[reference]
    shifts = tuple(
        estimate_shift(base, 0.0, codes[i], ev) if align and i != reference else Shift()
        for i, ev in zip(order, relative, strict=True)
    )
    moved = [apply_shift(codes[i], shift) for i, shift in zip(order, shifts, strict=True)]
    curve = response if response is not None else estimate_response([pixels for pixels, _ in moved], relative)
    linear = [curve.linearise(pixels) for pixels, _ in moved]
    exposed = [x * np.float32(2.0**-ev) for x, ev in zip(linear, relative, strict=True)]
    recoded = [pixels for pixels, _ in moved] if curve == Response() else [srgb_codes(x) for x in linear]
    return Prepared(
        np.stack(recoded), np.stack(exposed), relative, np.stack([v for _, v in moved]), shifts, curve
    )


def srgb_codes(scene_linear: Array) -> Array:
    """Linear light in [0, 1] to sRGB codes (IEC 61966-2-1)."""
    power = 1.055 * np.maximum(scene_linear, 0.0031308) ** np.float32(1 / 2.4) - 0.055
    return np.where(scene_linear <= 0.0031308, 12.92 * scene_linear, power).astype(np.float32)


def to_bracket(prepared: Sequence[Prepared]) -> Bracket:
    """Stack prepared brackets of one size and count into a batch of tensors."""

    def planes(arrays: list[Array]) -> torch.Tensor:
        return torch.from_numpy(np.stack(arrays)).permute(0, 1, 4, 2, 3)

    return Bracket(
        planes([p.codes_nhwc for p in prepared]),
        planes([p.scene_linear_nhwc for p in prepared]),
        torch.tensor([p.evs for p in prepared], dtype=torch.float32),
        planes([p.valid_nhw1 for p in prepared]),
    )
