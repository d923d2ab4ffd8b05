"""What every system that fuses brackets checks and agrees on. It must not know any one of them, nor torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from hdrgen_server.contracts.frame import Colourspace, Frame
from hdrgen_server.image.finish import plate_clip_level
from hdrgen_server.systems.layers import CLIPPED, clipped_weight
from nuke_hdrgen.wire.errors import BadInput, BadParameter

SAME_EV = 0.05


def reference_index(bracket: Sequence[Frame], asked: int) -> int:
    """The index of the reference frame; -1 asks for the one with the middle EV (the lower of two).

    Raises BadParameter when there is no such frame.
    """
    if asked >= len(bracket):
        raise BadParameter(f"reference {asked} names no frame; the bracket has frames 0 to {len(bracket) - 1}")
    if asked >= 0:
        return asked
    order = sorted(range(len(bracket)), key=lambda i: bracket[i].ev)
    return order[(len(order) - 1) // 2]


def check_bracket(bracket: Sequence[Frame], reference: int) -> None:
    """Refuse what cannot be fused: one frame, unlike sizes, spaces or ranges, equal EVs. Raises BadInput."""
    check_exposures([(frame.width, frame.height) for frame in bracket], [frame.ev for frame in bracket], reference)
    base = bracket[reference]
    for index, frame in enumerate(bracket):
        if frame.colourspace != base.colourspace:
            raise BadInput(
                f"frame {index} is in {frame.colourspace.name}, the reference in {base.colourspace.name}; "
                "convert them to one space"
            )


def check_exposures(sizes: Sequence[tuple[int, int]], evs: Sequence[float], reference: int) -> None:
    """Refuse (width, height) and EVs that make no bracket about this reference. Raises BadInput."""
    if len(sizes) < 2:
        raise BadInput(f"a bracket needs 2 to 7 frames, got {len(sizes)}; add exposures")
    if len(sizes) != len(evs):
        raise BadInput(f"{len(sizes)} frames but {len(evs)} EVs; give one EV for each")
    if not 0 <= reference < len(sizes):
        raise BadInput(f"reference {reference} is not one of frames 0 to {len(sizes) - 1}; name one of them")
    for index, size in enumerate(sizes):
        if size != sizes[reference]:
            frame, base = (f"{width}x{height}" for width, height in (size, sizes[reference]))
            raise BadInput(f"frame {index} is {frame}, the reference {base}; crop or scale them to one size")
        if not math.isfinite(evs[index]):
            raise BadInput(f"frame {index} has no EV; say it with --ev")
    ordered = sorted(evs)
    if any(b - a < SAME_EV for a, b in pairwise(ordered)):
        listed = ", ".join(f"{ev:g}" for ev in ordered)
        raise BadInput(f"two frames have equal EVs ({listed}); each needs its own exposure")


def clipped_layer(bracket: Sequence[Frame], reference: int) -> dict[str, npt.NDArray[np.float32]]:
    """The layer `hdrgen.clipped` of a result, by the level at which the bracket's plates clip."""
    return {CLIPPED: clipped_weight(bracket[reference], plate_clip_level(bracket))}


def linear_of(colourspace: Colourspace) -> Colourspace:
    """The scene-linear space with the primaries of the frames that were fused."""
    if colourspace.range == "scene_linear":
        return colourspace
    if "rec709" in colourspace.interop_id:
        return Colourspace("lin_rec709_scene", "lin_rec709_scene")
    if colourspace.chromaticities is None:
        raise BadInput(f"{colourspace.name} states no primaries; convert the frames to sRGB or a linear space")
    return Colourspace(f"linear {colourspace.name}", "", colourspace.chromaticities)
