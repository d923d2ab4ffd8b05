"""What a shot does over time, measured against the truth's own figures: a frozen picture must not win.

It owns the figures of a shot. It must not know files, packs or what made the frames. Sources: LumiVid (arXiv
2604.11788), section 4.1, for flicker and frame-to-frame PSNR; `flicker` for this project's own index.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from hdrgen_server.evaluate.flicker import flicker_index
from hdrgen_server.evaluate.metrics import LUMINANCE_FLOOR, luminance, pu21_psnr, scale_to
from nuke_hdrgen.wire.errors import BadInput

Image = npt.NDArray[Any]
RANGE_PERCENTILES = (0.1, 99.9)


@dataclass(frozen=True)
class Figures:
    """One shot's own: the flicker index, the deviation of frames' mean luminance over their mean (`flutter`, the
    document's flicker), PU21-PSNR from frame to frame (dB), the highest luminance (diffuse white 1.0), and the stops
    between its 0.1 and 99.9 percentiles.
    """

    flicker: float
    flutter: float
    frame_to_frame: float
    peak: float
    range_stops: float


@dataclass(frozen=True)
class Jods:
    """ColorVideoVDP's JOD of a whole shot as video, and the mean of its frames as images."""

    video: float
    images: float


@dataclass(frozen=True)
class Against:
    """A shot's figures beside its truth's, and its mean PU21-PSNR against it (dB) at one scale for all frames; JOD
    where it was asked for.
    """

    scene: str
    truth: Figures
    result: Figures
    psnr: float
    jod: Jods | None = None


def figures(frames: Sequence[Image]) -> Figures:
    """The figures of scene-linear Rec.709 frames (H, W, 3), three or more. Raises BadInput as `flicker_index`."""
    means = [float(luminance(frame).mean()) for frame in frames]
    steps = [pu21_psnr(one, two) for one, two in pairwise(frames)]
    light = np.stack([luminance(frame) for frame in frames])
    low, high = np.log2(np.maximum(np.percentile(light, RANGE_PERCENTILES), LUMINANCE_FLOOR))
    return Figures(
        flicker_index(frames),
        float(np.std(means) / max(np.mean(means), 1e-12)),
        float(np.mean(steps)),
        float(light.max()),
        float(high - low),
    )


def against(
    scene: str,
    found: Iterator[Image],
    truth: Sequence[Image],
    codes: Sequence[Image],
    jod_rate: float | None = None,
) -> Against:
    """A method's frames against the truth's, brought to its scale by all frames together; `codes` are the SDR's.

    With `jod_rate`, frames a second, JOD too. Raises BadInput where they are not as many.
    """
    made = [np.asarray(frame, np.float32) for frame in found]
    if len(made) != len(truth):
        raise BadInput(f"the method made {len(made)} frames of {len(truth)}; a shot keeps its length")
    scale = np.float32(scale_to(*(np.concatenate(list(frames)) for frames in (made, truth, codes))))
    scaled = [frame * scale for frame in made]
    psnr = float(np.mean([pu21_psnr(one, true) for one, true in zip(scaled, truth, strict=True)]))
    jods = None if jod_rate is None else _jods(scaled, truth, jod_rate)
    return Against(scene, figures(truth), figures(scaled), psnr, jods)


def _jods(frames: Sequence[Image], truth: Sequence[Image], rate: float) -> Jods:
    from hdrgen_server.evaluate.jod import jod, shot_jod

    images = [jod(frame, true) for frame, true in zip(frames, truth, strict=True)]
    return Jods(shot_jod(frames, truth, rate), float(np.mean(images)))
