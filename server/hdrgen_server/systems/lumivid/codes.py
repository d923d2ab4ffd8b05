"""What LumiVid's VAE sees: SDR as a display's codes, HDR as LogC3 codes, both of linear Rec.709 light.

It owns the two codes and the counting of what they cannot hold. It must not know networks, clips or files. LogC3 at EI
800 holds light from 0 to 55.08 (code 1); what lies outside is held at the ends, and counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from hdrgen_server.colour.curves import CURVES, Curve
from hdrgen_server.colour.interop import colourspace
from hdrgen_server.colour.ocio import convert
from hdrgen_server.colour.primaries import rgb_to_rgb
from hdrgen_server.colour.sdr import threshold_masks
from hdrgen_server.image.finish import result_weight
from hdrgen_server.systems.sdr2hdr import SdrPlate

Float32 = npt.NDArray[np.float32]
OUTSIDE = 1e-4
TRANSFORMS: Mapping[str, Curve] = MappingProxyType({name: CURVES[name] for name in ("logc3", "pq")})
"""Curves that a pack's HDR codes may be made by: the document's, and the one that its Table 4 compares it with."""


def hdr_codes(scene_linear: Float32, transform: str = "logc3") -> tuple[Float32, int]:
    """Linear Rec.709 light (any shape) as codes in [0, 1], and how many samples were outside and held there."""
    codes = TRANSFORMS[transform].encode(np.maximum(scene_linear, 0))
    outside = (scene_linear < -OUTSIDE) | (codes > 1)
    return np.clip(codes, 0, 1), int(outside.sum())


def light_of(codes: Float32, transform: str = "logc3") -> tuple[Float32, int]:
    """Codes as a decoder gives them as linear Rec.709 light, 0 or above, and how many were above 1 and held there.

    Codes below that of black are the decoder's own noise: they are black.
    """
    held = int((codes > 1).sum())
    return np.maximum(TRANSFORMS[transform].decode(np.minimum(codes, 1)), 0), held


def sdr_codes(plate: SdrPlate) -> tuple[Float32, int]:
    """A plate as the model sees it, (H, W, 3): BT.709 codes of a BT.1886 display that shows the same light.

    And how many of its samples lie outside Rec.709 and were cut in these codes, which only guide.
    """
    light_hwc = convert(plate.codes, colourspace("lin_rec709_scene")).rgb
    outside = int(((light_hwc < -OUTSIDE) | (light_hwc > 1 + OUTSIDE)).sum())
    return CURVES["rec1886"].encode(np.clip(light_hwc, 0, 1)), outside


def display_light(codes: Float32) -> Float32:
    """BT.709 codes of a BT.1886 display as linear Rec.709 light."""
    return CURVES["rec1886"].decode(np.clip(codes, 0, 1))


def to_rec2020(scene_linear_hwc: Float32) -> Float32:
    """Linear Rec.709 light in Rec.2020's primaries, (H, W, 3)."""
    return scene_linear_hwc @ rgb_to_rgb("rec709", "rec2020").astype(np.float32).T


def generated_weight(plate: SdrPlate) -> Float32:
    """How much of each channel is generated, (H, W, 3): where it clips, feathered inwards as preserve plate is."""
    clipped, _ = threshold_masks(plate.codes.rgb, plate.clipped_code)
    return np.stack([result_weight(clipped[..., channel]) for channel in range(3)], axis=2)
