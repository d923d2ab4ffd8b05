"""Starts a VAE of LTX-2's class as the best that its layers allow without learning: each layer fitted by least squares.

It owns the initial weights. It must not know where clips come from, losses or the loop. The norms divide each pixel by
its own length, which takes the level out of every feature, so that a network from random weights spends its first
thousands of steps on tones. Here a clip runs along the residual path as principal components of its blocks around a
level that is the same everywhere: lengths then hardly depend on the clip and SiLU is close to linear. Every layer is
fitted to clips as the layers before it show them: going down what keeps the most of the pixels, going up the next finer
blocks. Every residual branch starts at zero. No layer but the first may change the width inside a block, as in LTX-2's.
`linear_start` and `qwen_start` do the same for other classes of network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_ltx2 import AutoencoderKLLTX2Video, LTX2VideoResnetBlock3d
from torch import Tensor
from torch.nn import functional as F

LEVEL, SPREAD = 1.0, 0.3
"""Where signals ride, and the largest one's deviation."""
LOG_VARIANCE = -7.0
RIDGE = 1e-3
"""Of the mean variance of what a layer sees."""
TAPS = 3


@dataclass(frozen=True, eq=False)
class _Components:
    """The main directions of vectors: rows (K, C) of unit length and deviations (K,) along them, and the mean (C,)."""

    mean: Tensor
    rows: Tensor
    deviations: Tensor

    def signals(self, vectors: Tensor) -> Tensor:
        """Vectors (N, C, F, H, W) as signals around LEVEL, (N, K, F, H, W): the first is SPREAD wide, the others by the
        root of how wide they are beside it. Wholly evened out, the least would need weights that no training can hold.
        """
        found = torch.einsum("kc,ncfhw->nkfhw", self.rows, vectors - self.mean.view(1, -1, 1, 1, 1))
        return LEVEL + SPREAD * found / (self.deviations * self.deviations.max()).sqrt().view(1, -1, 1, 1, 1)


@torch.no_grad()
def start_linear(vae: AutoencoderKLLTX2Video, clips: Tensor) -> None:
    """Set the weights in place from clips (N, 3, F, H, W) in [-1, 1], some dozens of them."""
    network: Any = vae
    for module in network.modules():
        if isinstance(module, LTX2VideoResnetBlock3d):
            _plain(module.conv2)
    steps = [block.downsamplers[0] for block in network.encoder.down_blocks]
    levels = [_patched(clips, network.encoder.patch_size)]
    for step in steps:
        levels.append(_joined(levels[-1], step.stride))
    latents = _start_encoder(network.encoder, steps, levels)
    _start_decoder(network.decoder, levels, latents)


def _start_encoder(encoder: Any, steps: Sequence[Any], levels: Sequence[Tensor]) -> Tensor:
    """Fit the encoder to clips' blocks, fine to coarse; returns the latents."""
    _fit(encoder.conv_in, levels[0], _components(levels[0], _width(encoder.conv_in)).signals(levels[0]), causal=True)
    held = encoder.conv_in(levels[0], causal=True)
    for step, blocks in zip(steps, levels[:-1], strict=True):
        _fit(step.conv, held, _best(held, blocks, _width(step.conv)), causal=True)
        held = step(held, causal=True)
    seen = F.silu(encoder.norm_out(held))
    latents = (_best(held, levels[-1], _width(encoder.conv_out) - 1) - LEVEL) / SPREAD
    variance = torch.full_like(latents[:, :1], LOG_VARIANCE)
    _fit(encoder.conv_out, seen, torch.cat([latents, variance], dim=1), causal=True)
    return encoder.conv_out(seen, causal=True)[:, :-1]


def _start_decoder(decoder: Any, levels: Sequence[Tensor], latents: Tensor) -> None:
    """Fit the decoder from latents to clips' blocks, coarse to fine."""
    signals = _components(latents, _width(decoder.conv_in)).signals(latents)
    _fit(decoder.conv_in, latents, signals, causal=False)
    held = decoder.conv_in(latents, causal=False)
    for block, blocks in zip(decoder.up_blocks, reversed(levels[:-1]), strict=True):
        step = block.upsamplers[0]
        _plain(step.conv)
        beside = step(held, causal=False)
        wanted = _components(blocks, beside.shape[1]).signals(blocks) - beside
        _fit(step.conv, held, _joined(wanted, step.stride), causal=False)
        held = step(held, causal=False)
    _fit(decoder.conv_out, F.silu(decoder.norm_out(held)), levels[0], causal=False)


def _patched(clips: Tensor, edge: int) -> Tensor:
    """Clips (N, 3, F, H, W) as the encoder sees them, (N, 3 edge^2, F, H / edge, W / edge)."""
    return clips.unflatten(4, (-1, edge)).unflatten(3, (-1, edge)).permute(0, 1, 6, 4, 2, 3, 5).flatten(1, 3)


def _joined(vectors: Tensor, stride: tuple[int, int, int]) -> Tensor:
    """Blocks of what one place sees after a step down, its first frame standing for a block of its own."""
    time, rows, columns = stride
    vectors = torch.cat([vectors[:, :, : time - 1], vectors], dim=2)
    split = vectors.unflatten(4, (-1, columns)).unflatten(3, (-1, rows)).unflatten(2, (-1, time))
    return split.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)


def _width(convolution: Any) -> int:
    return int(convolution.conv.out_channels)


def _samples(vectors: Tensor) -> Tensor:
    return vectors.movedim(1, -1).flatten(0, 3).double()


def _components(vectors: Tensor, count: int) -> _Components:
    """The `count` main directions of vectors (N, C, F, H, W); where C is less, they come again."""
    rows = _samples(vectors)
    mean = rows.mean(dim=0)
    values, directions = torch.linalg.eigh(torch.cov(rows.T))
    order = torch.arange(count) % len(values)
    chosen = values.flip(0)[order].clamp(min=1e-6).sqrt()
    return _Components(mean.float(), directions.flip(1).T[order].float(), chosen.float())


def _best(held: Tensor, wanted: Tensor, count: int) -> Tensor:
    """The `count` signals of what is held that tell the most of `wanted`, both (N, C, F, H, W): reduced-rank
    regression (Izenman 1975).
    """
    seen, pixels = _samples(held), _samples(wanted)
    seen, pixels = seen - seen.mean(dim=0), pixels - pixels.mean(dim=0)
    found = _solved(seen, pixels)
    guessed = (seen @ found).float().unflatten(0, (held.shape[0], *held.shape[2:])).movedim(-1, 1)
    return _components(guessed, count).signals(guessed)


def _solved(seen: Tensor, wanted: Tensor) -> Tensor:
    """The ridge regression of `wanted` (N, M) on `seen` (N, C), (C, M)."""
    gram = seen.T @ seen
    gram += RIDGE * torch.diagonal(gram).mean() * torch.eye(len(gram), dtype=gram.dtype)
    return torch.linalg.solve(gram, seen.T @ wanted)


def _fit(convolution: Any, inputs: Tensor, wanted: Tensor, *, causal: bool) -> None:
    """Set a convolution so that it makes `wanted` of `inputs` as nearly as it can. Going down it looks at one place,
    going up at its neighbours too.
    """
    layer = convolution.conv
    _plain(convolution)
    if causal:
        seen, target = _samples(inputs), _samples(wanted)
        found = _solved(seen - seen.mean(dim=0), target - target.mean(dim=0)).T
        middle = TAPS // 2
        layer.weight[:, :, -1, middle, middle] = found.float()
        layer.bias.copy_((target.mean(dim=0) - found @ seen.mean(dim=0)).float())
        return
    gram: Any = 0
    product: Any = 0
    for clip, target in zip(inputs, wanted, strict=True):
        seen = _neighbours(clip[None])
        gram = gram + seen.T @ seen
        product = product + seen.T @ _samples(target[None])
    gram[:-1, :-1] += RIDGE * torch.diagonal(gram).mean() * torch.eye(len(gram) - 1, dtype=gram.dtype)
    found = torch.linalg.solve(gram, product).T.float()
    layer.weight.copy_(found[:, :-1].unflatten(1, layer.weight.shape[1:]))
    layer.bias.copy_(found[:, -1])


def _neighbours(inputs: Tensor) -> Tensor:
    """All that a convolution that is not causal sees at each place, and 1 for its bias, (places, C taps + 1)."""
    padded = F.pad(torch.cat([inputs[:, :, :1], inputs, inputs[:, :, -1:]], dim=2), (1, 1, 1, 1))
    seen = padded.unfold(2, TAPS, 1).unfold(3, TAPS, 1).unfold(4, TAPS, 1)
    places = seen.permute(0, 2, 3, 4, 1, 5, 6, 7).flatten(4).flatten(0, 3).double()
    return F.pad(places, (0, 1), value=1.0)


def _plain(convolution: Any) -> None:
    convolution.conv.weight.zero_()
    convolution.conv.bias.zero_()
