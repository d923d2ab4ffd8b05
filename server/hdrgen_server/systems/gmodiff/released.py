"""The layout of GMODiff's public checkpoints, and where each of their tensors goes here: names and shapes, as data.

It owns both tables and the arithmetic of folding a low-rank update into its weight. It must not know torch, pickles or
files. Facts of layout come from the public source (github.com/gbymat/GMODiff, commit e3f8367), read as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hdrgen_server.systems.gmodiff.config import CONFIGS, RegressorConfig

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

TABLE = Path(__file__).with_name("released.tsv")
RANK, ALPHA = 16, 8  # alpha is peft's own default
# Network, the checkpoint's entry for its tensors, and the rank's entry.
NETWORKS = {"unet": ("state_dict_unet", "rank_unet"), "vae": ("state_dict_vae", "rank_vae"),
            "vae_c": ("state_dict_vae_c", "rank_vae_c")}  # fmt: skip
# Entries that list adapted layers; torch needs them to build adapters, the table here says the same.
LISTS = (
    "vae_lora_encoder_modules", "vae_lora_decoder_modules", "vae_c_lora_encoder_modules",
    "unet_lora_encoder_modules", "unet_lora_decoder_modules", "unet_lora_others_modules",
)  # fmt: skip
# Layers that the checkpoint holds whole besides their adapters.
WHOLE = re.compile(r"conv_in|decoder\.skip_conv_\d\..+")
# Adapters that stay adapters, by file; those of whole layers are folded.
LORA_FILES = {"unet": "lora/unet", "vae": "lora/vae", "vae_c": "lora/condition"}

# Where folded and plain tensors go in refine.safetensors: pattern of "network:layer.field" and replacement.
REFINED_NAMES: tuple[tuple[str, str], ...] = (
    (r"unet:conv_in\.(weight|bias)", r"unet.conv_in.\1"),
    (r"vae:decoder\.skip_conv_(\d)\.conv1\.weight", r"blocks.{\1}.skip.weight"),
    (r"vae:decoder\.skip_conv_(\d)\.mlp\.([02])\.(weight|bias)", r"blocks.{\1}.gate.\2.\3"),
    (r"proj:(mask_encoder|mlp)\.(.+)", r"prior.\1.\2"),
)
# The same for the regressor: its blocks' layers have other names here, and its reference comes first.
REGRESSOR_NAMES: tuple[tuple[str, str], ...] = (
    (r"intro_1\.(.+)", r"head.intro.0.\1"),
    (r"intro_0\.(.+)", r"head.intro.1.\1"),
    (r"intro_2\.(.+)", r"head.intro.2.\1"),
    (r"fusion\.att11\.(.+)", r"head.attention.0.0.\1"),
    (r"fusion\.att12\.(.+)", r"head.attention.0.2.\1"),
    (r"fusion\.att31\.(.+)", r"head.attention.1.0.\1"),
    (r"fusion\.att32\.(.+)", r"head.attention.1.2.\1"),
    (r"fusion\.conv2\.(.+)", r"head.fuse.\1"),
    (r"ending\.(.+)", r"head.ending.\1"),
    (r"outconv\.(.+)", r"head.out.\1"),
    (r"downs\.(\d)\.0\.(.+)", r"backbone.downs.\1.\2"),
    (r"ups\.(\d)\.0\.(.+)", r"backbone.ups.\1.0.\2"),
    (r"middle_blks\.(.+)", r"backbone.middle.\1"),
    (r"((?:en|de)coders\..+)", r"backbone.\1"),
    (r"encoder_adapt_convs\.(.+)", r"mask.adapters.\1"),
    (r"seg_conv_layers\.(.+)", r"mask.head.\1"),
)
BLOCK_LAYERS: Mapping[str, str] = {
    "conv1": "expand", "conv2": "depthwise", "sca.1": "attention", "conv3": "project", "conv4": "feed_in",
    "conv5": "feed_out",
}  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """An adapted layer: network, adapter, name, channels out and in, kernel (0: linear), whether it has a bias."""

    network: str
    adapter: str
    name: str
    out: int
    inputs: int
    kernel: int
    bias: bool

    @property
    def weight(self) -> Shape:
        """The shape of its weight."""
        return (self.out, self.inputs, *(self.kernel,) * (2 if self.kernel else 0))

    @property
    def whole(self) -> bool:
        """Whether the checkpoint holds the layer itself too."""
        return WHOLE.fullmatch(self.name) is not None

    def lora(self, rank: int) -> tuple[Shape, Shape]:
        """The shapes of its two low-rank factors."""
        return (rank, *self.weight[1:]), (self.out, rank, *(1,) * (2 if self.kernel else 0))


@dataclass(frozen=True)
class Layout:
    """What a pair of checkpoints holds: stage two's layers, its projection, and the regressor's sizes."""

    layers: tuple[Layer, ...]
    projection: Mapping[str, Shape]
    regressor: RegressorConfig
    rank: int = RANK


def released_layout() -> Layout:
    """The published one, for SD 2.1."""
    rows = (line.split("\t") for line in TABLE.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    layers = (
        Layer(network, adapter, name, int(out), int(inputs), int(kernel), bias == "1")
        for network, adapter, name, out, inputs, kernel, bias in rows
    )
    return Layout(tuple(layers), projection_shapes(1024), CONFIGS["released"])


def projection_shapes(width: int, unshuffled: int = 64, middle: int = 256) -> dict[str, Shape]:
    """The tensors of `proj`: the mask's encoder with its batch norms, and what joins it with the features."""
    shapes: dict[str, Shape] = {}
    for first, inputs, out in ((1, unshuffled, middle), (4, middle, width)):
        shapes |= {f"mask_encoder.{first}.weight": (out, inputs, 3, 3), f"mask_encoder.{first}.bias": (out,)}
        norm = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (out,))
        shapes |= {f"mask_encoder.{first + 1}.{name}": shape for name, shape in norm.items()}
        shapes[f"mask_encoder.{first + 1}.num_batches_tracked"] = ()
    for index, inputs in ((0, 2 * width), (2, width)):
        shapes |= {f"mlp.{index}.weight": (width, inputs), f"mlp.{index}.bias": (width,)}
    return shapes


def refiner_shapes(layout: Layout) -> dict[str, dict[str, Shape]]:
    """Every tensor of stage two's checkpoint, by entry."""
    shapes: dict[str, dict[str, Shape]] = {entry: {} for entry, _ in NETWORKS.values()}
    for layer in layout.layers:
        held = shapes[NETWORKS[layer.network][0]]
        for factor, shape in zip("AB", layer.lora(layout.rank), strict=True):
            held[f"{layer.name}.lora_{factor}.default_{layer.adapter}.weight"] = shape
        if layer.whole:
            held[f"{layer.name}.base_layer.weight"] = layer.weight
            if layer.bias:
                held[f"{layer.name}.base_layer.bias"] = (layer.out,)
        if layer.network == "vae" and layer.whole and layer.kernel:  # the second encoder has them too, unused
            shapes[NETWORKS["vae_c"][0]][f"{layer.name.removesuffix('.conv1')}.weight"] = layer.weight
    return {**shapes, "proj": dict(layout.projection)}


def regressor_shapes(config: RegressorConfig) -> dict[str, Shape]:
    """Every tensor of the regressor's checkpoint."""
    widths, strides, scales = config.widths, config.strides, len(config.encoder)
    first, mask = widths[0], config.mask_width
    shapes: dict[str, Shape] = {}

    def conv(name: str, out: int, inputs: int, kernel: int, *, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (out, inputs, kernel, kernel)
        if bias:
            shapes[f"{name}.bias"] = (out,)

    for index in range(3):
        conv(f"intro_{index}", first, 6, 3)
    for side in (1, 3):
        conv(f"fusion.att{side}1", 2 * first, 2 * first, 3)
        conv(f"fusion.att{side}2", first, 2 * first, 3)
    conv("fusion.conv2", first, 3 * first, 3)
    conv("ending", first, first, 3)
    conv("outconv", 3, first, 3)
    for index, stride in enumerate(strides):
        conv(f"downs.{index}.0", widths[index + 1], widths[index], stride)
        up = scales - 1 - index
        conv(f"ups.{up}.0", widths[index] * stride**2, widths[index + 1], 1, bias=False)
        conv(f"encoder_adapt_convs.{index}", mask, widths[index], 1)
        shapes |= _blocks(f"encoders.{index}", widths[index], config.encoder[index])
        shapes |= _blocks(f"decoders.{up}", widths[index], config.decoder[up])
    shapes |= _blocks("middle_blks", widths[-1], config.middle)
    conv("seg_conv_layers.0", 2 * mask, scales * mask, 3)
    conv("seg_conv_layers.2", mask, 2 * mask, 3)
    conv("seg_conv_layers.4", 1, mask, 1)
    return shapes


def regressor_name(name: str) -> str:
    """What a tensor of the released regressor is called here."""
    for old, new in BLOCK_LAYERS.items():
        name = re.sub(rf"((?:encoders|decoders|middle_blks)\.[\d.]+){re.escape(old)}\.", rf"\1{new}.", name)
    return _renamed(name, REGRESSOR_NAMES)


def refined_name(network: str, name: str) -> str:
    """What a plain or folded tensor of stage two is called here; blocks are counted from 0."""
    found = _renamed(f"{network}:{name}", REFINED_NAMES)
    return re.sub(r"\{(\d)\}", lambda match: str(int(match[1]) - 1), found)


def folded(weight: Array, down: Array, up: Array, scale: float) -> Array:
    """A layer's weight with its low-rank update: W + scale B A, computed in float64, returned in float32."""
    update = np.tensordot(up.reshape(len(up), -1).astype(np.float64), down.astype(np.float64), axes=(1, 0))
    return (weight + scale * update).astype(np.float32)


def _renamed(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in table:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, replacement, name)
    raise KeyError(name)


def _blocks(where: str, channels: int, count: int) -> dict[str, Shape]:
    return {f"{where}.{index}.{name}": shape for index in range(count) for name, shape in _block(channels)}


def _block(channels: int) -> Iterator[tuple[str, Shape]]:
    double = 2 * channels
    for name, out, inputs, kernel in (
        ("conv1", double, channels, 1), ("conv2", double, 1, 3), ("conv3", channels, channels, 1),
        ("sca.1", channels, channels, 1), ("conv4", double, channels, 1), ("conv5", channels, channels, 1),
    ):  # fmt: skip
        yield f"{name}.weight", (out, inputs, kernel, kernel)
        yield f"{name}.bias", (out,)
    for norm in ("norm1", "norm2"):
        yield f"{norm}.weight", (channels,)
        yield f"{norm}.bias", (channels,)
    for scale in ("beta", "gamma"):
        yield scale, (1, channels, 1, 1)
