"""The VAE's blocks with little memory: what precedes a convolution is made a band of rows at a time.

It owns the blocks of a diffusers `AutoencoderKL`, and the decoder's refinement blocks, as they run without gradients on
a CPU. It must not know tiles or files. Group norms need their statistics of the whole picture; with these known, norm,
activation, enlargement and joining are done to the few rows that Winograd's algorithm takes next. Nothing but a block's
input and its convolutions' results is ever held, and the result is the plain one: a frame needs no tiles.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional as F

from hdrgen_server.systems.gmodiff.refine.decoder import RefinementBlock
from hdrgen_server.systems.gmodiff.refine.winograd import LEAST_PIXELS, Source, Winograd, bands, rows_of

STATISTICS_VALUES = 1 << 22


class BandedResnet(nn.Module):
    """A ResNet block without a time embedding, with the parameters of another under the same names."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.conv1, self.norm2, self.conv2 = block.norm1, block.conv1, block.norm2, block.conv2
        self.conv_shortcut = block.conv_shortcut

    def forward(self, input_tensor: Tensor, temb: None = None) -> Tensor:
        """(1, C, H, W) to (1, O, H, W)."""
        del temb
        shortcut = input_tensor if self.conv_shortcut is None else self.conv_shortcut(input_tensor)
        if not _in_bands(input_tensor):
            hidden = self.conv1(F.silu(self.norm1(input_tensor)))
            return shortcut + self.conv2(F.silu(self.norm2(hidden)))
        hidden = _convolved(activated(input_tensor, self.norm1), self.conv1)
        made = shortcut.clone() if shortcut is input_tensor else shortcut
        return _add(activated(hidden, self.norm2), self.conv2, made)


class BandedUpsample(nn.Module):
    """Twice the size by repetition, then a convolution."""

    def __init__(self, upsampler: Any) -> None:
        super().__init__()
        self.conv = upsampler.conv

    def forward(self, hidden_states: Tensor, output_size: None = None) -> Tensor:
        """(1, C, H, W) to (1, C, 2 H, 2 W)."""
        del output_size
        if not _in_bands(hidden_states):
            return self.conv(F.interpolate(hidden_states, scale_factor=2.0, mode="nearest"))
        return _convolved(doubled(_hwc(hidden_states)), self.conv)


class BandedRefinement(nn.Module):
    """Eq. 7 and 8 as in `RefinementBlock`. The change is added to `decoded` itself."""

    def __init__(self, block: RefinementBlock) -> None:
        super().__init__()
        self.join, self.gate, self.out = block.join, block.gate, block.out
        self._plain = (block,)

    def forward(self, decoded: Tensor, encoded: Tensor, prior: Tensor) -> Tensor:
        """As `RefinementBlock.forward`."""
        if not _in_bands(decoded):
            return self._plain[0](decoded, encoded, prior)
        joined = _convolved(beside(_hwc(decoded), _hwc(encoded)), self.join)
        joined *= self._plain[0].gates(prior, joined.shape[2:])
        return _add(rows_of(_hwc(joined)), self.out, decoded)


def use_bands(module: nn.Module) -> int:
    """Replace the blocks whose convolutions are all Winograd's, in place, under the same names; returns how many."""
    replaced = 0
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if (kind := _kind(child)) is not None:
                setattr(parent, name, cast(Any, kind)(child))
                replaced += 1
    return replaced


def _kind(child: nn.Module) -> type[BandedResnet | BandedUpsample | BandedRefinement] | None:
    found: Any = child
    if isinstance(child, ResnetBlock2D):
        simple = found.time_emb_proj is None and found.upsample is None and found.downsample is None
        usual = found.output_scale_factor == 1 and isinstance(found.nonlinearity, nn.SiLU)
        return BandedResnet if simple and usual and _all_fast(found.conv1, found.conv2) else None
    if isinstance(child, Upsample2D):
        return BandedUpsample if found.norm is None and found.interpolate and _all_fast(found.conv) else None
    if isinstance(child, RefinementBlock):
        return BandedRefinement if _all_fast(found.join, found.out) else None
    return None


def _all_fast(*convolutions: nn.Module) -> bool:
    return all(isinstance(convolution, Winograd) for convolution in convolutions)


def _in_bands(picture: Tensor) -> bool:
    large = picture.shape[2] * picture.shape[3] >= LEAST_PIXELS
    fits = len(picture) == 1 and picture.dtype == torch.float32 and picture.device.type == "cpu"
    return large and fits and not torch.is_grad_enabled()


def activated(picture: Tensor, norm: nn.GroupNorm) -> Source:
    """A picture (1, C, H, W) after a group norm and SiLU."""
    picture_hwc = _hwc(picture)
    scale, shift = _scale_and_shift(picture_hwc, norm)

    def fill(into: Tensor, first: int, last: int) -> None:
        torch.addcmul(shift, picture_hwc[first:last], scale, out=into)
        F.silu(into, inplace=True)

    height, width, channels = picture_hwc.shape
    return Source(height, width, channels, fill)


def doubled(picture_hwc: Tensor) -> Source:
    """Twice the size along both axes, by repetition."""
    height, width, channels = picture_hwc.shape

    def fill(into: Tensor, first: int, last: int) -> None:
        rows = picture_hwc[torch.arange(first, last) // 2]
        into.unflatten(1, (width, 2)).copy_(rows[:, :, None])

    return Source(2 * height, 2 * width, channels, fill)


def beside(first_hwc: Tensor, second_hwc: Tensor) -> Source:
    """The channels of two pictures."""
    height, width, channels = first_hwc.shape

    def fill(into: Tensor, first: int, last: int) -> None:
        into[..., :channels].copy_(first_hwc[first:last])
        into[..., channels:].copy_(second_hwc[first:last])

    return Source(height, width, channels + second_hwc.shape[2], fill)


def _convolved(source: Source, convolution: nn.Conv2d) -> Tensor:
    shape = (1, convolution.out_channels, source.height, source.width)
    made = torch.empty(shape, memory_format=torch.channels_last)
    made_hwc = _hwc(made)
    for rows, found_hwc in bands(source, convolution.weight, convolution.bias):
        made_hwc[rows] = found_hwc
    return made


def _add(source: Source, convolution: nn.Conv2d, into: Tensor) -> Tensor:
    into_hwc = _hwc(into)
    for rows, found_hwc in bands(source, convolution.weight, convolution.bias):
        into_hwc[rows] += found_hwc
    return into


def _scale_and_shift(picture_hwc: Tensor, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
    """What a group norm multiplies each channel by, and adds to it, for this picture."""
    height, width, channels = picture_hwc.shape
    rows = max(1, STATISTICS_VALUES // (width * channels))
    sums, squares = torch.zeros(2, channels, dtype=torch.float64)
    middle = picture_hwc[:: max(1, height // 8)].mean(dim=(0, 1))
    for first in range(0, height, rows):
        off = picture_hwc[first : first + rows] - middle
        sums += off.sum(dim=(0, 1))
        squares += off.square_().sum(dim=(0, 1))
    mean, square = sums / (height * width), squares / (height * width)
    groups = (norm.num_groups, channels // norm.num_groups)
    about = middle.double() + mean
    group_mean = about.view(groups).mean(dim=1, keepdim=True)
    spread = (square - mean.square()).view(groups) + (about.view(groups) - group_mean).square()
    scale = norm.weight.double().view(groups) / (spread.mean(dim=1, keepdim=True) + norm.eps).sqrt()
    shift = norm.bias.double().view(groups) - group_mean * scale
    return scale.flatten().float(), shift.flatten().float()


def _hwc(picture: Tensor) -> Tensor:
    """A picture (1, C, H, W) as (H, W, C), its own memory where it is channels_last."""
    return picture[0].permute(1, 2, 0)
