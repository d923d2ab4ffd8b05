"""What each module of a regressor is worth: one after another made the identity, on held-out brackets.

It owns how each module is silenced. It must not know how the figures are scored or printed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hdrgen_server.systems.gmodiff.regressor import Regressor, SetHead

Silence = Callable[[Regressor], list[tuple[nn.Module, Callable[[Any], Any]]]]
OPEN_GATE = 16.0


def _zero(output: Tensor) -> Tensor:
    return torch.zeros_like(output)


def _open(output: Tensor) -> Tensor:
    gate, score = output.chunk(2, dim=1)
    return torch.cat([torch.full_like(gate, OPEN_GATE), torch.zeros_like(score)], dim=1)


def _no_decoding(output: tuple[Tensor, Any]) -> tuple[Tensor, Any]:
    return torch.zeros_like(output[0]), output[1]


def _head(model: Regressor) -> SetHead:
    if not isinstance(model.head, SetHead):
        raise ValueError("the knock-out table is made for the set form")
    return model.head


MODULES: Mapping[str, Silence] = {
    "backbone (encoder and decoder)": lambda m: [(m.backbone, _no_decoding)],
    "attention to the reference": lambda m: [(_head(m).attention, _open)],
    "exposure modulation": lambda m: [(_head(m).exposure, _zero)],
    "choice among exposures": lambda m: [(_head(m).choose, _zero), (_head(m).choose_merge, _zero)],
    "correction": lambda m: [(_head(m).correct, _zero)],
    "merge features": lambda m: [(_head(m).merge_intro, _zero)],
    "degradation mask head": lambda m: [(m.mask, _zero)],
}


@contextmanager
def silenced(model: Regressor, name: str) -> Generator[None]:
    """The model with one module made the identity (or zero, where it adds to what is there) inside the block."""
    with ExitStack() as stack:
        for module, replace in MODULES[name](model):
            handle = module.register_forward_hook(lambda _m, _i, output, f=replace: f(output))
            stack.callback(handle.remove)
        yield
