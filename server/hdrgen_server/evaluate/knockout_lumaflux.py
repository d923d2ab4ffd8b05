"""What each module of LumaFlux is worth: how each is silenced, one after another, in a loaded pack.

It owns how a module is made the identity, or zero where it adds to what is there. It must not know methods or scores.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from hdrgen_server.systems.lumaflux.model import LumaFlux
from hdrgen_server.systems.lumaflux.physical import Physical

Hook = Callable[[nn.Module, Any, Any], Any]
Silence = Callable[[LumaFlux], list[tuple[nn.Module, Hook]]]


def _no_velocity(_module: nn.Module, _inputs: Any, output: Any) -> Any:
    return (torch.zeros_like(output[0]),)


def _dark(_module: nn.Module, _inputs: Any, output: Physical) -> Physical:
    return Physical(*(torch.zeros_like(x) for x in (output.tokens, output.statistics, output.spectrum)))


def _blind(_module: nn.Module, _inputs: Any, output: Any) -> Any:
    output.last_hidden_state = torch.zeros_like(output.last_hidden_state)
    return output


def _unmoved(module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    """The conditioner's head with its bias alone: the same weights at every time and in every block."""
    bias = module.get_parameter("bias")
    return bias.expand_as(output)


def _same(_module: nn.Module, inputs: Any, _output: Any) -> Any:
    return inputs[0]


HOOKED: Mapping[str, Silence] = MappingProxyType(
    {
        "backbone (transformer)": lambda m: [(m.steered.transformer, _no_velocity)],
        "physical features": lambda m: [(m.adapters.physical, _dark)],
        "image encoder": lambda m: [(m.encoder, _blind)],
        "conditioner": lambda m: [(m.adapters.modulation.head, _unmoved)],
        "chroma refinement": lambda m: [(m.adapters.rqs.chroma, _same)],
    }
)
LEFT_OUT: Mapping[str, str] = MappingProxyType(
    {"PGA": "pga", "spectral gate": "spectral", "PCM": "pcm", "coupler": "coupler", "tone field": "rqs"}
)
"""Those that the adapters themselves can do without, and what they call them."""
NAMES = (*HOOKED, *LEFT_OUT)


@contextmanager
def silenced(model: LumaFlux, name: str) -> Generator[None]:
    """The model with one module of NAMES silenced inside the block. `tone field` takes the chroma refinement along."""
    adapters, before = model.adapters, model.adapters.without
    with ExitStack() as stack:
        if name in LEFT_OUT:
            adapters.without = before | {LEFT_OUT[name]}
            stack.callback(setattr, adapters, "without", before)
        for module, hook in HOOKED[name](model) if name in HOOKED else []:
            stack.callback(module.register_forward_hook(hook).remove)
        yield
