"""SDR2HDR by LumiVid: the frames of a shot in, one scene-linear frame out for each.

It owns the order of a job: codes as the model takes them, windows, the anchor of exposure, and the plate's own detail.
It must not know sockets, files or how anything was trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
import torch

from hdrgen_server.colour.interop import colourspace
from hdrgen_server.colour.ocio import convert
from hdrgen_server.contracts.descriptor import Descriptor
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.contracts.operator import Progress, Request
from hdrgen_server.networks.offload import helps, place
from hdrgen_server.packs.manifest import Pack
from hdrgen_server.systems.detail import WHOLE, Kept, anchor_stops, keep_detail, log_luminance
from hdrgen_server.systems.layers import GENERATED
from hdrgen_server.systems.lumivid import codes as c
from hdrgen_server.systems.lumivid.clip import ClipConverter, Drive, Tiling
from hdrgen_server.systems.lumivid.config import CONFIGS
from hdrgen_server.systems.lumivid.loading import load_lumivid
from hdrgen_server.systems.lumivid.model import LumiVid
from hdrgen_server.systems.lumivid.shot import Blended, Scene, blended
from hdrgen_server.systems.sdr2hdr import SdrPlate, result_of, sdr_plate
from nuke_hdrgen.wire.errors import BadInput, BadParameter

Float32 = npt.NDArray[np.float32]
ON_CPU, ON_CUDA = Tiling(512, 128), Tiling(1024, 256)


def create(pack: Pack, device: str) -> LumiVidOperator:
    """Load a pack onto a device; its option `transform` names the curve of its HDR codes, LogC3 unless it says so.

    Raises BadInput naming the file that is missing, damaged or another model's.
    """
    name, transform = (str(pack.options.get(key, given)) for key, given in (("config", ""), ("transform", "logc3")))
    for chosen, known, what in ((name, CONFIGS, "config"), (transform, c.TRANSFORMS, "transform")):
        if chosen not in known:
            raise BadInput(f"pack {pack.name} has {what} {chosen!r}, which is none of {', '.join(known)}; add it again")
    on_cuda = device.startswith("cuda")
    model = load_lumivid(CONFIGS[name], pack.path, torch.bfloat16 if on_cuda else torch.float32)
    return LumiVidOperator(pack.descriptor, model.to(device), ON_CUDA if on_cuda else ON_CPU, transform)


@dataclass(frozen=True, eq=False)
class _Taken:
    """One frame of the shot, its plate, and how many of its samples the model sees cut."""

    frame: Frame
    plate: SdrPlate
    outside: int


class LumiVidOperator:
    """A loaded pack. One job at a time."""

    def __init__(self, descriptor: Descriptor, model: LumiVid, tiling: Tiling, transform: str) -> None:
        self._descriptor, self.model, self._tiling, self._transform = descriptor, model, tiling, transform
        self._rung = 0

    @property
    def descriptor(self) -> Descriptor:
        """What the system says about itself."""
        return self._descriptor

    def set_rung(self, rung: int) -> None:
        """Rung 2 and above halve the tiles, once a rung; on the last the transformer waits in main memory."""
        self._rung = rung
        place(self.model.transformer, self.model.device, offloaded=helps(self.model.device, rung))

    def run(self, request: Request, frames: Iterable[Frame], progress: Progress) -> Iterator[Frame]:
        """Yield one result a frame, linear Rec.2020, mid-grey staying where the plate has it.

        The frames are one shot, numbered without gaps and of one size; a job of part of a shot begins where a window
        does. Alpha, layers, windows and metadata pass. With `detail` plate the result is the plate times a gain where
        it is known and the model's own light where it clips; with model it is the decoded light, which is as soft as
        the VAE. `aovs` adds `hdrgen.generated`, `hdrgen.clipped` and `hdrgen.gain_r`, `_g` and `_b` (stops over the
        plate). Raises BadInput for plates that are no SDR, missing frames and changing sizes, BadParameter for a start
        off the windows' grid.
        """
        plan = self._descriptor.windows(request.parameters)
        if (plan.size - 1) % self.model.config.vae.time:
            raise BadParameter(f"window must be a multiple of {self.model.config.vae.time} and 1, got {plan.size}")
        warned = 0

        def convert_scene(first: int, codes: Sequence[Float32]) -> Scene:
            nonlocal warned
            scene, held = self._scene(request, first, codes, progress)
            warned = max(warned, held)
            return scene

        for found in blended(self._taken(request, frames), plan, convert_scene):
            yield self._result(found, request, warned)

    def _taken(self, request: Request, frames: Iterable[Frame]) -> Iterator[tuple[_Taken, Float32]]:
        before: Frame | None = None
        hop, declared = self._descriptor.windows(request.parameters).hop, int(request.parameters["shot_start"])
        for frame in frames:
            if before is None and declared >= 0 and (frame.number < declared or (frame.number - declared) % hop):
                raise BadParameter(
                    f"frame {frame.number} begins no window of a shot from {declared} on; one begins every {hop} frames"
                )
            if before is not None:
                _check_next(before, frame)
            before = frame
            plate = sdr_plate(frame, request.parameters)
            codes_hwc, outside = c.sdr_codes(plate)
            yield _Taken(frame, plate, outside), self._working(codes_hwc)

    def _working(self, codes_hwc: Float32) -> Float32:
        """Codes at the size that the model sees them in."""
        height, width = codes_hwc.shape[:2]
        side = self.model.config.working_side
        if not side or max(height, width) <= side:
            return codes_hwc
        size = tuple(max(1, round(length * side / max(height, width))) for length in (width, height))
        return np.asarray(cv2.resize(codes_hwc, size, interpolation=cv2.INTER_AREA), np.float32)

    def _scene(self, request: Request, first: int, codes: Sequence[Float32], progress: Progress) -> tuple[Scene, int]:
        """A run of frames without a cut, and how many samples of it were above the end of the codes."""
        config = self.model.config
        final = request.quality == "final"
        drive = Drive(
            config.sampling.first, config.sampling.final if final else config.sampling.draft,
            float(request.parameters["fps"]), request.seed,
        )  # fmt: skip
        done = 0

        def step() -> None:
            nonlocal done
            progress.step(done, total, first)
            done += 1

        converter = ClipConverter(self.model, self._tiles(int(request.parameters["tile"])), drive, step)
        total = converter.steps(*codes[0].shape[:2])
        seen = np.stack(codes)
        plate = c.hdr_codes(c.display_light(seen), self._transform)[0] if config.from_plate else None
        made = converter.run(seen, plate)
        progress.step(total, total, first)
        shown = c.to_rec2020(_tall(c.display_light(seen)))
        plain = c.to_rec2020(self._plain_light(_tall(made.round_trip)))
        light, held = c.light_of(_tall(made.hdr), self._transform)
        known = (_tall(seen).max(axis=2) < int(request.parameters["clip_threshold"]) / 255).astype(np.float32)
        stops = anchor_stops(shown, c.to_rec2020(light), plain, known)
        return Scene(made.hdr, made.round_trip, stops), held

    def _tiles(self, asked: int) -> Tiling:
        """The device's tiles or those of an edge that was asked for, halved once a rung from 2."""
        tiling = Tiling(asked, min(self._tiling.overlap, asked // 4)) if asked else self._tiling
        return tiling.halved(max(0, self._rung - 1), self.model.config.cell * self.model.scale)

    def _plain_light(self, codes: Float32) -> Float32:
        """Linear Rec.709 light of the plate's codes after the VAE."""
        return c.light_of(codes, self._transform)[0] if self.model.config.from_plate else c.display_light(codes)

    def _result(self, found: Blended[_Taken], request: Request, held: int) -> Frame:
        taken = found.item
        space = colourspace(self._descriptor.output_space)
        plate_hwc = convert(taken.plate.codes, space).rgb
        size = (taken.frame.width, taken.frame.height)
        hdr_hwc, plain_hwc = (_sized(x, size) for x in (found.hdr_hwc, found.round_trip_hwc))
        light_hwc = c.to_rec2020(c.light_of(hdr_hwc, self._transform)[0]) * np.float32(2.0**found.stops)
        generated_hwc = c.generated_weight(taken.plate)
        if request.parameters["detail"] == "plate":
            config = self.model.config
            radius = max(1, round(config.cell * size[0] / found.codes_hwc.shape[1]))
            trip_hwc = c.to_rec2020(self._plain_light(plain_hwc))
            if config.belief != WHOLE:
                lost = log_luminance(plate_hwc) - log_luminance(trip_hwc)
                light_hwc = light_hwc * np.exp2(generated_hwc.max(axis=2) * lost)[..., None]
            kept = keep_detail(plate_hwc, light_hwc, trip_hwc, generated_hwc, radius, config.belief)
        else:
            kept = Kept(light_hwc, np.log2((light_hwc + c.OUTSIDE) / (plate_hwc + c.OUTSIDE)).astype(np.float32))
        result = result_of(taken.frame, taken.plate, kept.scene_linear_hwc, space, aovs=request.aovs)
        layers = dict(result.layers)
        if request.aovs:
            layers[GENERATED] = generated_hwc.max(axis=2)
            for channel, name in enumerate("rgb"):
                layers[f"hdrgen.gain_{name}"] = np.ascontiguousarray(kept.gain_hwc[..., channel])
        metadata = {**result.metadata, "warnings": (*taken.plate.warnings, *_warnings(taken.outside, held))}
        return replace(result, metadata=metadata, layers=layers)


def _check_next(before: Frame, frame: Frame) -> None:
    """Raises BadInput where a frame does not follow the one before it."""
    if (frame.width, frame.height) != (before.width, before.height):
        raise BadInput(
            f"frame {frame.number} is {frame.width}x{frame.height}, the one before it {before.width}x{before.height}; "
            "a shot has one size"
        )
    if frame.number - before.number not in {0, 1}:
        raise BadInput(
            f"frame {frame.number} follows {before.number}: frames are missing between them, which LumiVid cannot look "
            "across; give all of them, or two shots"
        )


def _warnings(outside: int, held: int) -> tuple[str, ...]:
    said: list[str] = []
    if outside:
        said.append(f"{outside} samples lie outside Rec.709: the model sees them cut, the result has them")
    if held:
        said.append(f"up to {held} samples a scene are above what the codes hold and were held there")
    return tuple(said)


def _tall(frames: Float32) -> Float32:
    """Frames (F, H, W, 3) as one picture, one below the other."""
    return np.ascontiguousarray(frames.reshape(-1, *frames.shape[2:]))


def _sized(codes_hwc: Float32, size: tuple[int, int]) -> Float32:
    """Codes at a (width, height)."""
    if codes_hwc.shape[1::-1] == size:
        return codes_hwc
    return np.asarray(cv2.resize(codes_hwc, size, interpolation=cv2.INTER_LINEAR), np.float32)
