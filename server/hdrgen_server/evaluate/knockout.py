"""What each module of a regressor is worth: one after another made the identity, on held-out brackets.

It owns how each module is silenced, and the methods that result. It must not know how figures are scored.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from hdrgen_server.evaluate.protocol import Method
from hdrgen_server.systems.gmodiff.operator import GMODiffOperator
from hdrgen_server.systems.gmodiff.regressor import Regressor, SetHead
from hdrgen_server.training.brackets import BracketSample
from nuke_hdrgen.wire.errors import BadParameter

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


def knocked_out(operator: object, method: Method) -> dict[str, Method]:
    """A method for each module of a loaded operator without it. Raises BadParameter for a pack of another kind."""
    if not isinstance(operator, GMODiffOperator) or not isinstance(operator.model.head, SetHead):
        raise BadParameter("only packs of gmodiff's set form have a knock-out table; leave --knock-out away")
    model = operator.model

    def without(name: str) -> Method:
        def run(sample: BracketSample) -> npt.NDArray[Any]:
            with silenced(model, name):
                return method(sample)

        return run

    return {f"without {name}": without(name) for name in MODULES}
