"""What is done about NaN and Inf before colour touches a frame, and how many there were.

It owns the policy. It must not know files, OCIO or torch. A matrix spreads one bad channel over all three, so
this runs before any matrix.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from hdrgen_server.contracts.frame import Frame
from nuke_hdrgen.wire.errors import BadInput, BadParameter

Policy = Literal["replace", "keep", "refuse"]
POLICIES: tuple[Policy, ...] = ("replace", "keep", "refuse")


@dataclass(frozen=True)
class Counts:
    """Bad samples of one frame: `nan`, `inf` (either sign), and `pixels` that hold at least one."""

    nan: int = 0
    inf: int = 0
    pixels: int = 0

    @property
    def clean(self) -> bool:
        """True when every sample was finite."""
        return self.pixels == 0

    def as_dict(self) -> dict[str, int]:
        """For a result's `counts`."""
        return asdict(self)


def count_bad(frame: Frame) -> Counts:
    """Count NaN and Inf in `pixels` (H, W, C); layers are not looked at."""
    finite = np.isfinite(frame.pixels)
    if finite.all():
        return Counts()
    nan = int(np.isnan(frame.pixels).sum())
    return Counts(nan, int((~finite).sum()) - nan, int((~finite.all(axis=2)).sum()))


def sanitise(frame: Frame, policy: Policy = "replace") -> tuple[Frame, Counts]:
    """The frame without NaN and Inf, by policy, and the counts of what it had.

    `replace`: sample by sample, the pixel's other channels stay. NaN and -Inf become 0; +Inf becomes the
    largest finite value of the colour channels (1.0 when there is none), in alpha 1. `keep`: pixels as they
    are, counted. `refuse`: BadInput when there is one. Frames of range `data` and extra layers pass bit for
    bit and count nothing. A clean frame comes back as it is, not copied.
    """
    if policy not in POLICIES:
        raise BadParameter(f"the policy for NaN and Inf must be one of {', '.join(POLICIES)}, got {policy!r}")
    if frame.colourspace.range == "data":
        return frame, Counts()
    counts = count_bad(frame)
    if counts.clean or policy == "keep":
        return frame, counts
    if policy == "refuse":
        raise BadInput(
            f"frame {frame.number} has {counts.nan} NaN and {counts.inf} Inf samples "
            f"in {counts.pixels} pixels; "
            "repair the source or choose the policy 'replace'"
        )
    pixels = frame.pixels.copy()
    colour = pixels[..., : colour_channels(frame)]
    finite = colour[np.isfinite(colour)]
    brightest = float(finite.max()) if finite.size else 1.0
    np.nan_to_num(colour, copy=False, nan=0.0, posinf=brightest, neginf=0.0)
    rest = pixels[..., colour_channels(frame) :]
    np.nan_to_num(rest, copy=False, nan=0.0, posinf=1.0, neginf=0.0)
    return frame.with_pixels(pixels), counts


def colour_channels(frame: Frame) -> int:
    """How many leading channels hold colour: 3, or 1 for grey with or without alpha."""
    return 3 if len(frame.channels) >= 3 else 1
