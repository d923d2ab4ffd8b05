"""Fills Qwen-Image in linear light from files: as for log codes, with the VAE of two heads and what was widened.

It owns the layout beyond that of log codes, and complaints about it. It must not know tiles, training or pickles.

`transformer/` is either of the wide size, or the published one, which is widened at loading; then
`widened.safetensors` holds its `img_in` and `proj_out` as they were trained, and `lora.safetensors` the rest.
`normalisation.safetensors` is what stands before the encoder.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel

from hdrgen_server.networks.tensors import check, fill
from hdrgen_server.systems.qwenlinear.config import LinearConfig
from hdrgen_server.systems.qwenlinear.normalise import LightNorm
from hdrgen_server.systems.qwenlinear.widen import Way, widen_transformer
from hdrgen_server.systems.qwenlog import lora
from hdrgen_server.systems.qwenlog.loading import (
    LORA_FILE,
    TRANSFORMER,
    load_transformer,
    load_vae,
    read,
    table_of,
    with_flow,
)
from hdrgen_server.systems.qwenlog.model import QwenImage
from hdrgen_server.systems.qwenlog.text import load_text
from nuke_hdrgen.wire.errors import BadInput

WIDENED_FILE, NORM_FILE = "widened.safetensors", "normalisation.safetensors"


def load_linear(config: LinearConfig, folder: Path, dtype: torch.dtype) -> tuple[QwenImage, LightNorm]:
    """The networks in a pack's folder, on the CPU; transformer and text encoder in `dtype`, the rest in float32.

    Raises BadInput naming the file and what in it is wrong.
    """
    text = load_text(config.qwen.text, folder, dtype)
    norm = load_norm(config, folder / NORM_FILE)
    vae = load_vae(config.qwen, folder)
    transformer = load_wide(config, folder, dtype)
    if (folder / WIDENED_FILE).is_file():
        load_widened(transformer, folder / WIDENED_FILE)
    if (folder / LORA_FILE).is_file():
        lora.load(transformer, read(folder / LORA_FILE), str(folder / LORA_FILE))
    return QwenImage(with_flow(config.qwen, folder), transformer.eval(), vae.eval(), text), norm.eval()


def load_wide(
    config: LinearConfig, folder: Path, dtype: torch.dtype, way: Way = "halved"
) -> QwenImageTransformer2DModel:
    """The transformer in a pack's folder, widened where it is the base's. Raises BadInput."""
    table = table_of(folder / TRANSFORMER / "config.json")
    if table.get("in_channels") == config.base.transformer.arguments()["in_channels"]:
        return widen_transformer(load_transformer(config.base, folder, dtype), way)
    return load_transformer(config.qwen, folder, dtype)


def load_widened(network: QwenImageTransformer2DModel, path: Path) -> None:
    """Put trained `img_in` and `proj_out` in. Raises BadInput where they do not fit."""
    state = read(path)
    own = {k: v for k, v in network.state_dict().items() if k.startswith(("img_in.", "proj_out."))}
    check(own, state, str(path))
    network.load_state_dict({name: t.to(own[name].dtype) for name, t in state.items()}, strict=False)


def load_norm(config: LinearConfig, path: Path) -> LightNorm:
    """The normalisation in a file. Raises BadInput where it is not there, or would make NaN of light."""
    norm = LightNorm(config.knee)
    fill(norm, {name: tensor.float() for name, tensor in read(path).items()}, str(path))
    if not bool(norm.inverse(norm(torch.tensor([0.0, 500.0]).expand(1, 3, 1, 2))).isfinite().all()):
        raise BadInput(f"{path} makes no light of light; train it again")
    return norm.requires_grad_(requires_grad=False)
