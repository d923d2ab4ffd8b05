"""Txt2HDR by Qwen-Image in linear light: a prompt in, light out, and beside it the tone-mapped picture.

It owns what the two heads mean. The rest of a job is that of `qwenlog`. It must not know sockets, files or training.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hdrgen_server.packs.manifest import Pack
from hdrgen_server.systems.qwenlinear.config import CONFIGS
from hdrgen_server.systems.qwenlinear.loading import load_linear
from hdrgen_server.systems.qwenlinear.normalise import LightNorm, both_views
from hdrgen_server.systems.qwenlog.frame import ON_CPU, ON_CUDA
from hdrgen_server.systems.qwenlog.operator import Light, QwenOperator
from nuke_hdrgen.wire.errors import BadInput

Float32 = npt.NDArray[np.float32]
TONE_MAPPED = "hdrgen.tonemapped_"


class DualLook:
    """Pictures of six channels: tone-mapped 2 code - 1 of sRGB, then normalised light, of the same pixels."""

    def __init__(self, norm: LightNorm) -> None:
        self._norm = norm

    @torch.inference_mode()
    def picture_of(self, scene_linear_hwc: Float32) -> Float32:
        """Both views of light."""
        return _hwc(both_views(_planes(scene_linear_hwc), self._norm))

    @torch.inference_mode()
    def light_of(self, picture_hwc: Float32, *, aovs: bool) -> Light:
        """The linear head's light; with `aovs` the other head's sRGB codes as layers, as they are."""
        light_hwc = _hwc(self._norm.inverse(_planes(picture_hwc[..., 3:])))
        codes_hwc = (picture_hwc[..., :3] + 1) / 2
        layers: dict[str, Float32] = {
            f"{TONE_MAPPED}{name}": np.ascontiguousarray(codes_hwc[..., i], np.float32) for i, name in enumerate("rgb")
        }
        return Light(light_hwc, layers if aovs else {})


def create(pack: Pack, device: str) -> QwenOperator:
    """Load a pack onto a device. Raises BadInput naming the file that is missing, damaged or another model's."""
    name = str(pack.options.get("config", ""))
    if name not in CONFIGS:
        raise BadInput(f"pack {pack.name} has config {name!r}, which is none of {', '.join(CONFIGS)}; add it again")
    on_cuda = device.startswith("cuda")
    model, norm = load_linear(CONFIGS[name], pack.path, torch.bfloat16 if on_cuda else torch.float32)
    tiling = ON_CUDA if on_cuda else ON_CPU
    return QwenOperator(pack.descriptor, model.to(torch.device(device)), DualLook(norm), tiling)


def _planes(picture_hwc: Float32) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture_hwc)).permute(2, 0, 1)[None]


def _hwc(planes: Tensor) -> Float32:
    return np.ascontiguousarray(planes[0].permute(1, 2, 0).numpy())
