"""Low-rank adapters of stage two (GMODiff 3.3: LoRA on the UNet and on the encoders), through peft and diffusers.

It owns which layers have them, and their files. It must not know training or tiles.
"""

from __future__ import annotations

from pathlib import Path

from diffusers.loaders.peft import PeftAdapterMixin
from peft import LoraConfig

from hdrgen_server.systems.gmodiff.refine.model import Refiner

ADAPTER = "gmodiff"
# The public code adapts attention, convolutions, feed-forward and projections; conv_in is trained whole.
_UNET_LAYERS = (
    "to_q", "to_k", "to_v", r"to_out\.0", "conv", "conv1", "conv2", "conv_shortcut", "conv_out", "proj_in", "proj_out",
    r"ff\.net\.0\.proj", r"ff\.net\.2",
)  # fmt: skip
_ENCODER_LAYERS = (
    "to_q", "to_k", "to_v", r"to_out\.0", "conv", "conv1", "conv2", "conv_shortcut", "conv_in", "conv_out",
)  # fmt: skip
UNET_TARGETS = rf"(.*\.)?({'|'.join(_UNET_LAYERS)})"
ENCODER_TARGETS = rf"encoder\.(.*\.)?({'|'.join(_ENCODER_LAYERS)})"
# The public code adapts the convolution behind the encoder too, and the first VAE's decoder.
RELEASED_CONDITION_TARGETS = rf"quant_conv|{ENCODER_TARGETS}"
RELEASED_VAE_TARGETS = rf"quant_conv|(encoder|decoder)\.(.*\.)?({'|'.join(_ENCODER_LAYERS)})"


def adapted(refiner: Refiner) -> dict[str, tuple[PeftAdapterMixin, int, str]]:
    """The networks that have adapters: each with its rank and its layers, by the name of its file."""
    ranks, released = refiner.config.lora, refiner.config.decoder == "released"
    networks: dict[str, tuple[PeftAdapterMixin, int, str]] = {
        "unet": (refiner.unet, ranks.unet, UNET_TARGETS),
        "vae": (refiner.vae, ranks.vae, RELEASED_VAE_TARGETS if released else ENCODER_TARGETS),
        "condition": (
            refiner.condition,
            ranks.condition,
            RELEASED_CONDITION_TARGETS if released else ENCODER_TARGETS,
        ),
    }
    return {name: network for name, network in networks.items() if network[1]}


def add_lora(refiner: Refiner) -> None:
    """Put untrained adapters in: gaussian A, zero B, so that nothing changes yet."""
    for network, rank, targets in adapted(refiner).values():
        network.add_adapter(
            LoraConfig(
                r=rank, lora_alpha=refiner.config.lora.alpha, init_lora_weights="gaussian", target_modules=targets
            ),
            ADAPTER,
        )


def save_lora(refiner: Refiner, folder: Path) -> None:
    """Write each network's adapter as NAME.safetensors in `folder`."""
    for name, (network, _, _) in adapted(refiner).items():
        network.save_lora_adapter(folder, ADAPTER, weight_name=f"{name}.safetensors")


def merge_lora(refiner: Refiner) -> None:
    """Fold the adapters into the weights they adapt, and remove them: the same result at no cost a step."""
    for network, _, _ in adapted(refiner).values():
        network.fuse_lora(adapter_names=[ADAPTER])
        network.unload_lora()
