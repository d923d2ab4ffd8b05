"""SDR2HDR and Txt2HDR by LatentHDR: a plate's or a prompt's latent, its exposures, one scene-linear frame.

It owns which operator a pack becomes, and the order of a plate's job: light of the plate, stack, merge, and the plate's
own detail. It must not know sockets, files or how anything was trained. Prompts are in `generated`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from hdrgen_server.colour.interop import colourspace
from hdrgen_server.colour.ocio import convert
from hdrgen_server.colour.primaries import rgb_to_rgb
from hdrgen_server.contracts.descriptor import Descriptor
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.contracts.operator import Operator, Progress, Request
from hdrgen_server.packs.manifest import Pack
from hdrgen_server.systems.detail import anchor_stops, keep_detail
from hdrgen_server.systems.latenthdr.exposure import light_of, picture_of
from hdrgen_server.systems.latenthdr.generated import create_generated
from hdrgen_server.systems.latenthdr.loading import Loaded, load_latenthdr
from hdrgen_server.systems.latenthdr.merged import asked_evs, asked_tiles, merge_stack
from hdrgen_server.systems.latenthdr.stack import StackMaker
from hdrgen_server.systems.layers import GENERATED
from hdrgen_server.systems.qwenlog.frame import ON_CPU, ON_CUDA, Tiling
from hdrgen_server.systems.sdr2hdr import SdrPlate, display_light, generated_share, result_of, sdr_plate
from nuke_hdrgen.wire.errors import BadInput

Float32 = npt.NDArray[np.float32]
MOST_ABOVE = 0.02
"""This share of samples may be above white: a resampled plate overshoots at its edges."""
ROUND_TRIP = 2
"""Beside the stack: the plate into its latent, and that latent back as it is, which tells what the VAE loses."""


def create(pack: Pack, device: str) -> Operator:
    """Load a pack onto a device, for the operation that its manifest names.

    Raises BadInput naming the file that is missing, damaged or another model's, a backbone without a matching head, and
    a pack that is to draw without a generator.
    """
    if pack.descriptor.operations == ("txt2hdr",):
        return create_generated(pack, device)
    on = torch.device(device)
    tiling = ON_CUDA if on.type == "cuda" else ON_CPU
    return PlateOperator(pack.descriptor, load_latenthdr(pack).to(on), tiling, pack.name)


class PlateOperator:
    """A loaded pack of sdr2hdr. One job at a time."""

    def __init__(self, descriptor: Descriptor, loaded: Loaded, tiling: Tiling, name: str) -> None:
        self._descriptor, self.loaded, self._tiling, self._name = descriptor, loaded, tiling, name
        self._rung = 0

    @property
    def descriptor(self) -> Descriptor:
        """What the system says about itself."""
        return self._descriptor

    def set_rung(self, rung: int) -> None:
        """Rung 2 and above halve the VAE's tiles."""
        self._rung = rung

    def run(self, request: Request, frames: Iterable[Frame], progress: Progress) -> Iterator[Frame]:
        """Yield one result a frame, linear Rec.2020, mid-grey staying where the plate has it.

        Alpha, layers, windows and metadata pass. Where the plate is known, the result is the plate times a gain; where
        it clips, the merged light. `aovs` adds `hdrgen.generated`, `hdrgen.clipped`, `hdrgen.gain_r`, `_g` and `_b`
        (stops over the plate), and the stack's exposures. Raises BadParameter for EVs that the head was not trained on,
        BadInput for plates that are no SDR or hold HDR light already.
        """
        evs = asked_evs(request.parameters, self.loaded.evs, self._name)
        for index, frame in enumerate(frames):
            plate = sdr_plate(frame, request.parameters)
            _refuse_hdr(frame, plate)

            def step(done: int, total: int, frame_index: int = index) -> None:
                progress.step(done, total, frame_index)

            yield self._convert(frame, plate, request, evs, step)

    def _convert(
        self,
        frame: Frame,
        plate: SdrPlate,
        request: Request,
        evs: tuple[float, ...],
        step: Callable[[int, int], None],
    ) -> Frame:
        shown_hwc, warnings = display_light(plate)
        loaded, size = self.loaded, (frame.height, frame.width)
        tiling = asked_tiles(self._tiling, int(request.parameters["tile"]), self._rung, loaded.space.factor)
        maker = StackMaker(loaded.head, loaded.space, size, evs, tiling, step, passes=ROUND_TRIP)
        with torch.inference_mode():
            base = maker.encode(picture_of(shown_hwc, 0.0))
            again_hwc = maker.decode(base)[0]
        stacked = merge_stack(maker.stack(base), size, aovs=request.aovs)
        maker.finished()
        to_result = rgb_to_rgb("rec709", "rec2020").astype(np.float32).T
        found_hwc = stacked.merged.scene_linear_hwc @ to_result
        round_trip_hwc: Float32 = light_of((again_hwc + 1) / 2, 0.0).astype(np.float32) @ to_result
        space = colourspace(self._descriptor.output_space)
        plate_hwc = convert(plate.codes, space).rgb
        generated_hwc = generated_share(plate)
        known_hw = 1 - generated_hwc.max(axis=2)
        found_hwc *= np.float32(2.0 ** anchor_stops(plate_hwc, found_hwc, round_trip_hwc, known_hw))
        radius, belief = 2 * loaded.space.factor, loaded.head.config.belief
        kept = keep_detail(plate_hwc, found_hwc, round_trip_hwc, generated_hwc, radius, belief)
        kept = kept.raised(anchor_stops(plate_hwc, kept.scene_linear_hwc, plate_hwc, known_hw))
        result = result_of(frame, plate, kept.scene_linear_hwc, space, aovs=request.aovs)
        layers = {**result.layers, **stacked.layers}
        if request.aovs:
            layers[GENERATED] = generated_hwc.max(axis=2)
            for channel, name in enumerate("rgb"):
                layers[f"hdrgen.gain_{name}"] = np.ascontiguousarray(kept.gain_hwc[..., channel])
        return replace(result, metadata={**result.metadata, "warnings": (*plate.warnings, *warnings)}, layers=layers)


def _refuse_hdr(frame: Frame, plate: SdrPlate) -> None:
    """Raises BadInput for a plate that holds light above what SDR can: nothing clips, so there is nothing to open."""
    share = plate.counts.above / max(1, plate.counts.samples)
    if plate.warnings or share > MOST_ABOVE:
        what = plate.warnings[0] if plate.warnings else f"{share:.0%} of frame {frame.number} is above SDR's white"
        raise BadInput(
            f"{what}; a frame that is HDR already needs no latenthdr: use it as it is, say how SDR was encoded "
            "(--set encoding=…), or take bt2446, which cuts"
        )
