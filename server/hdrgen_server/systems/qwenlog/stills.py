"""Qwen-Image's VAE on single pictures: in float32, never clamped, at a third of the work, and pixel for pixel the same.

It owns how the networks inside an `AutoencoderKLQwenImage` are called and how their weights are stored. It must not
know tiles, curves or latents' scale. The VAE is a causal video network: with one frame, all taps of a convolution over
time but the last see zeros that pad the past, so that each is a plain 2D convolution. diffusers' own `decode` limits
what is not tiled to [-1, 1], and what is tiled not: here neither is.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MethodType
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage, QwenImageCausalConv3d
from torch import Tensor
from torch.nn import functional as F


def for_stills(vae: AutoencoderKLQwenImage) -> AutoencoderKLQwenImage:
    """The VAE with its convolutions over time replaced by what they are for one frame; names and shapes stay."""
    for module in vae.modules():
        if isinstance(module, QwenImageCausalConv3d):
            module.forward = MethodType(_still, module)
    return vae


def encode(vae: AutoencoderKLQwenImage, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log variance, (B, Z, H / 8, W / 8) each, of pictures (B, C, H, W) nominally in [-1, 1]."""
    network: Any = vae
    moments: Tensor = network.quant_conv(network.encoder(pictures[:, :, None]))[:, :, 0]
    mean, log_variance = moments.chunk(2, dim=1)
    return mean, log_variance.clamp(-30, 20)


def decode(vae: AutoencoderKLQwenImage, latents: Tensor) -> Tensor:
    """Pictures (B, C, H, W) of latents (B, Z, h, w), as the last convolution gives them."""
    network: Any = vae
    decoded: Tensor = network.decoder(network.post_quant_conv(latents[:, :, None]))
    return decoded[:, :, 0]


def _still(self: Any, x: Tensor, cache_x: Tensor | None = None) -> Tensor:
    """One frame through a causal convolution, (B, C, 1, H, W)."""
    if x.shape[2] != 1 or cache_x is not None:
        raise ValueError(f"a VAE for stills takes one frame, got {tuple(x.shape)}")
    left, right, top, bottom = self._padding[:4]
    if left != right or top != bottom:
        raise ValueError(f"a convolution over time is padded unevenly: {self._padding}")
    weight = self.weight[:, :, -1]
    return F.conv2d(x[:, :, 0], weight, self.bias, self.stride[1:], (top, left))[:, :, None]


def last_taps(state: Mapping[str, Tensor], vae: AutoencoderKLQwenImage) -> dict[str, Tensor]:
    """What a VAE needs for stills: each convolution over time by its last tap, (out, in, height, width), a third of the
    bytes; the convolutions that only join frames are left out.
    """
    over_time = _over_time(vae)
    kept = {name: tensor for name, tensor in state.items() if ".time_conv." not in name}
    return {name: (tensor[:, :, -1].contiguous() if name in over_time else tensor) for name, tensor in kept.items()}


def all_taps(state: Mapping[str, Tensor], vae: AutoencoderKLQwenImage) -> dict[str, Tensor]:
    """The full tensors of what `last_taps` left: zeros for what stills never meet."""
    found = dict(state)
    whole = vae.state_dict()
    for name in _over_time(vae):
        tensor = found.get(name)
        if tensor is None or tensor.ndim != 4:
            continue
        padded = torch.zeros((*tensor.shape[:2], whole[name].shape[2], *tensor.shape[2:]), dtype=tensor.dtype)
        padded[:, :, -1] = tensor
        found[name] = padded
    for name, tensor in whole.items():
        if ".time_conv." in name and name not in found:
            found[name] = torch.zeros(tensor.shape)
    return found


def _over_time(vae: AutoencoderKLQwenImage) -> set[str]:
    return {f"{name}.weight" for name, module in vae.named_modules() if isinstance(module, QwenImageCausalConv3d)}
