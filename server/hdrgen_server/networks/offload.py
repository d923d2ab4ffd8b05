"""The last rung of the memory ladder: weights stay in main memory, and each layer's are on the device while it runs.

It owns where a model's weights lie. It must not know systems, packs or when memory is short. accelerate's hooks do the
moving, so a model whose parts are called one by one, as stage two's are, works as one that is called whole. Copying
costs time at every call; what the device holds at once falls to the largest layer's weights.
"""

from __future__ import annotations

import torch
from torch import nn

RUNG = 3


def place(model: nn.Module, device: torch.device, *, offloaded: bool) -> None:
    """Put all of a model on the device, or only what is running; in place."""
    with torch.inference_mode(mode=False):
        if offloaded and not is_offloaded(model):
            from accelerate.hooks import attach_align_device_hook

            weights = {name: tensor.detach() for name, tensor in model.to("cpu").state_dict().items()}
            attach_align_device_hook(model, device, offload=True, offload_buffers=True, weights_map=weights)
        elif not offloaded and is_offloaded(model):
            from accelerate.hooks import remove_hook_from_submodules

            remove_hook_from_submodules(model)
            model.to(device)


def is_offloaded(model: nn.Module) -> bool:
    """Whether a model's weights are on no device until a layer runs."""
    return any(hasattr(module, "_hf_hook") for module in model.modules())


def helps(device: torch.device, rung: int) -> bool:
    """Whether weights leave the device on this rung: main memory is all that a CPU has."""
    return rung >= RUNG and device.type != "cpu"
