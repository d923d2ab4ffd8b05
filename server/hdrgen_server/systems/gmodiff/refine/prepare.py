"""Makes a loaded refiner ready to run: number formats, memory layout and faster layers, by device.

It owns which part of stage two is held in which number format, as data, and the order of what is done. It must not know
tiles, packs or files.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import nn

from hdrgen_server.networks.nafnet import in_channels_last
from hdrgen_server.systems.gmodiff.refine.bands import use_bands
from hdrgen_server.systems.gmodiff.refine.lora import merge_lora
from hdrgen_server.systems.gmodiff.refine.model import Refiner
from hdrgen_server.systems.gmodiff.refine.winograd import use_winograd

LIMIT_DB = 50.0
# The lowest format that leaves the gain map within LIMIT_DB of float32, measured at size s with random weights: both
# bfloat16 parts together 52 dB, the encoder alone in bfloat16 45 dB, the decoder 42. c_L's projection costs nothing.
LOWEST: Mapping[str, torch.dtype] = MappingProxyType({
    "encoder": torch.float32,
    "condition": torch.bfloat16,
    "unet": torch.bfloat16,
    "prior": torch.float32,
    "decoder": torch.float32,
})  # fmt: skip


def prepare(refiner: Refiner, device: torch.device, dtype: torch.dtype) -> Refiner:
    """A loaded refiner, in place: adapters merged, without gradients, on the device, in channels_last memory.

    `dtype` is the lowest format wanted: every part is held in it, or in what the table says where that holds more. On
    a CPU in float32 the large convolutions run by Winograd's algorithm, their blocks in bands of rows; on CUDA cudnn
    looks for the fastest ones, which tiles of one size make worth it.
    """
    merge_lora(refiner)
    refiner.eval().requires_grad_(requires_grad=False).to(device)
    for name, part in parts(refiner).items():
        part.to(torch.promote_types(dtype, LOWEST[name]))
    for module in refiner.vae.modules():
        if isinstance(module, nn.SiLU):
            module.inplace = True  # what it is given is always a group norm's own result
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    else:
        use_winograd(refiner)
        for part in (refiner.vae, refiner.condition, refiner.blocks):
            use_bands(part)
    return in_channels_last(refiner)


def parts(refiner: Refiner) -> dict[str, nn.ModuleList]:
    """The refiner's parts that may be held in number formats of their own, by the names of the table."""
    vae = refiner.vae
    modules = {
        "encoder": (vae.encoder, vae.quant_conv),
        "condition": (refiner.condition,),
        "unet": (refiner.unet,),
        "prior": (refiner.prior,),
        "decoder": (vae.decoder, vae.post_quant_conv, refiner.blocks),
    }
    return {name: nn.ModuleList(m for m in group if m is not None) for name, group in modules.items()}
