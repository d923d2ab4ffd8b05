"""What a stack costs beside one diffusion an exposure: calls of the backbone, seconds of head, backbone and decoder.

`python benchmarks/bench_latenthdr.py [PACK] [SIDE] [STEPS] [DEVICE]`, by default latenthdr-qwen-s 256 20 cpu. The pack
is one of txt2hdr, by name or by folder. Each part is timed on its own in CPU seconds, the best of three, after a call
that does not count; the backbone's calls are counted while a prompt is drawn with its whole stack. Per-exposure
diffusion is the generator's steps and one decode for each of the exposures. Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import torch

DEFAULTS = ("latenthdr-qwen-s", "256", "20", "cpu")
PROMPT = "a lamp by a window"
EXPOSURES = 13


def main(arguments: list[str]) -> None:
    """Load, draw once with a count, and time the parts."""
    from hdrgen_server.cli.direct import Quiet
    from hdrgen_server.cli.scored import pack_of
    from hdrgen_server.contracts.operator import Request
    from hdrgen_server.packs.registry import load_registry
    from hdrgen_server.settings import load_settings
    from hdrgen_server.systems.latenthdr.generated import PromptOperator
    from hdrgen_server.systems.latenthdr.operator import create

    name, side, steps, device = (*arguments, *DEFAULTS[len(arguments) :])
    torch.set_num_threads(1)
    settings = load_settings()
    operator = create(pack_of(name, settings) or load_registry(settings).get(name), device)
    if not isinstance(operator, PromptOperator):
        raise SystemExit(f"{name} draws nothing; name a pack of latenthdr that does txt2hdr")
    size, model, loaded = int(side), operator.model, operator.loaded
    calls = [0]

    def count(*_: object) -> None:
        calls[0] += 1

    handle = model.transformer.register_forward_hook(count)
    asked = {"prompt": PROMPT, "width": size, "height": size, "steps": int(steps), "guidance": 1.0}
    request = Request("txt2hdr", operator.descriptor.resolve(asked), seed=1)
    started = time.process_time()
    (result,) = operator.run(request, iter(()), Quiet())
    whole = time.process_time() - started
    handle.remove()
    parts = timed(model, loaded, size, device)
    backbone, head, decode = parts["backbone_call_s"], parts["head_call_s"], parts["decode_s"]
    each = int(steps) * backbone
    found = {
        "pack": name, "side": size, "steps": int(steps), "device": device, "exposures": EXPOSURES,
        "backbone_calls": calls[0], "backbone_calls_per_exposure_diffusion": EXPOSURES * int(steps),
        "whole_cpu_s": round(whole, 2), **{key: round(value, 4) for key, value in parts.items()},
        "head_share_of_backbone_call": round(head / backbone, 4),
        "stack_s_without_decoding": round(each + EXPOSURES * head, 3),
        "per_exposure_diffusion_s_without_decoding": round(EXPOSURES * each, 3),
        "share_without_decoding": round((each + EXPOSURES * head) / (EXPOSURES * each), 4),
        "decoding_s_of_either": round(EXPOSURES * decode, 3),
        "share_with_decoding": round(
            (each + EXPOSURES * (head + decode)) / (EXPOSURES * (each + decode)), 4
        ),
        "finite": bool(torch.from_numpy(result.pixels).isfinite().all()),
    }  # fmt: skip
    print(json.dumps(found))


@torch.inference_mode()
def timed(model, loaded, size: int, device: str) -> dict[str, float]:
    """Seconds of one call of the transformer, of the head for one exposure, and of one decode."""
    factor = loaded.space.factor
    latents = torch.randn(1, loaded.space.channels, size // factor, size // factor, device=device)
    prompt = model.text.encode(PROMPT)[None].to(device)
    level, ev = torch.tensor([0.5], device=device), torch.tensor([-3.0], device=device)
    return {
        "backbone_call_s": best(lambda: model.velocity(latents, level, prompt), device),
        "head_call_s": best(lambda: loaded.head(latents, ev), device),
        "decode_s": best(lambda: loaded.space.decode(latents), device),
    }


def best(call: Callable[[], object], device: str) -> float:
    """The best of three, CPU seconds on a CPU, else of the clock."""
    clock = time.process_time if device == "cpu" else time.monotonic
    call()
    found: list[float] = []
    for _ in range(3):
        started = clock()
        call()
        if device != "cpu":
            torch.cuda.synchronize()
        found.append(clock() - started)
    return min(found)


if __name__ == "__main__":
    main(sys.argv[1:])
