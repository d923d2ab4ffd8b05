"""Tensors fill a module only when all of them fit, and the first that does not is named."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hdrgen_server.networks.tensors import check, fill
from nuke_hdrgen.wire.errors import BadInput


def state() -> dict[str, Tensor]:
    return {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}


def test_a_module_on_the_meta_device_gets_exactly_these() -> None:
    with torch.device("meta"):
        layer = nn.Linear(3, 2)
    fill(layer, state(), "file")
    assert layer(torch.tensor([1.0, 0.0, 2.0])).tolist() == [5.0, 14.0]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"weight": None}, r"file has no tensor weight; it is cut short"),
        ({"weight": torch.ones(3, 2)}, r"file: tensor weight has shape \(3, 2\), not \(2, 3\)"),
        ({"bias": torch.tensor([1.0, torch.nan])}, r"file: tensor bias holds NaN or Inf"),
        ({"bias": torch.tensor([-torch.inf, 1.0]).half()}, r"file: tensor bias holds NaN or Inf"),
        (
            {"more": torch.ones(1), "again": torch.ones(1)},
            r"file has 2 tensors that do not belong there, such as again",
        ),
    ],
)
def test_what_does_not_fit_is_named(changed: dict[str, Tensor | None], words: str) -> None:
    given = {name: tensor for name, tensor in {**state(), **changed}.items() if tensor is not None}
    with pytest.raises(BadInput, match=words):
        check(nn.Linear(3, 2).state_dict(), given, "file")
