"""Scene-linear frames to the SDR codes that an SDR model sees, with counts of what had to be cut.

It owns clipping to [0, 1], the thresholds and the warning about a wrong encoding. It must not know models or
files.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from hdrgen_server.colour.ocio import ConfigView, convert
from hdrgen_server.colour.sanitise import colour_channels, sanitise
from hdrgen_server.contracts.frame import Colourspace, Frame
from nuke_hdrgen.wire.errors import BadParameter

CLIPPED_CODE = 250.0 / 255.0
CRUSHED_CODE = 2.0 / 255.0

_HALF_CODE = 0.5 / 255.0
_ROUNDING = 1e-5


@dataclass(frozen=True)
class SdrCounts:
    """Colour samples of one frame. `clipped`: code at the upper threshold or above; `crushed`: at the lower
    or below.

    `above` and `below` are samples that were outside [0, 1] by more than rounding (1e-5) and were cut to it;
    `samples` is how many there were in all.
    """

    clipped: int
    crushed: int
    above: int
    below: int
    samples: int

    def as_dict(self) -> dict[str, int]:
        """For a result's `counts`."""
        return asdict(self)


@dataclass(frozen=True)
class SdrCodes:
    """The encoded frame with colour in [0, 1], its counts, and warnings for the user (one line each)."""

    frame: Frame
    counts: SdrCounts
    warnings: tuple[str, ...] = ()


def to_sdr(
    frame: Frame,
    encoding: Colourspace,
    clipped_code: float = CLIPPED_CODE,
    crushed_code: float = CRUSHED_CODE,
    config: ConfigView | None = None,
) -> SdrCodes:
    """A scene-linear frame as SDR codes: primaries of `encoding`, its encoding, cut to [0, 1] and counted.

    Alpha and layers pass bit for bit. Warns when nothing is at the top code while values exceed it: an SDR
    plate linearised with its own encoding piles up at code 1 (to half an 8-bit code) and never passes it; a
    pile of less than 1 % of what lies beyond counts as nothing. Raises BadParameter for a target that is not
    encoded or thresholds out of order, BadInput for NaN or Inf, and what `convert` raises.
    """
    if encoding.range != "encoded":
        raise BadParameter(f"SDR codes need an encoded colourspace such as srgb_rec709_scene, not {encoding.name}")
    if not 0.0 <= crushed_code < clipped_code <= 1.0:
        raise BadParameter(f"thresholds must be 0 <= crushed < clipped <= 1, got {crushed_code} and {clipped_code}")
    sanitise(frame, "refuse")
    encoded = convert(frame, encoding, config)
    pixels = encoded.pixels.copy()
    codes = pixels[..., : colour_channels(frame)]
    above = int((codes > 1.0 + _ROUNDING).sum())
    below = int((codes < -_ROUNDING).sum())
    at_top = int((np.abs(codes - 1.0) <= _HALF_CODE).sum())
    beyond = int((codes > 1.0 + _HALF_CODE).sum())
    highest = float(codes.max())
    np.clip(codes, 0.0, 1.0, out=codes)
    clipped, crushed = threshold_masks(codes, clipped_code, crushed_code)
    counts = SdrCounts(int(clipped.sum()), int(crushed.sum()), above, below, codes.size)
    warnings: tuple[str, ...] = ()
    if beyond > 100 * at_top:
        warnings = (
            f"frame {frame.number} reaches code {highest:.3g} and nothing is at the top code "
            f"of {encoding.name}: the input encoding is probably wrong",
        )
    return SdrCodes(encoded.with_pixels(pixels), counts, warnings)


def threshold_masks(
    codes_hwc: npt.NDArray[np.float32], clipped_code: float = CLIPPED_CODE, crushed_code: float = CRUSHED_CODE
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """(clipped, crushed), each bool of the shape of the codes: at the threshold (to 1e-5) or beyond it."""
    return codes_hwc >= clipped_code - _ROUNDING, codes_hwc <= crushed_code + _ROUNDING
