"""Grows Qwen-Image's networks from 16 to 32 latent channels so that the untrained result is the original.

It owns the arithmetic on weights. It must not know files, training or pictures. Tokens are packed channel by channel,
so that the new channels of `img_in` and `proj_out` are the second half of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from torch import Tensor, nn

Way = Literal["zero", "halved"]
WAYS: tuple[Way, ...] = ("zero", "halved")


def widened_projections(state: Mapping[str, Tensor], way: Way) -> dict[str, Tensor]:
    """`img_in` and `proj_out` for twice the latent channels, out of a transformer's weights.

    `zero`: new columns and rows are zero, so that old channels come out as they did, whatever the new ones hold.
    `halved`: new columns are copies and both are halved, new rows are copies, so that latents which hold the same
    twice give the same twice (the document copies without halving, which would double what the blocks see).
    """
    into, out, bias = state["img_in.weight"], state["proj_out.weight"], state["proj_out.bias"]
    if way == "halved":
        columns, rows, biases = (into / 2, into / 2), (out, out), (bias, bias)
    else:
        columns, rows, biases = (into, into * 0), (out, out * 0), (bias, bias * 0)
    return {
        "img_in.weight": torch.cat(columns, dim=1),
        "img_in.bias": state["img_in.bias"].clone(),
        "proj_out.weight": torch.cat(rows),
        "proj_out.bias": torch.cat(biases),
    }


def widen_transformer(network: QwenImageTransformer2DModel, way: Way) -> QwenImageTransformer2DModel:
    """The same transformer with twice the latent channels; in place."""
    state = widened_projections(network.state_dict(), way)
    widened: Any = network
    for name in ("img_in", "proj_out"):
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
        layer.load_state_dict({"weight": weight, "bias": bias}, assign=True)
        setattr(widened, name, layer.requires_grad_(requires_grad=False))
    widened.out_channels = 2 * widened.out_channels
    widened.register_to_config(in_channels=2 * widened.config.in_channels, out_channels=widened.out_channels)
    return network


def widened_vae(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A VAE's weights for twice the latent channels and two heads, out of the original's.

    The encoder sees the tone-mapped picture alone as yet, and its new latents are copies of the old; the decoder takes
    no notice of them, and its linear head starts as a copy of the other. So the tone-mapped head is the original.
    """
    found = dict(state)
    first = state["encoder.conv_in.weight"]
    found["encoder.conv_in.weight"] = torch.cat([first, torch.zeros_like(first)], dim=1)
    for part in ("weight", "bias"):
        found[f"encoder.conv_out.{part}"] = _twice_moments(state[f"encoder.conv_out.{part}"])
        found[f"quant_conv.{part}"] = _twice_moments(state[f"quant_conv.{part}"])
        found[f"post_quant_conv.{part}"] = torch.cat([state[f"post_quant_conv.{part}"]] * 2)
        found[f"decoder.conv_out.{part}"] = torch.cat([state[f"decoder.conv_out.{part}"]] * 2)
    found["quant_conv.weight"] = _apart(_twice_moments(state["quant_conv.weight"]), moments=True)
    found["post_quant_conv.weight"] = _apart(found["post_quant_conv.weight"], moments=False)
    into = state["decoder.conv_in.weight"]
    found["decoder.conv_in.weight"] = torch.cat([into, torch.zeros_like(into)], dim=1)
    return found


def _twice_moments(rows: Tensor) -> Tensor:
    """Rows of means, then log variances, each half twice over."""
    mean, log_variance = rows.chunk(2)
    return torch.cat([mean, mean, log_variance, log_variance])


def _apart(weight: Tensor, *, moments: bool) -> Tensor:
    """Columns for old and new channels, so that each row's own kind alone reaches it."""
    halves = weight.chunk(4) if moments else weight.chunk(2)
    grown: list[Tensor] = []
    for index, rows in enumerate(halves):
        parts = rows.chunk(2, dim=1) if moments else (rows,)
        zeros = [torch.zeros_like(part) for part in parts]
        pairs = zip(parts, zeros, strict=True)
        grown.append(torch.cat([x for part, zero in pairs for x in ((zero, part) if index % 2 else (part, zero))], 1))
    return torch.cat(grown)
