"""From photographs of a bracket to what the regressor takes: aligned, linearised, the reference first.

It owns the order of these steps, the same for training and use. It must not know networks, tiles or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from hdrgen_server.colour.curves import CURVES
from hdrgen_server.systems.gmodiff.align import Shift, Window, estimate_shift, shifted_window
from hdrgen_server.systems.gmodiff.candidates import Bracket
from hdrgen_server.systems.gmodiff.motion import Flow, Indices, Light, estimate_flow, moved_window
from hdrgen_server.systems.gmodiff.response import Response, estimate_response

Array = npt.NDArray[np.float32]
RESPONSE_SAMPLES = 1500


@dataclass(frozen=True, eq=False)
class Prepared:
    """A bracket ready for the regressor, the reference first; arrays as in `candidates.Bracket` without the batch."""

    codes_nhwc: Array
    scene_linear_nhwc: Array
    evs: tuple[float, ...]
    valid_nhw1: Array


@dataclass(frozen=True, eq=False)
class Exposure:
    """One exposure as it came: (H, W, 3) codes in [0, 1], or linear values that clip at `clip_level`."""

    pixels_hwc: Array
    ev: float
    linear: bool = False
    clip_level: float = 1.0

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels_hwc.shape[0], self.pixels_hwc.shape[1]

    def codes(self, window: Window) -> Array:
        """A window of the exposure as camera codes in [0, 1]."""
        return self.camera_codes(self.pixels_hwc[window])

    def camera_codes(self, pixels_hwc: Array) -> Array:
        """Pixels of this exposure as codes: linear ones over the clip level get the sRGB curve."""
        if not self.linear:
            return pixels_hwc
        return srgb_codes(np.clip(pixels_hwc / np.float32(self.clip_level), 0, 1))


@dataclass(frozen=True)
class Plan:
    """How a bracket is brought together: the order (reference first, then by EV), EVs, shifts and the camera curve.

    `flows` is what moved by itself in each exposure, None where nothing did; empty where that was not looked for.
    """

    order: tuple[int, ...]
    evs: tuple[float, ...]
    shifts: tuple[Shift, ...]
    response: Response
    flows: tuple[Flow | None, ...] = ()


def plan_bracket(exposures: Sequence[Exposure], reference: int, *, align: bool = True) -> Plan:
    """Find shifts, the camera curve and what moved by itself; looks at thinned copies where the frames are large."""
    others = sorted((i for i in range(len(exposures)) if i != reference), key=lambda i: exposures[i].ev)
    order = (reference, *others)
    evs = tuple(exposures[i].ev - exposures[reference].ev for i in order)
    base = exposures[reference]
    shifts = [Shift()]
    for i, ev in zip(order[1:], evs[1:], strict=True):
        shifts.append(estimate_shift(base.codes, exposures[i].codes, ev, base.size) if align else Shift())
    plan = Plan(order, evs, tuple(shifts), _response(exposures, order, evs, shifts))
    return replace(plan, flows=_flows(exposures, plan)) if align else plan


def _response(
    exposures: Sequence[Exposure], order: Sequence[int], evs: Sequence[float], shifts: Sequence[Shift]
) -> Response:
    if exposures[order[0]].linear:
        return Response()
    grid = _grid(exposures[order[0]].size, shifts)
    samples = [
        exposures[i].pixels_hwc[grid[0] + s.rows, grid[1] + s.columns] for i, s in zip(order, shifts, strict=True)
    ]
    return estimate_response(samples, evs)


def _flows(exposures: Sequence[Exposure], plan: Plan) -> tuple[Flow | None, ...]:
    def light(index: int, ev: float) -> Light:
        def read(rows: Indices, columns: Indices) -> Array:
            pixels = exposures[index].pixels_hwc[rows[:, None], columns[None]]
            return plan.response.linearise(exposures[index].camera_codes(pixels)) * np.float32(2.0**-ev)

        return read

    base, size = light(plan.order[0], 0.0), exposures[plan.order[0]].size
    moving = list(zip(plan.order, plan.evs, plan.shifts, strict=True))[1:]
    return (None, *(estimate_flow(base, light(i, ev), ev, size, shift) for i, ev, shift in moving))


def _grid(size: tuple[int, int], shifts: Sequence[Shift]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Row and column indices of a thin grid of pixels that every exposure sees."""
    step = max(1, int(np.sqrt(size[0] * size[1] / RESPONSE_SAMPLES)))
    ends = ([s.rows for s in shifts], [s.columns for s in shifts])
    axes = [
        np.arange(max(0, -min(moves)) + step // 2, length - max(0, *moves), step)
        for length, moves in zip(size, ends, strict=True)
    ]
    rows, columns = np.meshgrid(axes[0], axes[1], indexing="ij")
    return rows.ravel(), columns.ravel()


def prepare_window(exposures: Sequence[Exposure], plan: Plan, window: Window) -> Prepared:
    """Align and linearise one window of a bracket; only that window is copied."""
    codes: list[Array] = []
    linear: list[Array] = []
    valid: list[Array] = []
    flows = plan.flows or (None,) * len(plan.order)
    for index, ev, shift, flow in zip(plan.order, plan.evs, plan.shifts, flows, strict=True):
        offsets = None if flow is None else flow.offsets(window)
        pixels = exposures[index].pixels_hwc
        if offsets is None or not offsets.any():
            moved, real = shifted_window(pixels, shift, window)
        else:
            moved, real = moved_window(pixels, shift, offsets, window)
        camera = exposures[index].camera_codes(moved)
        light = plan.response.linearise(camera)
        codes.append(camera if plan.response == Response() else srgb_codes(light))
        linear.append(light * np.float32(2.0**-ev))
        valid.append(real)
    return Prepared(np.stack(codes), np.stack(linear), plan.evs, np.stack(valid))


def prepare(codes: Sequence[Array], evs: Sequence[float], reference: int) -> Prepared:
    """Plan and prepare a whole small bracket of camera codes, (H, W, 3) each."""
    exposures = [Exposure(pixels, float(ev)) for pixels, ev in zip(codes, evs, strict=True)]
    height, width = codes[0].shape[:2]
    return prepare_window(exposures, plan_bracket(exposures, reference), (slice(0, height), slice(0, width)))


def srgb_codes(scene_linear: Array) -> Array:
    """Linear light in [0, 1] to sRGB codes."""
    codes: Array = CURVES["srgb"].encode(scene_linear)
    return codes.astype(np.float32, copy=False)


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
