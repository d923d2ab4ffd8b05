"""Txt2HDR by Qwen-Image on log codes: a prompt in, one scene-linear picture out.

It owns the order of a job, and for both Qwen systems what a request means to the model. It must not know sockets,
files, or how anything was trained. What a picture of the VAE means as light is a `Look`, which `qwenlinear` has its
own of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from hdrgen_server.colour.curves import CURVES
from hdrgen_server.colour.interop import colourspace
from hdrgen_server.colour.primaries import CHROMATICITIES, rgb_to_rgb
from hdrgen_server.contracts.descriptor import Descriptor
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.contracts.operator import Progress, Request
from hdrgen_server.networks.offload import helps, place
from hdrgen_server.packs.manifest import Pack
from hdrgen_server.systems.qwenlog.config import CONFIGS, QwenConfig
from hdrgen_server.systems.qwenlog.flow import DRAFT_STEPS, FINAL_STEPS
from hdrgen_server.systems.qwenlog.frame import ON_CPU, ON_CUDA, Drive, PictureMaker, Prompts, Tiling
from hdrgen_server.systems.qwenlog.loading import load_qwen
from hdrgen_server.systems.qwenlog.model import QwenImage
from hdrgen_server.systems.qwenlog.text import EMPTY, check_prompt
from hdrgen_server.systems.txt2hdr import PANORAMA, asked_size, start_frame
from nuke_hdrgen.wire.errors import BadInput, OperatorFailed

Float32 = npt.NDArray[np.float32]
LOG_CURVES = ("logc4", "logc3", "pq", "acescct")
FAR_LARGER = 4
"""Beyond so many times the tokens of the training, the same things come twice in one picture."""


@dataclass(frozen=True, eq=False)
class Light:
    """A result: (H, W, 3) scene-linear Rec.709, mid-grey at 0.18, and named layers, (H, W) each."""

    scene_linear_hwc: Float32
    layers: Mapping[str, npt.NDArray[Any]]


class Look(Protocol):
    """What the VAE's pictures mean."""

    def picture_of(self, scene_linear_hwc: Float32) -> Float32:
        """The VAE's picture, (H, W, C), of light."""
        ...

    def light_of(self, picture_hwc: Float32, *, aovs: bool) -> Light:
        """The light that a picture of the VAE stands for, none of it cut."""
        ...


class CodeLook:
    """Pictures that hold 2 code - 1 of a camera's curve in some primaries: code 1 of LogC4 is 469.8."""

    def __init__(self, curve: str, primaries: str) -> None:
        self._curve = CURVES[curve]
        self._to_rec709 = rgb_to_rgb(primaries, "rec709").astype(np.float32)
        self._from_rec709 = rgb_to_rgb("rec709", primaries).astype(np.float32)

    def picture_of(self, scene_linear_hwc: Float32) -> Float32:
        """2 code - 1 of light."""
        return 2 * self._curve.encode(scene_linear_hwc @ self._from_rec709.T) - 1

    def light_of(self, picture_hwc: Float32, *, aovs: bool) -> Light:
        """Light by the curve's other way; there are no layers."""
        del aovs
        light_hwc: Any = self._curve.decode((picture_hwc + 1) / 2) @ self._to_rec709.T
        return Light(light_hwc, {})


def create(pack: Pack, device: str) -> QwenOperator:
    """Load a pack onto a device. Raises BadInput naming the file that is missing, damaged or another model's."""
    config, look = config_of(pack), look_of(pack)
    tiling = ON_CUDA if device.startswith("cuda") else ON_CPU
    return QwenOperator(pack.descriptor, load_model(config, pack, device), look, tiling)


def load_model(config: QwenConfig, pack: Pack, device: str) -> QwenImage:
    """The networks of a pack on a device. Raises BadInput."""
    on_cuda = device.startswith("cuda")
    model = load_qwen(config, pack.path, torch.bfloat16 if on_cuda else torch.float32)
    return model.to(torch.device(device))


def look_of(pack: Pack) -> CodeLook:
    """What a pack's pictures mean, by its options. Raises BadInput where it does not say."""
    curve, primaries = str(pack.options.get("curve", "")), str(pack.options.get("primaries", ""))
    if curve not in LOG_CURVES:
        raise BadInput(f"pack {pack.name} has curve {curve!r}; it must say one of {', '.join(LOG_CURVES)}")
    if primaries not in CHROMATICITIES:
        raise BadInput(f"pack {pack.name} has primaries {primaries!r}; it must say one of {', '.join(CHROMATICITIES)}")
    return CodeLook(curve, primaries)


def config_of(pack: Pack) -> QwenConfig:
    """The configuration that a pack names. Raises BadInput."""
    name = str(pack.options.get("config", ""))
    if name not in CONFIGS:
        raise BadInput(f"pack {pack.name} has config {name!r}, which is none of {', '.join(CONFIGS)}; add it again")
    return CONFIGS[name]


class QwenOperator:
    """A loaded pack of either system. One job at a time."""

    def __init__(self, descriptor: Descriptor, model: QwenImage, look: Look, tiling: Tiling) -> None:
        self._descriptor, self.model, self.look, self._tiling = descriptor, model, look, tiling
        self._rung = 0

    @property
    def descriptor(self) -> Descriptor:
        """What the system says about itself."""
        return self._descriptor

    def set_rung(self, rung: int) -> None:
        """Rung 2 and above halve the VAE's tiles; on the last, transformer and text encoder wait in main memory."""
        self._rung = rung
        networks: list[Any] = [self.model.transformer, *self.model.text.modules()]
        for network in networks:
            place(network, self.model.device, offloaded=helps(self.model.device, rung))

    def run(self, request: Request, frames: Iterable[Frame], progress: Progress) -> Iterator[Frame]:
        """Yield one picture of `width` x `height`, linear Rec.709, mid-grey at 0.18, nothing cut.

        A start picture is taken up at `strength`; 0 keeps it. `aovs` adds what the system has beside light. Raises
        BadParameter for prompts and sizes that cannot be, BadInput for a start picture of another shape.
        """
        order = order_of(self._descriptor, self.model, request, frames)
        if order.start_hwc is not None and order.strength == 0:
            light = Light(order.start_hwc, {})
        else:
            tiling = tiles_of(self._tiling, self.model, int(request.parameters["tile"]), self._rung)
            maker = PictureMaker(self.model, order.drive, tiling, progress.step)
            begin_hwc = None if order.start_hwc is None else self.look.picture_of(order.start_hwc)
            light = self.look.light_of(maker.run(order.prompts, begin_hwc, order.strength), aovs=request.aovs)
        yield framed(self._descriptor, self.model, order, light)


@dataclass(frozen=True, eq=False)
class Order:
    """What a request means to a model: `start_hwc` is the start picture's light in the result's size, None without
    one, and `number` its frame number.
    """

    drive: Drive
    prompts: Prompts
    start_hwc: Float32 | None
    strength: float
    number: int


def order_of(descriptor: Descriptor, model: QwenImage, request: Request, frames: Iterable[Frame]) -> Order:
    """The order of a request, its prompt read. Raises BadParameter and BadInput as `QwenOperator.run` does."""
    parameters = request.parameters
    prompt = check_prompt(str(parameters["prompt"]))
    width, height = asked_size(descriptor, parameters)
    start = start_frame(frames, (width, height))
    prompts = Prompts(model.text.encode(prompt), model.text.encode(str(parameters["negative_prompt"]).strip() or EMPTY))
    steps = int(parameters["steps"]) or (FINAL_STEPS if request.quality == "final" else DRAFT_STEPS)
    panorama = parameters["projection"] == PANORAMA
    drive = Drive(width, height, steps, float(parameters["guidance"]), request.seed, panorama)
    start_hwc = None if start is None else _resized(start.rgb, width, height)
    return Order(drive, prompts, start_hwc, float(parameters["strength"]), 0 if start is None else start.number)


def framed(descriptor: Descriptor, model: QwenImage, order: Order, light: Light) -> Frame:
    """A result's frame in the descriptor's space. Raises OperatorFailed for NaN or Inf."""
    if not np.isfinite(light.scene_linear_hwc).all():
        raise OperatorFailed(f"{descriptor.system} made NaN or Inf of this prompt; change guidance or seed")
    return Frame(
        np.ascontiguousarray(light.scene_linear_hwc, np.float32),
        ("R", "G", "B"),
        colourspace(descriptor.output_space),
        number=order.number,
        layers=dict(light.layers),
        metadata={"warnings": _warnings(model, order.drive)},
    )


def tiles_of(tiling: Tiling, model: QwenImage, asked: int, rung: int) -> Tiling:
    """The device's tiles or those of an edge that was asked for, halved once a rung from 2."""
    cell = model.config.cell
    if asked:
        edge = max(asked // cell * cell, 4 * cell)
        tiling = Tiling(edge, min(tiling.overlap, edge // 4 // cell * cell))
    return tiling.halved(max(0, rung - 1), cell) if rung > 1 else tiling


def _warnings(model: QwenImage, drive: Drive) -> tuple[str, ...]:
    cell, trained = model.config.cell, model.config.trained_tokens
    if drive.width * drive.height <= FAR_LARGER * trained * cell**2:
        return ()
    edge = int((trained * cell**2) ** 0.5) // cell * cell
    return (
        f"{drive.width} x {drive.height} is far above what this pack was trained on (about {edge} x {edge}): it may "
        "repeat",
    )


def _resized(scene_linear_hwc: Float32, width: int, height: int) -> Float32:
    """Light brought to another size, area by area when it shrinks."""
    if scene_linear_hwc.shape[:2] == (height, width):
        return np.ascontiguousarray(scene_linear_hwc)
    planes: Tensor = torch.from_numpy(np.ascontiguousarray(scene_linear_hwc)).permute(2, 0, 1)[None]
    sized = F.interpolate(planes, (height, width), mode="bilinear", antialias=True, align_corners=False)
    return np.ascontiguousarray(sized[0].permute(1, 2, 0).numpy())
