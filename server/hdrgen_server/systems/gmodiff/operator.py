"""HDRFuse by GMODiff's regressor: a bracket of frames in, one scene-linear frame out, tile by tile.

It owns the order of a job and its memory: full frames are only looked at, never copied. It must not know sockets,
files or how the network was trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

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
from hdrgen_server.networks.nafnet import in_channels_last
from hdrgen_server.packs.manifest import Pack
from hdrgen_server.systems.gmodiff.config import CONFIGS
from hdrgen_server.systems.gmodiff.prepare import Exposure, Plan, plan_bracket, prepare_window, to_bracket
from hdrgen_server.systems.gmodiff.regressor import Regressor
from hdrgen_server.systems.hdrfuse import check_bracket, clipped_layer, linear_of, reference_index
from nuke_hdrgen.wire.errors import BadInput, OperatorFailed

Array = npt.NDArray[np.float32]
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
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise BadInput(f"pack {pack.name}: the tensors of {path} are not those of config {name}; {AGAIN}") from error
    model.eval().requires_grad_(requires_grad=False).to(torch.device(device))
    return GMODiffOperator(pack.descriptor, in_channels_last(model), device)


@dataclass(frozen=True, eq=False)
class _Outputs:
    """Full-size results, filled tile by tile."""

    scene_linear_hwc: Array
    mask_hw: Array
    gain_hwc: Array | None


class GMODiffOperator:
    """A loaded regressor. One job at a time."""

    def __init__(self, descriptor: Descriptor, model: Regressor, device: str) -> None:
        self._descriptor, self._model, self._device = descriptor, model, device
        self._rung = 0

    @property
    def descriptor(self) -> Descriptor:
        """What the system says about itself."""
        return self._descriptor

    @property
    def model(self) -> Regressor:
        """The network, for those who measure it."""
        return self._model

    def set_rung(self, rung: int) -> None:
        """Rung 2 and above halve the tiles, once a rung."""
        self._rung = rung

    @torch.inference_mode()
    def run(self, request: Request, frames: Iterable[Frame], progress: Progress) -> Iterator[Frame]:
        """Fuse one bracket; the result keeps the reference frame's exposure, geometry, alpha and layers.

        With `aovs` it has the layers `hdrgen.confidence` (1 where the map is reliable), `hdrgen.gain_r`, `_g` and `_b`
        and `hdrgen.clipped`.
        """
        bracket = list(frames)
        reference = reference_index(bracket, int(request.parameters["reference"]))
        check_bracket(bracket, reference)
        if self._model.config.form == "published" and len(bracket) != 3:
            raise BadInput(
                f"this pack takes exactly 3 frames, got {len(bracket)}; give 3, or use a pack of the set form"
            )
        exposures, scale = _exposures(bracket)
        plan = plan_bracket(exposures, reference)
        base = bracket[reference]
        outputs = _Outputs(
            np.zeros((base.height, base.width, 3), np.float32),
            np.zeros((base.height, base.width), np.float32),
            np.zeros((base.height, base.width, 3), np.float32) if request.aovs else None,
        )
        tiles = self._tiles(base.height, base.width, int(request.parameters["tile"]))
        for done, tile in enumerate(tiles):
            progress.step(done, len(tiles))
            self._run_tile(exposures, plan, tile, outputs)
        progress.step(len(tiles), len(tiles))
        if not np.isfinite(outputs.scene_linear_hwc).all():
            raise OperatorFailed("the regressor made values that are not finite; please report this bracket")
        np.multiply(outputs.scene_linear_hwc, np.float32(scale), out=outputs.scene_linear_hwc)
        layers = {**_layers(outputs), **clipped_layer(bracket, reference)} if request.aovs else {}
        yield _result(base, outputs, layers)

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


def _result(base: Frame, outputs: _Outputs, added: dict[str, Array]) -> Frame:
    layers = {**base.layers, **added}
    pixels, channels = outputs.scene_linear_hwc, ("R", "G", "B")
    if "A" in base.channels:
        alpha = base.pixels[..., base.channels.index("A")]
        pixels, channels = np.concatenate([pixels, alpha[..., None]], axis=2), ("R", "G", "B", "A")
    return base.with_pixels(pixels, channels=channels, colourspace=linear_of(base.colourspace), layers=layers, ev=0.0)
