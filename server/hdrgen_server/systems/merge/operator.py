"""The merge as an operator: frames of a bracket in, one scene-linear frame at the reference's exposure out.

It owns what codes mean (the frame's own curve, a calibrated one, or linear values over their clip level), the order of
a job and its memory: full frames are only looked at, band by band. It must not know files, sockets or torch.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hdrgen_server.colour.interop import INTEROP, transfer_of
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.contracts.operator import Progress, Request
from hdrgen_server.image.calibrate import calibrate, linearise
from hdrgen_server.image.clip import bracket_clip_level
from hdrgen_server.packs.manifest import Pack
from hdrgen_server.systems.hdrfuse import check_bracket, clipped_layer, linear_of, reference_index
from hdrgen_server.systems.merge.merge import Decode, merge_bracket, srgb_decode
from hdrgen_server.systems.plain import PlainOperator
from nuke_hdrgen.wire.errors import BadInput

Float32 = npt.NDArray[np.float32]
UNCLIPPED_HEADROOM = 1.25
BAND_PIXELS = 1 << 16


def create(pack: Pack, device: str) -> MergeOperator:
    """The merge of a pack; it computes in numpy whatever the device."""
    del device
    return MergeOperator(pack.descriptor)


@dataclass(frozen=True)
class _Meaning:
    """How pixels become light: `decode` of the values over `full_scale` gives light over `full_scale`."""

    decode: Decode
    full_scale: float = 1.0


class MergeOperator(PlainOperator):
    """The plain weighted merge; holds no weights and no state."""

    def run(self, request: Request, frames: Iterable[Frame], progress: Progress) -> Iterator[Frame]:
        """Yield the one merged frame, with the reference's exposure, windows, alpha, layers and metadata.

        With `request.aovs` it carries the layer `hdrgen.generated`, (H, W) float32: 1 where every exposure is clipped
        in some channel, or crushed in all three, so that the value is a guess; and `hdrgen.clipped`. Raises BadInput
        for brackets that cannot be merged, BadParameter for a reference that is not there.
        """
        bracket = list(frames)
        reference = reference_index(bracket, int(request.parameters["reference"])) if bracket else 0
        check_bracket(bracket, reference)
        meaning = _meaning(bracket, str(request.parameters["response"]))
        base = bracket[reference]
        alpha = base.pixels[..., base.channels.index("A")] if "A" in base.channels else None
        channels = ("R", "G", "B") if alpha is None else ("R", "G", "B", "A")
        pixels = np.empty((base.height, base.width, len(channels)), np.float32)
        generated = np.empty((base.height, base.width), np.float32) if request.aovs else None
        bands = _bands(base.height, base.width)
        for done, rows in enumerate(bands):
            progress.step(done, len(bands))
            codes = [_codes(frame, index, rows, meaning) for index, frame in enumerate(bracket)]
            merged = merge_bracket(codes, [frame.ev for frame in bracket], reference, decode=meaning.decode)
            np.multiply(merged.scene_linear_hwc, np.float32(meaning.full_scale), out=pixels[rows, :, :3])
            if alpha is not None:
                pixels[rows, :, 3] = alpha[rows]
            if generated is not None:
                generated[rows] = merged.clipped_hwc.any(axis=2) | merged.crushed_hwc.all(axis=2)
        progress.step(len(bands), len(bands))
        layers = dict(base.layers)
        if generated is not None:
            layers |= {"hdrgen.generated": generated, **clipped_layer(bracket, reference)}
        yield base.with_pixels(
            pixels, channels=channels, colourspace=linear_of(base.colourspace), layers=layers, ev=0.0
        )


def _bands(height: int, width: int) -> list[slice]:
    rows = max(1, BAND_PIXELS // width)
    return [slice(top, min(top + rows, height)) for top in range(0, height, rows)]


def _codes(frame: Frame, index: int, rows: slice, meaning: _Meaning) -> Float32:
    """The colour of some rows over full scale; a grey frame repeats its channel."""
    band = frame.pixels[rows, :, :3] if len(frame.channels) >= 3 else np.repeat(frame.pixels[rows, :, :1], 3, axis=2)
    if not np.isfinite(band).all():
        raise BadInput(f"frame {index} of the bracket holds NaN or Inf in rows {rows.start} to {rows.stop - 1}; "
                       "replace them first")  # fmt: skip
    return band if meaning.full_scale == 1.0 else band / np.float32(meaning.full_scale)


def _meaning(bracket: Sequence[Frame], response: str) -> _Meaning:
    space = bracket[0].colourspace
    if space.range == "data":
        raise BadInput(f"the bracket is tagged as data ({space.name}); name its --input-colourspace")
    if space.range == "scene_linear":
        return _Meaning(_as_is, _clip_level(bracket))
    if response == "calibrated":
        curve = calibrate(bracket, [frame.ev for frame in bracket]).curve
        return _Meaning(functools.partial(linearise, curve=np.broadcast_to(curve, (len(curve), 3))))
    transfer = transfer_of(space.interop_id) if space.interop_id in INTEROP else None
    return _Meaning(srgb_decode if transfer is None else transfer.decode)


def _as_is(linear_hwc: Float32) -> Float32:
    return linear_hwc


def _clip_level(bracket: Sequence[Frame]) -> float:
    """The value at which linear frames clip: as their files say, else as found, else safely above every value."""
    said = [float(frame.metadata["clip_level"]) for frame in bracket if "clip_level" in frame.metadata]
    if len(said) == len(bracket) and min(said) > 0:
        return min(said)
    found = bracket_clip_level(bracket)
    if found is not None and found > 0:
        return found
    brightest = max(float(frame.pixels[..., : min(3, len(frame.channels))].max()) for frame in bracket)
    return UNCLIPPED_HEADROOM * max(1e-6, brightest)
