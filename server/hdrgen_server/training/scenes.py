"""Finds the panoramas that training and evaluation look at, and keeps the held-out scenes apart.

It owns names, the split and loading. It must not know cameras, networks or metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import OpenEXR

from nuke_hdrgen.wire.errors import BadInput

HELD_OUT = ("bpy_interior", "bpy_sunrise", "lebombo", "potsdamer_platz")
"""Whole scenes that no shipped weight has seen: a hotel, a sunrise, a car park and a city."""


@dataclass(frozen=True, eq=False)
class Scene:
    """An equirectangular panorama, (H, W, 3) float32, linear Rec.709, at least 0.

    `negatives` counts the samples that were raised to 0, `not_finite` the NaN and Inf that were set to 65504.
    """

    name: str
    scene_linear_hwc: npt.NDArray[np.float32]
    negatives: int
    not_finite: int = 0


def scene_paths(folder: Path, *, held_out: bool) -> tuple[Path, ...]:
    """The panoramas of one side of the split, sorted by name. Raises BadInput when the folder has none."""
    paths = sorted(p for p in folder.glob("*.exr") if (p.stem in HELD_OUT) == held_out)
    if not paths:
        kind = "held-out" if held_out else "training"
        raise BadInput(f"no {kind} panoramas (*.exr) in {folder}; name a folder of equirectangular EXRs")
    return tuple(paths)


def load_scene(path: Path) -> Scene:
    """Read one panorama. Raises BadInput when it is not an RGB EXR twice as wide as high."""
    try:
        with OpenEXR.File(str(path)) as file:
            channels = file.channels()
            rgb = channels["RGB"].pixels if "RGB" in channels else channels["RGBA"].pixels[..., :3]
    except (ValueError, RuntimeError, UnicodeDecodeError, KeyError) as error:
        raise BadInput(f"{path}: not a readable RGB EXR ({error})") from error
    pixels = np.ascontiguousarray(rgb, np.float32)
    if pixels.shape[1] != 2 * pixels.shape[0]:
        raise BadInput(f"{path}: {pixels.shape[1]}x{pixels.shape[0]} is not equirectangular (twice as wide as high)")
    bad = ~np.isfinite(pixels)
    pixels[bad] = 65504.0
    return Scene(path.stem, np.maximum(pixels, 0), int((pixels < 0).sum()), int(bad.sum()))


def load_scenes(folder: Path, *, held_out: bool) -> Sequence[Scene]:
    """All panoramas of one side of the split, in name order."""
    return [load_scene(path) for path in scene_paths(folder, held_out=held_out)]
