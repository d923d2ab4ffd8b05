"""What every system that expands SDR plates agrees on: codes, thresholds, anchor and layers.

It must not know any one of them, nor torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hdrgen_server.colour.interop import colourspace
from hdrgen_server.colour.ocio import convert
from hdrgen_server.colour.sdr import CRUSHED_CODE, SdrCounts, threshold_masks, to_sdr
from hdrgen_server.contracts.descriptor import Value
from hdrgen_server.contracts.frame import Colourspace, Frame
from hdrgen_server.image.finish import result_weight
from hdrgen_server.systems.layers import CLIPPED, GENERATED, clipped_weight
from nuke_hdrgen.wire.errors import BadInput

Float32 = npt.NDArray[np.float32]

MID_GREY = 0.18
OUTSIDE = 1e-4
# The parameter `encoding`, as interop ids; Rec.1886 with its black at 0 is the power 2.4.
ENCODINGS: Mapping[str, str] = {
    "srgb": "srgb_rec709_scene", "rec1886": "g24_rec709_scene", "gamma22": "g22_rec709_scene",
}  # fmt: skip
# Encoded frames say themselves what they are; these are SDR.
SDR_CURVES = ("srgb_", "g18_", "g22_", "g24_", "g26_")


@dataclass(frozen=True, eq=False)
class SdrPlate:
    """A plate as SDR: `codes` is its frame, encoded, with colour cut to [0, 1]; `clipped_code` the threshold in 0..1
    from which a code is clipped; `counts` and `warnings` what was cut and what looks wrong.
    """

    codes: Frame
    clipped_code: float
    counts: SdrCounts
    warnings: tuple[str, ...]


def sdr_plate(frame: Frame, parameters: Mapping[str, Value]) -> SdrPlate:
    """The plate of a frame by the parameters `encoding` and `clip_threshold` that every system of sdr2hdr has.

    A scene-linear frame is encoded by `encoding`, an encoded one keeps its own codes. Raises BadInput for data, for
    codes that are not SDR, and for NaN or Inf.
    """
    clipped_code = int(parameters["clip_threshold"]) / 255.0
    target = _encoding(frame.colourspace, str(parameters["encoding"]))
    made = to_sdr(frame, target, clipped_code, min(CRUSHED_CODE, clipped_code / 2))
    return SdrPlate(made.frame, clipped_code, made.counts, made.warnings)


def result_of(
    frame: Frame, plate: SdrPlate, scene_linear_hwc: npt.NDArray[np.floating], space: Colourspace, *, aovs: bool
) -> Frame:
    """The result of one frame: (H, W, 3) scene-linear light in `space`, with the frame's alpha, layers, windows and
    metadata, the plate's counts and warnings and, with `aovs`, its masks.

    `hdrgen.generated` is 1 where a channel is clipped or all three are crushed (codes up to 2/255), else 0;
    `hdrgen.clipped` is how much of the result a pixel takes where the plate is preserved. Both (H, W) float32.
    """
    alpha = frame.channels.index("A") if "A" in frame.channels else None
    channels = ("R", "G", "B") if alpha is None else ("R", "G", "B", "A")
    pixels = np.empty((frame.height, frame.width, len(channels)), np.float32)
    pixels[..., :3] = scene_linear_hwc
    if alpha is not None:
        pixels[..., 3] = frame.pixels[..., alpha]
    notes = {"counts": plate.counts.as_dict(), "warnings": plate.warnings}
    return frame.with_pixels(
        pixels,
        channels=channels,
        colourspace=space,
        layers={**frame.layers, **(_masks(plate) if aovs else {})},
        metadata={**frame.metadata, **notes},
    )


def display_light(plate: SdrPlate) -> tuple[Float32, tuple[str, ...]]:
    """The plate's light as a Rec.709 display shows it, (H, W, 3) linear Rec.709 in [0, 1], and a warning where that
    cuts.

    What lies outside Rec.709 is cut in this light, which only guides a model, and said so; the plate's own values are
    not.
    """
    light_hwc = convert(plate.codes, colourspace("lin_rec709_scene")).rgb
    outside = int(((light_hwc < -OUTSIDE) | (light_hwc > 1 + OUTSIDE)).sum())
    warnings = (f"{outside} samples lie outside Rec.709: the model sees them cut, the result has them",)
    return np.clip(light_hwc, 0, 1), warnings if outside else ()


def generated_share(plate: SdrPlate) -> Float32:
    """How much of each channel is generated, (H, W, 3): where it clips, feathered inwards as preserve plate is.

    A crushed pixel keeps the plate: what it hides is darker than code 2, and bars of black must stay black.
    """
    clipped, _ = threshold_masks(plate.codes.rgb, plate.clipped_code)
    return np.stack([result_weight(clipped[..., channel]) for channel in range(3)], axis=2)


def _masks(plate: SdrPlate) -> dict[str, Float32]:
    clipped, crushed = threshold_masks(plate.codes.rgb, plate.clipped_code)
    generated = np.any(clipped, axis=2) | np.all(crushed, axis=2)
    return {GENERATED: generated.astype(np.float32), CLIPPED: clipped_weight(plate.codes, plate.clipped_code)}


def _encoding(space: Colourspace, asked: str) -> Colourspace:
    if space.range == "scene_linear":
        return colourspace(ENCODINGS[asked])
    if space.range == "encoded" and space.interop_id.startswith(SDR_CURVES):
        return space
    raise BadInput(
        f"the plate is in {space.name}, which is no SDR encoding; convert it to sRGB or to a scene-linear space"
    )
