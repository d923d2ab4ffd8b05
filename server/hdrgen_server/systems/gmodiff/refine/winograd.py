"""3x3 convolutions with fewer products: Winograd's F(4x4, 3x3) on a CPU in float32.

It owns the algorithm and which convolutions it is worth it for. It must not know which network they belong to. Four
outputs along an axis take six products where the plain sum takes twelve, so that a plane costs 2.25 products a pixel
and pair of channels instead of 9 (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016). The
products are one batch of matrix products a band of rows, small enough for the caches; where a band's input comes from
is the caller's, so that what precedes a convolution need not be held for a whole picture. Weights are transformed at
every call: kept, they would be four times as large. Values differ from the plain sum's by about 1e-5 of the largest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor, nn

TILE, POINTS = 4, 6
# Where the transforms cost less than what they save (measured, one thread with AVX2).
LEAST_CHANNELS, LEAST_PIXELS = 96, 600
BAND_VALUES, BAND_TILES = 1 << 20, 256
_WEIGHT = (
    (1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6), (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """What is convolved: `fill(into, first, last)` writes its rows from `first` to `last` to a tensor (rows, width,
    channels).
    """

    height: int
    width: int
    channels: int
    fill: Callable[[Tensor, int, int], None]


class Winograd(nn.Conv2d):
    """A convolution with the parameters of another, by Winograd's algorithm where that is faster and no gradient is
    needed.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        with torch.device("meta"):
            super().__init__(convolution.in_channels, convolution.out_channels, 3, padding=1)
        self.weight, self.bias = convolution.weight, convolution.bias

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name in torch)
        """(B, C, H, W) to (B, out_channels, H, W)."""
        large = input.shape[2] * input.shape[3] >= LEAST_PIXELS
        fits = input.dtype == torch.float32 and input.device.type == "cpu"
        if large and fits and not (torch.is_grad_enabled() and (input.requires_grad or self.weight.requires_grad)):
            return convolve(input, self.weight, self.bias)
        return super().forward(input)


def use_winograd(module: nn.Module) -> int:
    """Replace the convolutions that it is worth it for, in place, under the same names; returns how many."""
    replaced = 0
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if _suits(child):
                setattr(parent, name, Winograd(child))
                replaced += 1
    return replaced


def convolve(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002 (as torch names it)
    """A 3x3 convolution of (B, C, H, W) with zeros around it, as channels_last."""
    batch, _, height, width = input.shape
    made = torch.empty(
        batch, weight.shape[0], height, width, memory_format=torch.channels_last, dtype=input.dtype, device=input.device
    )
    for source, target in zip(input.permute(0, 2, 3, 1), made.permute(0, 2, 3, 1), strict=True):
        for rows, found_hwc in bands(rows_of(source), weight, bias):
            target[rows] = found_hwc
    return made


def rows_of(picture_hwc: Tensor) -> Source:
    """A picture (H, W, C) as it is."""

    def fill(into: Tensor, first: int, last: int) -> None:
        into.copy_(picture_hwc[first:last])

    height, width, channels = picture_hwc.shape
    return Source(height, width, channels, fill)


def bands(source: Source, weight: Tensor, bias: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
    """A 3x3 convolution with zeros around it, a band of rows (rows, W, O) at a time.

    A band is overwritten by the next.
    """
    rows, columns = -(-source.height // TILE), -(-source.width // TILE)
    transformed = _transformed(weight)
    values = POINTS * POINTS * columns * max(source.channels, weight.shape[0])
    band = min(rows, max(-(-BAND_TILES // columns), BAND_VALUES // values, 1))
    padded_hwc = weight.new_zeros(TILE * band + 2, TILE * columns + 2, source.channels)
    found_hwc = weight.new_empty(TILE * band, TILE * columns, weight.shape[0])
    for start in range(0, rows, band):
        count = min(band, rows - start)
        part_hwc = _padded(source, TILE * start - 1, padded_hwc[: TILE * count + 2])
        target = found_hwc[: TILE * count]
        _band(part_hwc, transformed, target.view(count, TILE, columns, TILE, -1))
        if bias is not None:
            target += bias
        covered = slice(TILE * start, min(TILE * (start + count), source.height))
        yield covered, target[: covered.stop - covered.start, : source.width]


def _suits(child: nn.Module) -> TypeGuard[nn.Conv2d]:
    return (
        type(child) is nn.Conv2d
        and (child.kernel_size, child.stride, child.dilation) == ((3, 3), (1, 1), (1, 1))
        and (child.padding, child.groups, child.padding_mode) == ((1, 1), 1, "zeros")
        and min(child.in_channels, child.out_channels) >= LEAST_CHANNELS
    )


def _transformed(weight: Tensor) -> Tensor:
    """(O, C, 3, 3) to one (C, O) matrix for each of the 36 points of a tile."""
    along = torch.tensor(_WEIGHT, dtype=torch.float64)
    both = torch.kron(along, along).to(weight.dtype)
    taps = weight.permute(2, 3, 0, 1).reshape(9, -1)
    return (both @ taps).view(POINTS * POINTS, weight.shape[0], weight.shape[1]).transpose(1, 2)


def _padded(source: Source, top: int, into_hwc: Tensor) -> Tensor:
    """Rows of the source from `top` on, with a border of zeros; columns beyond the source stay the zeros they are."""
    first, last = max(top, 0), min(top + into_hwc.shape[0], source.height)
    into_hwc[: first - top].zero_()
    source.fill(into_hwc[first - top : last - top, 1 : source.width + 1], first, last)
    into_hwc[last - top :].zero_()
    return into_hwc


def _band(part_hwc: Tensor, weights: Tensor, target: Tensor) -> None:
    """One band of tiles: part (4 k + 2, 4 n + 2, C) to target (k, 4, n, 4, O)."""
    count, columns, channels = target.shape[0], target.shape[2], part_hwc.shape[2]
    down = part_hwc.new_empty(POINTS, count, TILE * columns + 2, channels)
    _points([part_hwc[i : i + TILE * count - 3 : TILE] for i in range(POINTS)], list(down))
    both = part_hwc.new_empty(POINTS, POINTS, count, columns, channels)
    _points([down[:, :, j : j + TILE * columns - 3 : TILE] for j in range(POINTS)], list(both.unbind(1)))
    products = torch.bmm(both.view(POINTS * POINTS, count * columns, channels), weights)
    products = products.view(POINTS, POINTS, count, columns, -1)
    across = part_hwc.new_empty(TILE, *products.shape[1:])
    _outputs(list(products), list(across))
    _outputs(list(across.unbind(1)), list(target.permute(3, 1, 0, 2, 4)))


def _points(d: Sequence[Tensor], into: Sequence[Tensor]) -> None:
    """Six inputs along an axis to the six points 0, 1, -1, 2, -2 and infinity."""
    even = torch.add(d[4], d[2], alpha=-4, out=into[1])
    odd = torch.add(d[3], d[1], alpha=-4)
    torch.sub(even, odd, out=into[2])
    even += odd
    even = torch.sub(d[4], d[2], out=into[3])
    odd = torch.sub(d[3], d[1])
    torch.add(even, odd, alpha=-2, out=into[4])
    even.add_(odd, alpha=2)
    torch.add(d[4], d[2], alpha=-5, out=into[0]).add_(d[0], alpha=4)
    torch.add(d[5], d[3], alpha=-5, out=into[5]).add_(d[1], alpha=4)


def _outputs(m: Sequence[Tensor], into: Sequence[Tensor]) -> None:
    """Products at the six points to four outputs along an axis."""
    one, one_odd, two, two_odd = m[1] + m[2], m[1] - m[2], m[3] + m[4], m[3] - m[4]
    torch.add(m[0], one, out=into[0]).add_(two)
    torch.add(one_odd, two_odd, alpha=2, out=into[1])
    torch.add(one, two, alpha=4, out=into[2])
    torch.add(one_odd, two_odd, alpha=8, out=into[3]).add_(m[5])
