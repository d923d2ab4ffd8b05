"""The merge as an operator: frames of a bracket in, one scene-linear Rec.709 frame at the reference's exposure out.

It owns what codes mean (the frame's own curve, a calibrated one, or linear values over their clip level) and the
result's tags. It must not know files, sockets or torch.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hdrgen_server.colour.interop import INTEROP, colourspace, transfer_of
from hdrgen_server.colour.primaries import CHROMATICITIES, rgb_to_rgb, same_chromaticities
from hdrgen_server.contracts.descriptor import Descriptor
from hdrgen_server.contracts.frame import Colourspace, Frame
from hdrgen_server.contracts.operator import Progress, Request
from hdrgen_server.image.calibrate import calibrate, linearise
from hdrgen_server.image.clip import bracket_clip_level
from hdrgen_server.packs.manifest import Pack
from hdrgen_server.systems.merge.merge import (
    Decode,
    check_bracket,
    merge_bracket,
    middle_exposure,
    srgb_decode,
)
from nuke_hdrgen.wire.errors import BadInput

Float32 = npt.NDArray[np.float32]
UNCLIPPED_HEADROOM = 1.25


class MergeOperator:
    """The plain weighted merge; holds no weights and no state."""

    def __init__(self, descriptor: Descriptor) -> None:
        self.descriptor = descriptor

    def run(self, request: Request, frames: Iterable[Frame], progress: Progress) -> Iterator[Frame]:
        """Yield the one merged frame, with the reference's windows, alpha, layers and metadata.

        With `request.aovs` it carries the layer `hdrgen.generated`, (H, W) float32: 1 where every exposure was clipped
        or crushed in some channel, so that the value is a guess. Raises BadInput for brackets that cannot be merged.
        """
        bracket = list(frames)
        evs = [frame.ev for frame in bracket]
        asked = int(request.parameters["reference"])
        reference = middle_exposure(evs) if asked < 0 and evs else asked
        check_bracket([(f.height, f.width) for f in bracket], evs, reference)
        progress.step(0, 1)
        codes, decode, full_scale = _codes(bracket, str(request.parameters["response"]))
        merged = merge_bracket(codes, evs, reference, decode=decode)
        rgb = _to_rec709(merged.scene_linear_hwc * np.float32(full_scale), bracket[0].colourspace)
        guessed = merged.clipped_hwc.any(axis=2) | merged.crushed_hwc.all(axis=2)
        progress.step(1, 1)
        yield _result(bracket[reference], rgb, guessed if request.aovs else None)

    def set_rung(self, rung: int) -> None:
        """Nothing to give back: the merge already works in bands of rows."""
        del rung


def create(pack: Pack, device: str) -> MergeOperator:
    """The merge of a pack; it computes in numpy whatever the device."""
    del device
    return MergeOperator(pack.descriptor)


def _codes(bracket: Sequence[Frame], response: str) -> tuple[list[Float32], Decode, float]:
    """Each frame as codes in 0..1, the way from codes to linear, and the light that full scale stands for."""
    spaces = {(frame.colourspace.range, frame.colourspace.interop_id) for frame in bracket}
    if len(spaces) > 1:
        names = ", ".join(sorted({frame.colourspace.name for frame in bracket}))
        raise BadInput(f"the images of the bracket are in different colourspaces ({names}); convert them to one")
    kind = bracket[0].colourspace.range
    if kind == "data":
        raise BadInput(f"the bracket is tagged as data ({bracket[0].colourspace.name}); name its --input-colourspace")
    pixels = [frame.rgb for frame in bracket]
    for index, values in enumerate(pixels):
        if not np.isfinite(values).all():
            raise BadInput(f"image {index + 1} of the bracket holds NaN or Inf; replace them first")
    if kind == "encoded":
        return pixels, _decoder(bracket, response), 1.0
    level = _clip_level(bracket)
    return [values / np.float32(level) for values in pixels], _as_is, level


def _decoder(bracket: Sequence[Frame], response: str) -> Decode:
    if response == "calibrated":
        found = calibrate([frame.with_pixels(frame.rgb, channels=("R", "G", "B")) for frame in bracket],
                          [frame.ev for frame in bracket])  # fmt: skip
        return functools.partial(linearise, curve=found.curve)
    interop_id = bracket[0].colourspace.interop_id
    transfer = transfer_of(interop_id) if interop_id in INTEROP else None
    return srgb_decode if transfer is None else transfer.decode


def _as_is(linear_hwc: Float32) -> Float32:
    return linear_hwc


def _clip_level(bracket: Sequence[Frame]) -> float:
    """The value at which linear frames clip: as their files say, else as found, else safely above every value."""
    said = [float(f.metadata["clip_level"]) for f in bracket if "clip_level" in f.metadata]
    if len(said) == len(bracket) and min(said) > 0:
        return min(said)
    found = bracket_clip_level(bracket)
    if found is not None and found > 0:
        return found
    return UNCLIPPED_HEADROOM * max(1e-6, *(float(frame.rgb.max()) for frame in bracket))


def _to_rec709(linear_hwc: Float32, source: Colourspace) -> Float32:
    """From the primaries of the input to Rec.709; a space without stated primaries is Rec.709 already."""
    if source.chromaticities is None or same_chromaticities(source.chromaticities, CHROMATICITIES["rec709"]):
        return linear_hwc
    return linear_hwc @ rgb_to_rgb(source.chromaticities, "rec709").astype(np.float32).T


def _result(reference: Frame, rgb: Float32, guessed: npt.NDArray[np.bool_] | None) -> Frame:
    pixels, channels = rgb, ("R", "G", "B")
    if "A" in reference.channels:
        alpha = reference.pixels[..., reference.channels.index("A")]
        pixels, channels = np.concatenate([rgb, alpha[..., None]], axis=2), (*channels, "A")
    layers: dict[str, npt.NDArray[Any]] = dict(reference.layers)
    if guessed is not None:
        layers["hdrgen.generated"] = guessed.astype(np.float32)
    tagged = replace(reference, ev=0.0, colourspace=colourspace("lin_rec709_scene"), layers=layers)
    return tagged.with_pixels(pixels, channels=channels)
