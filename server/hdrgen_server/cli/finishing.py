"""`--preserve-plate` and `--ceiling`: applied to the EXR that came back, before it is written.

It owns the order (the ceiling first: what the plate keeps wins) and the record in the header. It must not know options,
sockets or the curves themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hdrgen_server.cli.inputs import Bracket
from hdrgen_server.contracts.frame import Colourspace, Frame
from nuke_hdrgen.wire.errors import BadParameter

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Finish:
    """What is applied after the run; `ceiling` in scene-linear of the result, None for none."""

    preserve_plate: bool = False
    ceiling: float | None = None

    def __post_init__(self) -> None:
        """Raises BadParameter for a ceiling that is not above 0."""
        if self.ceiling is not None and not (math.isfinite(self.ceiling) and self.ceiling > 0):
            raise BadParameter(f"--ceiling must be a number above 0, in scene-linear, got {self.ceiling:g}")

    @property
    def attributes(self) -> dict[str, str | int | float]:
        """What a header says about it."""
        kept: dict[str, str | int | float] = {"hdrgen/preserve_plate": 1} if self.preserve_plate else {}
        return kept | ({} if self.ceiling is None else {"hdrgen/ceiling": self.ceiling})


@dataclass(frozen=True)
class Finished:
    """The EXR to write, and warnings of one line each."""

    body: bytes | memoryview
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Plate:
    """What `preserve_plate` keeps: (H, W, 3) scene-linear in the result's space and at its exposure, and where it is
    clipped (H, W).
    """

    scene_linear_hwc: Float32
    clipped_hw: npt.NDArray[np.bool_]
    warning: str = ""


def plate_of(bracket: Bracket, space: Colourspace) -> Plate:
    """The reference of a bracket in `space`."""
    from hdrgen_server.colour.ocio import convert
    from hdrgen_server.colour.sanitise import sanitise
    from hdrgen_server.image.finish import clipped_pixels, plate_clip_level

    frame = bracket.frames[bracket.reference]
    level = plate_clip_level(bracket.frames)
    name = bracket.paths[bracket.reference]
    warning = "" if level is not None else f"{name} clips nowhere that can be found: all of it is preserved"
    return Plate(convert(sanitise(frame)[0], space).rgb, clipped_pixels(frame, level), warning)


def apply(body: memoryview, plate: Plate | None, space: Colourspace, finish: Finish, provenance: str) -> Finished:
    """The result's EXR with `finish` applied, with the tags, layers and attributes that it came with.

    Untouched bytes where nothing is asked; `plate` is None where it is not preserved. It is written as float where
    half would change what the plate keeps. The header names what was applied where `provenance` is full. Raises
    BadInput for NaN or Inf in the result.
    """
    if finish == Finish():
        return Finished(body)
    from hdrgen_server.image.exr import encode_exr, read_exr_frame

    result = replace(read_exr_frame(body, name="the result"), colourspace=space)
    finished = on_frame(result, plate, finish)
    held = True if plate is None else _half_holds(finished.rgb, result, ~plate.clipped_hw)
    record = {name: value for name, value in result.metadata.items() if name.startswith("hdrgen/")}
    applied = finish.attributes if provenance == "full" else {}
    warnings = () if plate is None or not plate.warning else (plate.warning,)
    return Finished(encode_exr(finished, half=None if held else False, attributes=record | applied), warnings)


def on_frame(result: Frame, plate: Plate | None, finish: Finish) -> Frame:
    """A scene-linear result with `finish` applied; `plate` is None where it is not preserved.

    Raises BadInput for NaN or Inf in the result.
    """
    from hdrgen_server.image.finish import preserve_plate, roll_off

    if finish == Finish():
        return result
    pixels = result.pixels.copy()
    if finish.ceiling is not None:
        pixels[..., :3] = roll_off(pixels[..., :3], finish.ceiling)
    if plate is not None:
        pixels[..., :3] = preserve_plate(pixels[..., :3], plate.scene_linear_hwc, plate.clipped_hw)
    return result.with_pixels(pixels)


def _half_holds(colour_hwc: Float32, result: Frame, where_hw: npt.NDArray[np.bool_]) -> bool:
    """Whether half floats hold the colour as a file has it, multiplied by alpha: exactly where alpha is 1, to the
    rounding of that product where it is not.
    """
    from hdrgen_server.image.alpha import premultiply

    pixels = result.pixels.copy()
    pixels[..., :3] = colour_hwc
    alpha = result.channels.index("A") if "A" in result.channels else None
    stored = (pixels if alpha is None else premultiply(pixels, alpha))[..., :3][where_hw]
    with np.errstate(over="ignore"):
        off = np.abs(stored.astype(np.float16).astype(np.float32) - stored)
    rounding = np.zeros((*where_hw.shape, 1), np.float32)
    if alpha is not None:
        rounding[pixels[..., alpha] != 1.0] = 2.0**-23
    return bool((off <= rounding[where_hw] * np.abs(stored)).all())
