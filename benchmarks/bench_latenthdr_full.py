"""What the exposure head costs beside the published backbones: arithmetic of a call, and seconds where one fits here.

`python benchmarks/bench_latenthdr_full.py [SIDE] [--measure]`, by default 1024. Operations are counted on the meta
device (a multiplication and an addition are two), so that no weights are needed and nothing depends on this machine:
for the head at its published width and one call of each backbone's transformer or U-Net, at SIDE x SIDE pixels. With
`--measure` Stable Diffusion 2.1's U-Net, with random weights, and the head are timed too: CPU seconds on one thread,
the best of three after a call that does not count. Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from hdrgen_server.systems.gmodiff.refine.config import SD21_UNET
from hdrgen_server.systems.latenthdr.config import CONFIGS as HEADS
from hdrgen_server.systems.latenthdr.head import ExposureHead
from hdrgen_server.systems.lumaflux.config import CONFIGS as FLUX
from hdrgen_server.systems.qwenlog.config import CONFIGS as QWEN

EXPOSURES, FACTOR, PROMPT_TOKENS = 13, 8, 64
STEPS = {"sd21": 50, "flux": 28, "qwen-image": 50}
"""Steps that each is commonly drawn in."""


def main(arguments: list[str]) -> None:
    """Count, and measure where that is asked."""
    measure = "--measure" in arguments
    numbers = [argument for argument in arguments if argument != "--measure"]
    side = int(numbers[0]) if numbers else 1024
    found: dict[str, object] = {"side": side, "exposures": EXPOSURES}
    with torch.device("meta"):
        calls = {"sd21": sd21(side), "flux": flux(side), "qwen-image": qwen(side)}
        for name, (call, channels) in calls.items():
            backbone, head = operations(call), operations(head_call(channels, side))
            steps = STEPS[name]
            found[name] = {
                "backbone_call_tflop": round(backbone / 1e12, 3), "head_call_tflop": round(head / 1e12, 4),
                "head_share_of_backbone_call": round(head / backbone, 5), "steps": steps,
                "stack_share_of_per_exposure_diffusion_without_decoding": round(
                    (steps * backbone + EXPOSURES * head) / (EXPOSURES * steps * backbone), 4
                ),
            }  # fmt: skip
    if measure:
        torch.set_num_threads(1)
        call, channels = sd21(side)
        backbone, head = best(call), best(head_call(channels, side))
        found["sd21_measured"] = {
            "backbone_call_s": round(backbone, 3), "head_call_s": round(head, 4),
            "head_share_of_backbone_call": round(head / backbone, 5),
        }  # fmt: skip
    print(json.dumps(found))


def head_call(channels: int, side: int) -> Callable[[], object]:
    """One exposure of the published head."""
    head = ExposureHead(HEADS["published"], channels).eval()
    latents, ev = torch.randn(1, channels, side // FACTOR, side // FACTOR), torch.zeros(1)
    return lambda: head(latents, ev)


def sd21(side: int) -> tuple[Callable[[], object], int]:
    """One call of Stable Diffusion 2.1's U-Net, and its latents' channels."""
    unet = UNet2DConditionModel(**SD21_UNET.arguments(4, 4)).eval()
    latents, prompt = (
        torch.randn(1, 4, side // FACTOR, side // FACTOR),
        torch.randn(1, 77, SD21_UNET.cross_attention_dim),
    )
    level = torch.zeros(1, dtype=torch.long)
    return lambda: unet(latents, level, prompt), 4


def flux(side: int) -> tuple[Callable[[], object], int]:
    """One call of FLUX.1's transformer."""
    config = FLUX["published"].flux
    transformer = FluxTransformer2DModel(**config.arguments()).eval()
    tokens = (side // FACTOR // 2) ** 2
    packed, prompt = (
        torch.randn(1, tokens, 64),
        torch.randn(1, PROMPT_TOKENS, config.arguments()["joint_attention_dim"]),
    )
    pooled, level, guidance = (
        torch.randn(1, config.arguments()["pooled_projection_dim"]),
        torch.zeros(1),
        torch.zeros(1),
    )
    places, words = torch.zeros(tokens, 3), torch.zeros(PROMPT_TOKENS, 3)
    return lambda: transformer(packed, prompt, pooled, level, places, words, guidance), 16


def qwen(side: int) -> tuple[Callable[[], object], int]:
    """One call of Qwen-Image's transformer."""
    config = QWEN["published"].transformer
    transformer = QwenImageTransformer2DModel(**config.arguments()).eval()
    cells = side // FACTOR // 2
    packed = torch.randn(1, cells * cells, 64)
    prompt = torch.randn(1, PROMPT_TOKENS, config.joint_attention_dim)
    mask, level = torch.ones(1, PROMPT_TOKENS, dtype=torch.bool), torch.zeros(1)
    return lambda: transformer(packed, prompt, mask, level, [[(1, cells, cells)]]), 16


def operations(call: Callable[[], object]) -> int:
    """Floating-point operations of a call."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        call()
    return counter.get_total_flops()


@torch.inference_mode()
def best(call: Callable[[], object]) -> float:
    """CPU seconds, the best of three."""
    call()
    found: list[float] = []
    for _ in range(3):
        started = time.process_time()
        call()
        found.append(time.process_time() - started)
    return min(found)


if __name__ == "__main__":
    main(sys.argv[1:])
