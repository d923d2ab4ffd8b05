"""What the script's scene-linear working space is, and what exposure a picture's metadata states.

It owns asking the script's OCIO config through Nuke's own PyOpenColorIO, where there is one. It must not know jobs; a
space that cannot be resolved is left to the node's `colourspace` knob, never guessed.
"""

from __future__ import annotations

import importlib
import math
import os
from typing import Any, List, Mapping, Optional, Sequence, Tuple

import nuke

from nuke_hdrgen.wire.errors import BadParameter
from nuke_hdrgen.wire.messages import Colourspace

ROLE = "scene_linear"
NUKE_LINEAR = "lin_rec709_scene"  # Nuke's own colour management works with the primaries of Rec.709
AP0_TO_XYZ = (  # SMPTE ST 2065-1:2021, normalised primary matrix of AP0, rows X Y Z
    (0.9525523959, 0.0000000000, 0.0000936786),
    (0.3439664498, 0.7281660966, -0.0721325464),
    (0.0000000000, 0.0000000000, 1.0088251844),
)
INTERCHANGE = "aces_interchange"
EXPOSURE_KEYS: Tuple[Tuple[Tuple[str, ...], Tuple[str, ...], Tuple[str, ...]], ...] = (
    (("exr/expTime",), ("exr/aperture",), ("exr/isoSpeed",)),
    (
        ("exif/2/ExposureTime", "exif/ExposureTime"),
        ("exif/2/FNumber", "exif/FNumber"),
        ("exif/2/ISOSpeedRatings", "exif/ISOSpeedRatings", "exif/2/PhotographicSensitivity"),
    ),
)


def working_space() -> Optional[Colourspace]:
    """The script's scene-linear space, or None where neither Nuke nor its config can say what it is."""
    root = nuke.root()
    if str(root["colorManagement"].value()) == "Nuke":
        return Colourspace(NUKE_LINEAR, NUKE_LINEAR)
    try:
        ocio: Any = importlib.import_module("PyOpenColorIO")
    except ImportError:
        return None
    try:
        return _of_config(ocio, _config(ocio, root))
    except (ocio.Exception, ocio.ExceptionMissingFile):
        return None


def stated_space(colourspace: str, chromaticities: str) -> Colourspace:
    """What the two saved knobs say, for the wire. Raises BadParameter when they say nothing or no eight numbers."""
    if not chromaticities:
        if not colourspace:
            raise BadParameter(
                "colourspace is empty and the script's config could not be asked; set it to the working space's "
                "interop id, such as lin_rec709_scene or lin_ap1_scene"
            )
        return Colourspace(colourspace, colourspace)
    try:
        numbers = tuple(float(word) for word in chromaticities.split())
    except ValueError:
        numbers = ()
    if len(numbers) != 8 or not all(math.isfinite(number) for number in numbers):
        raise BadParameter("chromaticities needs the eight numbers rx ry gx gy bx by wx wy; clear it to resolve anew")
    return Colourspace(colourspace or "scene_linear", "", numbers)


def exposure_ev(metadata: Mapping[str, object]) -> Optional[float]:
    """log2 of the exposure that metadata states (time x ISO/100 / aperture^2), None without an exposure time.

    Aperture and sensitivity count where they are stated, so a bracket by time alone needs no more. Source: ISO 2720,
    exposure value.
    """
    for time_keys, aperture_keys, iso_keys in EXPOSURE_KEYS:
        seconds = _first(metadata, time_keys)
        if seconds is not None:
            aperture, iso = _first(metadata, aperture_keys) or 1.0, _first(metadata, iso_keys) or 100.0
            return math.log2(seconds * iso / 100.0 / aperture**2)
    return None


def _first(metadata: Mapping[str, object], keys: Sequence[str]) -> Optional[float]:
    for key in keys:
        number = _number(metadata.get(key))
        if number is not None and number > 0:
            return number
    return None


def _number(value: object) -> Optional[float]:
    above, slash, below = str(value).strip().partition("/")
    try:
        return float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError):
        return None


def _config(ocio: Any, root: nuke.Node) -> Any:
    """The config that the script uses: `$OCIO` wins over the script's own choice, as in Nuke."""
    evaluated = root.knob("OCIOConfigPath")
    chosen = str(evaluated.value()) if evaluated is not None else str(root["customOCIOConfigPath"].value())
    named = os.environ.get("OCIO") or chosen
    return ocio.Config.CreateFromFile(named) if named else ocio.GetCurrentConfig()


def _of_config(ocio: Any, config: Any) -> Optional[Colourspace]:
    space = config.getColorSpace(ROLE)
    if space is None:
        return None
    interop_id = str(space.getInteropID()) if hasattr(space, "getInteropID") else ""
    if interop_id:
        return Colourspace(str(space.getName()), interop_id)
    if not config.hasRole(INTERCHANGE):
        return None
    processor = config.getProcessor(ROLE, INTERCHANGE).getDefaultCPUProcessor()
    corners: List[Sequence[float]] = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)]
    found: List[float] = []
    for corner in corners:
        x, y, z = _xyz(processor.applyRGB([float(value) for value in corner]))
        total = x + y + z
        if not total:
            return None
        found += [round(x / total, 6), round(y / total, 6)]
    return Colourspace(str(space.getName()), "", tuple(found))


def _xyz(ap0: Sequence[float]) -> Tuple[float, float, float]:
    x, y, z = (sum(weight * value for weight, value in zip(row, ap0)) for row in AP0_TO_XYZ)
    return x, y, z
