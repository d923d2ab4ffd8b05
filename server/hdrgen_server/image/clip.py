"""Finds the level at which linear frames clip, from the pixels: files rarely say it, and guessing it ruins
a merge.

It owns the two tests (pile-up in one frame, agreement across a bracket). It must not know files or merging.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hdrgen_server.contracts.frame import Frame

# A pile-up is what lies within this share of the maximum: twice the spacing of half floats.
TOP_SHARE = 2.0**-9
# It needs this many pixels, this share of the frame, and this many times the density just below it.
MINIMUM_PIXELS = 12
MINIMUM_SHARE = 1e-4
DENSITY_RATIO = 6.0
BANDS_BELOW = 16
# Two frames agree on a level when they differ by less than this.
AGREEMENT = 0.01

Plane = npt.NDArray[np.float32]


def channel_clip_levels(frame: Frame) -> tuple[float | None, ...]:
    """The clip level of each colour channel of a linear frame, in its own values; None where nothing piles
    up.

    A channel clips when far more pixels lie within TOP_SHARE of its maximum than in the bands of the same
    width just below. A constant channel tells nothing and gives None.
    """
    count = min(3, len(frame.channels))
    return tuple(_pile_up(frame.pixels[..., index]) for index in range(count))


def frame_clip_level(frame: Frame) -> float | None:
    """The lowest clip level of the frame's colour channels: below it no channel is clipped; None when none
    clips.
    """
    return min((level for level in channel_clip_levels(frame) if level is not None), default=None)


def bracket_clip_level(frames: Sequence[Frame]) -> float | None:
    """The clip level of an unscaled linear bracket (each frame's values as the sensor gave them), or None.

    A level counts when a longer exposure ends at it too, or when a shorter one shows that the pixels at the
    level are brighter than it: a flat bright surface that is not clipped scales with EV instead. One frame
    alone is taken at its word.
    """
    found = [(frame, level) for frame in frames if (level := frame_clip_level(frame)) is not None]
    if len(frames) == 1:
        return found[0][1] if found else None
    confirmed = [
        level
        for frame, level in found
        if _same_top_when_longer(frame, level, frames) or _brighter_when_shorter(frame, level, frames)
    ]
    return min(confirmed, default=None)


def _pile_up(plane: Plane) -> float | None:
    values = plane[np.isfinite(plane)]
    if values.size == 0:
        return None
    top = float(values.max())
    if top <= 0.0 or float(values.min()) == top:
        return None
    width = top * TOP_SHARE
    near = values[values > top - width * (BANDS_BELOW + 1)]
    piled = int(np.count_nonzero(near > top - width))
    below = near.size - piled
    if piled < max(MINIMUM_PIXELS, MINIMUM_SHARE * values.size):
        return None
    return top if piled > DENSITY_RATIO * below / BANDS_BELOW else None


def _same_top_when_longer(frame: Frame, level: float, frames: Sequence[Frame]) -> bool:
    """Whether a longer exposure reaches no further than the same level, as clipped light does."""
    for other in frames:
        if other.ev <= frame.ev:
            continue
        for index in range(min(3, len(other.channels))):
            plane = other.pixels[..., index]
            top = float(plane.max(where=np.isfinite(plane), initial=0.0))
            if abs(top / level - 1.0) < AGREEMENT:
                return True
    return False


def _brighter_when_shorter(frame: Frame, level: float, frames: Sequence[Frame]) -> bool:
    """Whether the next shorter exposure shows more light at the clipped pixels than the level itself
    accounts for.
    """
    shorter = [other for other in frames if other.ev < frame.ev and other.pixels.shape == frame.pixels.shape]
    if not shorter:
        return False
    other = max(shorter, key=lambda item: item.ev)
    colour = frame.pixels[..., :3]
    piled = colour >= level * (1.0 - TOP_SHARE)
    seen = other.pixels[..., :3][piled]
    expected = level * 2.0 ** (other.ev - frame.ev)
    return seen.size > 0 and float(np.percentile(seen, 90)) > expected * 1.05
