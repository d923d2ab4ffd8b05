"""SDR2HDR by LumaFlux: SDR plates in, one scene-linear frame out for each.

It owns the order of a job: codes as the model takes them, the anchor of exposure, and the plate's own detail. It must
not know sockets, files or how anything was trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from hdrgen_server.colour.curves import CURVES
from hdrgen_server.colour.interop import colourspace
from hdrgen_server.colour.ocio import convert
from hdrgen_server.colour.primaries import rgb_to_rgb
from hdrgen_server.contracts.descriptor import Descriptor
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.contracts.operator import Progress, Request
from hdrgen_server.networks.offload import helps, place
from hdrgen_server.packs.manifest import Pack
from hdrgen_server.systems.detail import anchor_stops, keep_detail
from hdrgen_server.systems.layers import GENERATED
from hdrgen_server.systems.lumaflux.adapters import MODULES
from hdrgen_server.systems.lumaflux.config import CONFIGS
from hdrgen_server.systems.lumaflux.flow import DRAFT_STEPS, FINAL_STEPS
from hdrgen_server.systems.lumaflux.frame import ON_CPU, ON_CUDA, Drive, FrameConverter, Tiling
from hdrgen_server.systems.lumaflux.loading import VAE, load_lumaflux
from hdrgen_server.systems.lumaflux.model import LumaFlux
from hdrgen_server.systems.lumaflux.tonefield import Field
from hdrgen_server.systems.sdr2hdr import SdrPlate, display_light, generated_share, result_of, sdr_plate
from nuke_hdrgen.wire.errors import BadInput

Float32 = npt.NDArray[np.float32]


def create(pack: Pack, device: str) -> LumaFluxOperator:
    """Load a pack onto a device; its option `without` lists the modules that its training left out.

    Raises BadInput naming the file that is missing, damaged or another model's.
    """
    name = str(pack.options.get("config", ""))
    if name not in CONFIGS:
        raise BadInput(f"pack {pack.name} has config {name!r}, which is none of {', '.join(CONFIGS)}; add it again")
    without = frozenset(map(str, pack.options.get("without", ())))
    if without - set(MODULES):
        raise BadInput(
            f"pack {pack.name} leaves out {min(without - set(MODULES))!r}, which is no module; make it again"
        )
    on_cuda = device.startswith("cuda")
    dtype = torch.bfloat16 if on_cuda else torch.float32
    model = load_lumaflux(CONFIGS[name], pack.path, dtype, without, pack.holder(VAE).path)
    return LumaFluxOperator(pack.descriptor, model.to(torch.device(device)), ON_CUDA if on_cuda else ON_CPU)


@dataclass(frozen=True, eq=False)
class _Before:
    """What one frame leaves to the next of its job: its tone field and its exposure anchor."""

    field: Field
    stops: float


class LumaFluxOperator:
    """A loaded pack. One job at a time."""

    def __init__(self, descriptor: Descriptor, model: LumaFlux, tiling: Tiling) -> None:
        self._descriptor, self.model, self._tiling = descriptor, model, tiling
        self._rung = 0

    @property
    def descriptor(self) -> Descriptor:
        """What the system says about itself."""
        return self._descriptor

    def set_rung(self, rung: int) -> None:
        """Rung 2 and above halve the tiles, once a rung; on the last the transformer waits in main memory."""
        self._rung = rung
        place(self.model.steered.transformer, self.model.device, offloaded=helps(self.model.device, rung))

    def run(self, request: Request, frames: Iterable[Frame], progress: Progress) -> Iterator[Frame]:
        """Yield one result a frame, linear Rec.2020, mid-grey staying where the plate has it.

        Alpha, layers, windows and metadata pass. Where the plate is known, the result is the plate times a gain; where
        it clips, the model's own light. `aovs` adds `hdrgen.generated` (how much of a pixel is generated),
        `hdrgen.clipped` and `hdrgen.gain_r`, `_g` and `_b` (stops over the plate). Raises BadInput for plates that are
        no SDR.
        """
        drive = _drive(request, self.model.config.bridge_noise)
        smoothing = float(request.parameters["smoothing"])
        before: _Before | None = None
        for index, frame in enumerate(frames):
            plate = sdr_plate(frame, request.parameters)

            def step(done: int, total: int, frame_index: int = index) -> None:
                progress.step(done, total, frame_index)

            result, before = self._convert(frame, plate, request, drive, before, smoothing, step)
            yield result

    def _convert(
        self,
        frame: Frame,
        plate: SdrPlate,
        request: Request,
        drive: Drive,
        before: _Before | None,
        smoothing: float,
        step: Callable[[int, int], None],
    ) -> tuple[Frame, _Before]:
        codes_hwc, warnings = _model_codes(plate)
        tiling = self._tiles(int(request.parameters["tile"]))
        converter = FrameConverter(self.model, codes_hwc, tiling, drive, step)
        earlier = before.field if before is not None and smoothing else None
        made = converter.run(earlier, smoothing)
        space = colourspace(self._descriptor.output_space)
        plate_hwc = convert(plate.codes, space).rgb
        found_hwc = CURVES["pq"].decode(made.pq_hwc)
        generated_hwc = generated_share(plate)
        known_hw = 1 - generated_hwc.max(axis=2)
        round_trip_hwc = _display_light(made.round_trip_hwc)
        raised = anchor_stops(plate_hwc, found_hwc, round_trip_hwc, known_hw)
        found_hwc *= np.float32(2.0**raised)
        config = self.model.config
        kept = keep_detail(plate_hwc, found_hwc, round_trip_hwc, generated_hwc, config.cell, config.belief)
        stops = raised + anchor_stops(plate_hwc, kept.scene_linear_hwc, plate_hwc, known_hw)
        if before is not None:
            stops += smoothing * (before.stops - stops)
        kept = kept.raised(stops - raised)
        result = result_of(frame, plate, kept.scene_linear_hwc, space, aovs=request.aovs)
        metadata = {**result.metadata, "warnings": (*plate.warnings, *warnings)}
        layers = dict(result.layers)
        if request.aovs:
            layers[GENERATED] = generated_hwc.max(axis=2)
            for channel, name in enumerate("rgb"):
                layers[f"hdrgen.gain_{name}"] = np.ascontiguousarray(kept.gain_hwc[..., channel])
        return replace(result, metadata=metadata, layers=layers), _Before(made.field, stops)

    def _tiles(self, asked: int) -> Tiling:
        """The device's tiles or those of an edge that was asked for, halved once a rung from 2."""
        cell, tiling = self.model.config.cell, self._tiling
        if asked:
            edge = max(asked // cell * cell, 4 * cell)
            tiling = Tiling(edge, min(tiling.vae_overlap, edge // 4), edge, min(tiling.transformer_overlap, edge // 4))
        return tiling.halved(max(0, self._rung - 1), cell)


def _drive(request: Request, noise: float) -> Drive:
    asked = int(request.parameters["steps"])
    steps = asked or (FINAL_STEPS if request.quality == "final" else DRAFT_STEPS)
    return Drive(steps, float(request.parameters["strength"]), noise, request.seed)


def _model_codes(plate: SdrPlate) -> tuple[Float32, tuple[str, ...]]:
    """The plate as the model takes it, (H, W, 3): BT.709 codes of a BT.1886 display that shows the same light."""
    light_hwc, warnings = display_light(plate)
    return CURVES["rec1886"].encode(light_hwc), warnings


def _display_light(codes_hwc: Float32) -> Float32:
    """BT.709 codes of a BT.1886 display as linear BT.2020 light."""
    matrix = rgb_to_rgb("rec709", "rec2020").astype(np.float32)
    return CURVES["rec1886"].decode(codes_hwc) @ matrix.T
