"""Offloaded weights are nowhere but in main memory until their layer runs, and change no value."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hdrgen_server.networks import offload
from hdrgen_server.networks.nafnet import NAFBlock, in_channels_last

CPU = torch.device("cpu")


class Parts(nn.Module):
    """Called by its parts, with weights of its own, a buffer, and a block that has both."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.block = NAFBlock(8, residual=0.5)

    def run(self, x: Tensor) -> Tensor:
        return self.block(self.first[1](self.first[0](x)))


@pytest.fixture
def model() -> Parts:
    torch.manual_seed(0)
    return in_channels_last(Parts().eval().requires_grad_(requires_grad=False))


def held(model: nn.Module) -> set[str]:
    return {p.device.type for p in (*model.parameters(), *model.buffers())}


def test_weights_lie_on_the_device_only_while_their_layer_runs(model: Parts) -> None:
    """A CPU plays the device: what is away is on torch's device without storage, so a missed layer fails."""
    x = torch.rand(1, 3, 9, 7)
    expected = model.run(x)
    offload.place(model, CPU, offloaded=True)
    assert held(model) == {"meta"}
    seen: list[int] = []
    layer = model.block.expand
    forward = layer.forward

    def watched(given: Tensor) -> Tensor:
        seen.append(sum(p.numel() for p in model.parameters() if p.device.type == "cpu"))
        return forward(given)

    layer.forward = watched
    with torch.inference_mode():
        assert torch.equal(model.run(x), expected)
    del layer.forward
    assert held(model) == {"meta"}
    assert seen == [2 * 8]  # the block's own two scales; the layer's own follow


def test_placing_is_undone_and_may_be_repeated(model: Parts) -> None:
    x = torch.rand(1, 3, 9, 7)
    expected, layout = model.run(x), model.first[0].weight.stride()
    for offloaded in (True, True, False, False, True, False):
        with torch.inference_mode():
            offload.place(model, CPU, offloaded=offloaded)
            assert torch.equal(model.run(x), expected)
        assert offload.is_offloaded(model) is offloaded
    assert held(model) == {"cpu"}
    assert model.first[0].weight.stride() == layout


def test_it_helps_on_the_last_rung_of_a_gpu_only() -> None:
    assert [offload.helps(torch.device("cuda"), rung) for rung in range(4)] == [False, False, False, True]
    assert not offload.helps(CPU, 3)
