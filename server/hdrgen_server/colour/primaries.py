"""Chromaticities of the RGB spaces and the matrices between them.

It owns the numbers and the linear algebra, in float64. It must not know transfer curves, frames, OCIO or
files.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from hdrgen_server.contracts.frame import Chromaticities
from nuke_hdrgen.wire.errors import BadInput

Matrix = npt.NDArray[np.float64]

_D65 = (0.3127, 0.3290)
_ACES_WHITE = (0.32168, 0.33767)

CHROMATICITIES: Mapping[str, Chromaticities] = MappingProxyType(
    {
        # Rec. ITU-R BT.709-6, 1.3; IEC 61966-2-1 has the same.
        "rec709": (0.640, 0.330, 0.300, 0.600, 0.150, 0.060, *_D65),
        # Rec. ITU-R BT.2020-2, table 3.
        "rec2020": (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, *_D65),
        # SMPTE RP 431-2 primaries with the white of EG 432-1.
        "p3d65": (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, *_D65),
        # SMPTE ST 2065-1:2021, 4.
        "ap0": (0.7347, 0.2653, 0.0, 1.0, 0.0001, -0.0770, *_ACES_WHITE),
        # AMPAS S-2014-004, ACEScg, 4.
        "ap1": (0.713, 0.293, 0.165, 0.830, 0.128, 0.044, *_ACES_WHITE),
        # ARRI, ALEXA Log C Curve - Usage in VFX (2017).
        "awg3": (0.684, 0.313, 0.221, 0.848, 0.0861, -0.1020, *_D65),
        # ARRI, LogC4 Logarithmic Color Space Specification (2022), 2.
        "awg4": (0.7347, 0.2653, 0.1424, 0.8576, 0.0991, -0.0308, *_D65),
        # Adobe RGB (1998) Color Image Encoding, 4.3.1.
        "adobergb": (0.640, 0.330, 0.210, 0.710, 0.150, 0.060, *_D65),
    }
)

# Bradford cone responses: Lam (1985), as in ICC.1:2022, annex E.
_BRADFORD: Matrix = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]], dtype=np.float64
)
# CIECAM02 cone responses: CIE 159:2004.
_CAT02: Matrix = np.array(
    [[0.7328, 0.4296, -0.1624], [-0.7036, 1.6975, 0.0061], [0.0030, 0.0136, 0.9834]], dtype=np.float64
)
# ARRI publishes its matrices to AP0 with CAT02, as in OCIO's configs; the rest is Bradford.
_CAT02_SPACES = ("awg3", "awg4")


def chromaticities_of(space: str | Chromaticities) -> Chromaticities:
    """The eight xy of a name, or the eight as given. Raises BadInput for an unknown name."""
    if not isinstance(space, str):
        return space
    if space not in CHROMATICITIES:
        raise BadInput(f"no primaries are called {space!r}; known: {', '.join(CHROMATICITIES)}")
    return CHROMATICITIES[space]


def rgb_to_xyz(space: str | Chromaticities) -> Matrix:
    """3x3 from linear RGB (1, 1, 1 is white) to CIE XYZ with Y = 1 at white, white not adapted.

    Source: SMPTE RP 177:1993. Raises BadInput when the chromaticities span no triangle or the white has y <=
    0.
    """
    return _rgb_to_xyz(chromaticities_of(space)).copy()


def xyz_to_rgb(space: str | Chromaticities) -> Matrix:
    """The inverse of `rgb_to_xyz`."""
    inverse: Matrix = np.linalg.inv(_rgb_to_xyz(chromaticities_of(space))).astype(np.float64)
    return inverse


def adaptation(
    source_white: tuple[float, float], target_white: tuple[float, float], cones: Matrix = _BRADFORD
) -> Matrix:
    """3x3 on XYZ that takes one white xy to the other (von Kries in `cones`); identity when they are the
    same.
    """
    if source_white == target_white:
        return np.eye(3)
    ratio = (cones @ _xyz_of(*target_white)) / (cones @ _xyz_of(*source_white))
    return np.linalg.inv(cones) @ np.diag(ratio) @ cones


def rgb_to_rgb(source: str | Chromaticities, target: str | Chromaticities) -> Matrix:
    """3x3 float64 from linear RGB of `source` to that of `target`; white goes to white.

    Both sides are adapted to the ACES white by their own method (Bradford; CAT02 for the ARRI spaces), which
    is plain Bradford, or none for equal whites, wherever ARRI is not involved. Use as `pixels @ matrix.T` on
    (..., 3).
    """
    first, second = chromaticities_of(source), chromaticities_of(target)
    if first == second:
        return np.eye(3)
    return np.linalg.inv(_rgb_to_aces_xyz(second)) @ _rgb_to_aces_xyz(first)


def luminance_weights(space: str | Chromaticities) -> npt.NDArray[np.float64]:
    """The (3,) weights of linear R, G and B in relative luminance Y; they sum to 1."""
    return rgb_to_xyz(space)[1]


def same_chromaticities(first: Chromaticities, second: Chromaticities, tolerance: float = 1e-4) -> bool:
    """Whether all eight agree within `tolerance` (EXR headers hold them as float32)."""
    return all(abs(a - b) <= tolerance for a, b in zip(first, second, strict=True))


def known_name(chromaticities: Chromaticities) -> str | None:
    """The name in CHROMATICITIES of these eight, or None."""
    for name, known in CHROMATICITIES.items():
        if same_chromaticities(chromaticities, known):
            return name
    return None


def _xyz_of(x: float, y: float) -> Matrix:
    return np.array([x / y, 1.0, (1.0 - x - y) / y], dtype=np.float64)


@lru_cache(maxsize=64)
def _rgb_to_xyz(chromaticities: Chromaticities) -> Matrix:
    values = np.asarray(chromaticities, dtype=np.float64)
    if values.shape != (8,) or not np.isfinite(values).all() or values[7] <= 0.0:
        raise BadInput(f"chromaticities must be eight finite numbers with white y above 0, got {chromaticities}")
    xy = values[:6].reshape(3, 2)
    columns = np.stack([xy[:, 0], xy[:, 1], 1.0 - xy[:, 0] - xy[:, 1]])
    if abs(float(np.linalg.det(columns))) < 1e-9:
        raise BadInput(f"the primaries {chromaticities[:6]} lie on one line; correct the file's chromaticities")
    scale = np.linalg.solve(columns, _xyz_of(float(values[6]), float(values[7])))
    return columns * scale


@lru_cache(maxsize=64)
def _rgb_to_aces_xyz(chromaticities: Chromaticities) -> Matrix:
    to_xyz = _rgb_to_xyz(chromaticities)
    cones = _CAT02 if known_name(chromaticities) in _CAT02_SPACES else _BRADFORD
    return adaptation((chromaticities[6], chromaticities[7]), _ACES_WHITE, cones) @ to_xyz
