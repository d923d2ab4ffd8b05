"""Published adapters of Qwen-Image: their spellings, whether they belong to this base, and putting them in.

It owns names and complaints. It must not know training, files' places or pictures. diffusers saves
`transformer.transformer_blocks.0.attn.to_q.lora_A.weight`; kohya's and musubi's tools flatten or prefix the same names
(`lora_unet_transformer_blocks_0_attn_to_q.lora_down.weight`, `diffusion_model.…`) and keep an alpha beside each pair.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from diffusers.loaders.lora_pipeline import QwenImageLoraLoaderMixin
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from nuke_hdrgen.wire.errors import BadInput

ADAPTER = "hdrgen"
PREFIX = "transformer."
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
OTHERS = {
    "single_transformer_blocks": "FLUX.1", "double_blocks": "FLUX.1 or FLUX.2", "single_blocks": "FLUX.1 or FLUX.2",
    "lora_te": "a Stable Diffusion", "down_blocks": "a Stable Diffusion", "joint_blocks": "Stable Diffusion 3",
    "blocks_0_self_attn": "Wan", "blocks.0.self_attn": "Wan", "audio": "LTX-2",
}  # fmt: skip
"""Parts of names that other models' adapters have, for the message alone."""


def spelled(state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """An adapter's tensors by module path + `.lora_A.weight` or `.lora_B.weight`, scaled by alpha over rank.

    Raises BadInput for names that are no spelling of Qwen-Image's.
    """
    if any("dora_scale" in name for name in state):
        raise BadInput(f"{where} is a DoRA, which is not supported; give a LoRA")
    try:
        found: Any = QwenImageLoraLoaderMixin.lora_state_dict(dict(state))
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise _another(where, state) from error
    return {name.removeprefix(PREFIX).removeprefix(PREFIX): tensor for name, tensor in found.items()}


def check(network: QwenImageTransformer2DModel, state: Mapping[str, Tensor], where: str) -> Mapping[str, int]:
    """The rank of each adapted module. Raises BadInput for an adapter of another base, or one that is not whole."""
    modules = dict(network.named_modules())
    ranks: dict[str, int] = {}
    for name, tensor in state.items():
        path, suffix = _split(name)
        module = modules.get(path)
        if not suffix or not isinstance(module, nn.Linear):
            raise _another(where, state, path or name)
        down, up = state.get(path + DOWN), state.get(path + UP)
        if down is None or up is None:
            raise BadInput(f"{where} has only one half of the adapter of {path}; fetch it again")
        wanted = (module.in_features, module.out_features)
        if down.ndim != 2 or up.ndim != 2 or (down.shape[1], up.shape[0]) != wanted or down.shape[0] != up.shape[1]:
            shape = f"{tuple(up.shape)} x {tuple(down.shape)}"
            raise BadInput(f"{where}: the adapter of {path} is {shape} where {wanted[::-1]} is needed; {ADVICE}")
        if not bool(tensor.isfinite().all()):
            raise BadInput(f"{where}: tensor {name} holds NaN or Inf; fetch it again")
        ranks[path] = down.shape[0]
    if not ranks:
        raise BadInput(f"{where} holds no adapter; {ADVICE}")
    return ranks


ADVICE = "it is a LoRA for another base; give one for Qwen-Image of this size"


def load(network: QwenImageTransformer2DModel, state: Mapping[str, Tensor], where: str) -> None:
    """Put an adapter of any spelling into a transformer, beside its weights. Raises BadInput.

    It is not folded into them: half-precision weights would round away what makes log codes exact.
    """
    own = spelled(state, where)
    ranks = check(network, own, where)
    whole: Any = network
    dtype = whole.dtype
    add(network, ranks)
    set_peft_model_state_dict(network, own, adapter_name=ADAPTER)
    whole.to(dtype)


def add(network: QwenImageTransformer2DModel, ranks: Mapping[str, int], init: Any = True) -> None:
    """Untrained adapters on these modules, scaled by 1; `init` as peft's `init_lora_weights`."""
    most = max(ranks.values())
    exact = {rf"^{re.escape(path)}$": rank for path, rank in ranks.items()}
    network.add_adapter(
        LoraConfig(
            r=most, lora_alpha=most, rank_pattern=exact, alpha_pattern=exact, init_lora_weights=init,
            target_modules=list(ranks),
        ),
        ADAPTER,
    )  # fmt: skip


def targets(network: QwenImageTransformer2DModel, names: Sequence[str]) -> list[str]:
    """The paths of the blocks' modules whose last names are these."""
    blocks = (path for path, _ in network.named_modules() if path.startswith("transformer_blocks."))
    return [path for path in blocks if path.rpartition(".")[2] in names]


def saved(network: QwenImageTransformer2DModel) -> dict[str, Tensor]:
    """The adapter's tensors as diffusers spells them, for a file that other programs load too."""
    state = get_peft_model_state_dict(network, adapter_name=ADAPTER)
    return {PREFIX + name: tensor.contiguous() for name, tensor in state.items()}


def _split(name: str) -> tuple[str, str]:
    for suffix in (DOWN, UP):
        if name.endswith(suffix):
            return name.removesuffix(suffix), suffix
    return "", ""


def _another(where: str, state: Mapping[str, Tensor], name: str = "") -> BadInput:
    model = next((model for mark, model in OTHERS.items() if any(mark in key for key in state)), "")
    looks = f" (it looks like one for {model})" if model else ""
    what = f"adapts {name}, which Qwen-Image has not" if name else "is in no spelling that Qwen-Image's adapters have"
    return BadInput(f"{where} {what}{looks}; {ADVICE}")
