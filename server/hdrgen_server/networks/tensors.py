"""Fills modules with tensors, name by name and shape by shape, and says what does not fit.

It owns the comparison and its complaints. It must not know systems, files' layouts or formats: it gets tensors, and a
name for where they came from.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nuke_hdrgen.wire.errors import BadInput


def check(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], where: str) -> None:
    """Raises BadInput naming the first tensor that is missing, has another shape, is not finite or is left over."""
    for name, tensor in wanted.items():
        if name not in given:
            raise BadInput(f"{where} has no tensor {name}; it is cut short or belongs to another model family")
        if given[name].shape != tensor.shape:
            shapes = f"{tuple(given[name].shape)}, not {tuple(tensor.shape)}"
            raise BadInput(f"{where}: tensor {name} has shape {shapes}; it belongs to another model family or size")
        if not torch.isfinite(given[name].float().sum()):  # one pass without a copy; any NaN or Inf ends up in the sum
            raise BadInput(f"{where}: tensor {name} holds NaN or Inf; fetch or add it again")
    extra = sorted(set(given) - set(wanted))
    if extra:
        raise BadInput(f"{where} has {len(extra)} tensors that do not belong there, such as {extra[0]}")


def fill(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Put exactly these tensors into a module built on the meta device. Raises BadInput as `check` does."""
    check(module.state_dict(), state, where)
    module.load_state_dict(state, assign=True)
