"""HDRFuse by GMODiff: a bracket of frames in, one scene-linear frame out, tile by tile.

`draft` is the regressor alone; `final` adds the second stage where the pack has one.

It owns the order of a job and its memory: full frames are only looked at, never copied. It must not know sockets,
files or how the network was trained.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from hdrgen_server.contracts.descriptor import Descriptor
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.contracts.operator import Progress, Request
from hdrgen_server.image.clip import bracket_clip_level
from hdrgen_server.image.tiles import Tile, plan_tiles
from hdrgen_server.networks import offload
from hdrgen_server.networks.nafnet import in_channels_last
from hdrgen_server.packs.manifest import Pack
from hdrgen_server.systems.gmodiff.collected import Collected, initial_of, refined_scene_linear
from hdrgen_server.systems.gmodiff.config import CONFIGS
from hdrgen_server.systems.gmodiff.prepare import Exposure, Plan, plan_bracket, prepare_window, to_bracket
from hdrgen_server.systems.gmodiff.refine.choice import refiner_config
from hdrgen_server.systems.gmodiff.refine.config import RefinerConfig
from hdrgen_server.systems.gmodiff.regressor import Regressor, gain_scale
from hdrgen_server.systems.hdrfuse import check_bracket, clipped_layer, linear_of, reference_index
from hdrgen_server.systems.layers import GENERATED
from nuke_hdrgen.wire.errors import BadInput, OperatorFailed

if TYPE_CHECKING:
    from hdrgen_server.systems.gmodiff.final import SecondStage

Array = npt.NDArray[np.float32]
NO_SECOND_STAGE = "this pack has no second stage yet: final is what draft is"
SMALLEST_TILE = 192
AGAIN = "add the pack again with `hdrgen packs add`"


def create(pack: Pack, device: str) -> GMODiffOperator:
    """Load a pack's regressor onto a device. Raises BadInput when its weights are missing, damaged or another
    configuration's.
    """
    name = str(pack.options.get("config", ""))
    if name not in CONFIGS:
        raise BadInput(f"pack {pack.name} has config {name!r}, which is none of {', '.join(CONFIGS)}; {AGAIN}")
    with torch.device("meta"):
        model = Regressor(CONFIGS[name])
    path = pack.file("regressor.safetensors")
    try:
        weights = {key: tensor.float() for key, tensor in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise BadInput(f"pack {pack.name}: {path} cannot be read as safetensors; {AGAIN}") from error
    spoilt = [key for key, tensor in weights.items() if not torch.isfinite(tensor.sum())]
    if spoilt:
        raise BadInput(f"pack {pack.name}: tensor {spoilt[0]} of {path} holds NaN or Inf; {AGAIN}")
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise BadInput(f"pack {pack.name}: the tensors of {path} are not those of config {name}; {AGAIN}") from error
    model.eval().requires_grad_(requires_grad=False).to(torch.device(device))
    config = refiner_config(pack)
    load = None if config is None else functools.partial(_load_second, pack, config, device)
    return GMODiffOperator(pack.descriptor, in_channels_last(model), device, load)


def _load_second(pack: Pack, config: RefinerConfig, device: str, offloaded: bool) -> SecondStage:
    from hdrgen_server.systems.gmodiff.final import SecondStage, load_refiner

    with torch.inference_mode(mode=False):
        return SecondStage(load_refiner(pack, config, device, offloaded=offloaded), device)


@dataclass(frozen=True, eq=False)
class _Outputs:
    """Full-size results, filled tile by tile."""

    scene_linear_hwc: Array
    mask_hw: Array
    gain_hwc: Array | None
    collected: Collected | None


class GMODiffOperator:
    """A loaded regressor, and a refiner that is loaded with the first job of final quality. One job at a time."""

    def __init__(
        self,
        descriptor: Descriptor,
        model: Regressor,
        device: str,
        load_second: Callable[[bool], SecondStage] | None = None,
    ) -> None:
        self._descriptor, self._model, self._device = descriptor, model, device
        self._load_second = load_second
        self._second: SecondStage | None = None
        self._rung = 0

    @property
    def descriptor(self) -> Descriptor:
        """What the system says about itself."""
        return self._descriptor

    @property
    def model(self) -> Regressor:
        """The network, for those who measure it."""
        return self._model

    @property
    def second(self) -> SecondStage | None:
        """The second stage, loaded now if it was not; None where the pack has none. Raises BadInput naming a file."""
        if self._second is None and self._load_second is not None:
            self._second = self._load_second(offload.helps(torch.device(self._device), self._rung))
        return self._second

    def set_rung(self, rung: int) -> None:
        """Rung 2 and above halve the tiles, once a rung; on rung 3 weights are on a GPU only while their layer runs."""
        self._rung = rung
        device = torch.device(self._device)
        for model in (self._model, *([self._second.refiner] if self._second is not None else [])):
            offload.place(model, device, offloaded=offload.helps(device, rung))

    @torch.inference_mode()
    def run(self, request: Request, frames: Iterable[Frame], progress: Progress) -> Iterator[Frame]:
        """Fuse one bracket; the result keeps the reference frame's exposure, geometry, alpha and layers.

        Quality `final` refines the gain map where the pack has a second stage; where it has none it is `draft`, and the
        result's `warnings` say so. With
        `aovs` the result has the layers `hdrgen.confidence` (1 where the map is reliable), `hdrgen.gain_r`, `_g` and
        `_b`, `hdrgen.clipped` and, refined, `hdrgen.generated` (how much of the change was taken).
        """
        bracket = list(frames)
        reference = reference_index(bracket, int(request.parameters["reference"]))
        check_bracket(bracket, reference)
        if self._model.config.form == "published" and len(bracket) != 3:
            raise BadInput(
                f"this pack takes exactly 3 frames, got {len(bracket)}; give 3, or use a pack of the set form"
            )
        exposures, scale_of_frames = _exposures(bracket)
        plan = plan_bracket(exposures, reference)
        base = bracket[reference]
        second = self.second if request.quality == "final" else None
        outputs = self._empty(base.height, base.width, aovs=request.aovs, collect=second is not None)
        asked = int(request.parameters["tile"])
        tiles = self._tiles(base.height, base.width, asked)
        work = _Steps(progress, len(tiles))
        for tile in tiles:
            work.step()
            self._run_tile(exposures, plan, tile, outputs)
        layers: dict[str, Array] = {}
        if second is not None and outputs.collected is not None:
            initial = initial_of(outputs.collected, outputs.mask_hw)
            found = second.refine(initial, second.tiling(asked, self._rung), work.then)
            scale = float(gain_scale(self._model.config, torch.tensor([plan.evs])))
            refined = refined_scene_linear(outputs.scene_linear_hwc, initial, outputs.collected, found, scale)
            outputs = replace(outputs, scene_linear_hwc=refined, gain_hwc=found if request.aovs else None)
            layers = {GENERATED: second.taken(outputs.mask_hw)} if request.aovs else {}
        work.end()
        if not np.isfinite(outputs.scene_linear_hwc).all():
            raise OperatorFailed("the network made values that are not finite; please report this bracket")
        np.multiply(outputs.scene_linear_hwc, np.float32(scale_of_frames), out=outputs.scene_linear_hwc)
        if request.aovs:
            layers = {**_layers(outputs), **layers, **clipped_layer(bracket, reference)}
        warnings = (NO_SECOND_STAGE,) if request.quality == "final" and second is None else ()
        yield _result(base, outputs, layers, warnings)

    def _empty(self, height: int, width: int, *, aovs: bool, collect: bool) -> _Outputs:
        channels, cell = self._model.config.feature_channels, self._model.backbone.factor
        return _Outputs(
            np.zeros((height, width, 3), np.float32),
            np.zeros((height, width), np.float32),
            np.zeros((height, width, 3), np.float32) if aovs else None,
            Collected.empty(height, width, channels, cell) if collect else None,
        )

    def _tiles(self, height: int, width: int, asked: int) -> list[Tile]:
        factor, overlap = self._model.backbone.factor, self._descriptor.tile_overlap
        size = max(SMALLEST_TILE, (asked or self._descriptor.tile) >> max(0, self._rung - 1))
        return plan_tiles(height, width, max(size // factor * factor, 2 * overlap), overlap, factor)

    def _run_tile(self, exposures: Sequence[Exposure], plan: Plan, tile: Tile, outputs: _Outputs) -> None:
        rows, columns = tile.rows, tile.columns
        window = (slice(rows.start, rows.stop), slice(columns.start, columns.stop))
        prepared = prepare_window(exposures, plan, window)
        bracket = to_bracket([prepared]).to(device=self._device)
        regression = self._model(bracket)
        weight = rows.weights[:, None] * columns.weights[None, :]
        result = regression.scene_linear(bracket.codes[:, 0])
        outputs.scene_linear_hwc[window] += _hwc(result) * weight[..., None]
        outputs.mask_hw[window] += _hwc(torch.sigmoid(regression.mask_logits))[..., 0] * weight
        if outputs.gain_hwc is not None:
            outputs.gain_hwc[window] += _hwc(regression.gain) * weight[..., None]
        if outputs.collected is not None:
            outputs.collected.add(tile, bracket, regression)


class _Steps:
    """Both stages' tiles as one count that never runs backwards: how many the second has is known after the first."""

    def __init__(self, progress: Progress, first: int) -> None:
        self._progress, self._first, self._done, self._total = progress, first, 0, first

    def step(self) -> None:
        """Before a tile of the first stage."""
        self._progress.step(self._done, self._total)
        self._done += 1

    def then(self, done: int, total: int) -> None:
        """Before a tile of the second stage."""
        self._total = self._first + total
        self._progress.step(self._first + done, self._total)

    def end(self) -> None:
        """After the last tile."""
        self._progress.step(self._total, self._total)


def _hwc(planes: torch.Tensor) -> Array:
    return planes[0].permute(1, 2, 0).float().cpu().numpy()


def _exposures(bracket: Sequence[Frame]) -> tuple[list[Exposure], float]:
    """The frames as codes, and by what the result is multiplied to be in the linear frames' own scale.

    Linear frames become sRGB codes of their value over the bracket's clip level, which is found, never assumed.
    """
    if bracket[0].colourspace.range == "encoded":
        return [Exposure(frame.rgb, frame.ev, linear=False) for frame in bracket], 1.0
    level = bracket_clip_level(bracket)
    if level is None:
        level = 1.05 * max(float(frame.rgb.max()) for frame in bracket)
    return [Exposure(frame.rgb, frame.ev, linear=True, clip_level=level) for frame in bracket], level


def _layers(outputs: _Outputs) -> dict[str, Array]:
    layers = {"hdrgen.confidence": 1 - outputs.mask_hw}
    if outputs.gain_hwc is not None:
        for index, name in enumerate("rgb"):
            layers[f"hdrgen.gain_{name}"] = np.ascontiguousarray(outputs.gain_hwc[..., index])
    return layers


def _result(base: Frame, outputs: _Outputs, added: dict[str, Array], warnings: tuple[str, ...]) -> Frame:
    layers = {**base.layers, **added}
    pixels, channels = outputs.scene_linear_hwc, ("R", "G", "B")
    if "A" in base.channels:
        alpha = base.pixels[..., base.channels.index("A")]
        pixels, channels = np.concatenate([pixels, alpha[..., None]], axis=2), ("R", "G", "B", "A")
    metadata = {**base.metadata, "warnings": warnings} if warnings else base.metadata
    space = linear_of(base.colourspace)
    return base.with_pixels(pixels, channels=channels, colourspace=space, layers=layers, metadata=metadata, ev=0.0)
