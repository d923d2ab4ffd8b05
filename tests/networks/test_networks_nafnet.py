"""NAF blocks: their parts against torch's own, what they start as, and what attention sees."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from hdrgen_server.networks.nafnet import ChannelLayerNorm, NAFBlock, Pointwise, simple_gate, stage

torch.set_num_threads(1)


def picture(channels: int, size: tuple[int, int] = (9, 11), seed: int = 0) -> torch.Tensor:
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(seed))


def shaken(block: NAFBlock, seed: int = 0) -> NAFBlock:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return block


def test_the_norm_is_over_the_channels_of_each_pixel() -> None:
    x = 5 * picture(6) + 3
    y = ChannelLayerNorm(6)(x)
    expected = (x - x.mean(dim=1, keepdim=True)) / (x.var(dim=1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    assert torch.allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_pointwise_is_a_convolution(memory_format: torch.memory_format) -> None:
    x = picture(6).contiguous(memory_format=memory_format)
    layer = Pointwise(6, 4)
    assert torch.allclose(layer(x), F.conv2d(x, layer.weight, layer.bias), atol=1e-5)


def test_the_gate_multiplies_halves() -> None:
    assert simple_gate(torch.tensor([2.0, 3.0, 5.0, 7.0]).view(1, 4, 1, 1)).flatten().tolist() == [10.0, 21.0]


def test_a_new_block_is_the_identity_as_published() -> None:
    x = picture(8)
    assert torch.equal(NAFBlock(8)(x), x)
    assert torch.equal(stage(8, 3, channel_attention=False)(x), x)
    assert not torch.equal(NAFBlock(8, residual=0.1)(x), x)


def test_without_attention_a_block_sees_its_neighbours_only() -> None:
    x = picture(8)
    changed = x.clone()
    changed[:, :, 0, 0] += 1
    near = shaken(NAFBlock(8, channel_attention=False))
    assert torch.equal(near(x)[:, :, 2:, 2:], near(changed)[:, :, 2:, 2:])
    everywhere = shaken(NAFBlock(8, channel_attention=True))
    assert not torch.equal(everywhere(x)[:, :, 2:, 2:], everywhere(changed)[:, :, 2:, 2:])
