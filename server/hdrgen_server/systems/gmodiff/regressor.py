"""DaReg, the degradation-aware regressor of GMODiff (section 3.2), in its published and its set form.

It owns the networks and the gain-map relation. It must not know files, tiles, alignment or how it is trained.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdrgen_server.networks.nafnet import ChannelLayerNorm, Pointwise, stage
from hdrgen_server.systems.gmodiff.candidates import (
    Bracket,
    consistent_merge,
    disagreement,
    log2_floor,
    unsupported,
    weighted_merge,
)
from hdrgen_server.systems.gmodiff.config import RegressorConfig

ALPHA = 1 / 64
MU = 100.0
MERGE_BIAS = 3.0
LARGEST_LOGIT = 4.0
DISAGREEMENT_STOPS = 4.0
UNSUPPORTED_LOGIT = 6.0
"""What the set form adds to the degradation mask's logits where no exposure says anything about a pixel."""


def mu_law(x: Tensor, mu: float = MU) -> Tensor:
    """T(x) = log(1 + mu x) / log(1 + mu); negative x counts as 0 (GMODiff, section 3.2)."""
    return torch.log1p(mu * x.clamp(min=0)) / math.log1p(mu)


def inverse_mu_law(x: Tensor, mu: float = MU) -> Tensor:
    """R(x) = ((1 + mu)^x - 1) / mu (GMODiff, section 3.2)."""
    return torch.expm1(x * math.log1p(mu)) / mu


def gain_scale(config: RegressorConfig, ev: Tensor) -> Tensor:
    """The scale s of H = s (L + alpha) R(G), (B, 1, 1, 1): 1 as published, else headroom over the shortest exposure."""
    if config.headroom_stops is None:
        return torch.ones_like(ev[:, :1])[:, :, None, None]
    return torch.exp2(config.headroom_stops - ev.amin(dim=1))[:, None, None, None]


def gain_of(scene_linear: Tensor, reference_codes: Tensor, scale: Tensor) -> Tensor:
    """The gain map G of a scene-linear image over its reference frame, not limited to [0, 1]."""
    return mu_law(scene_linear / (scale * (reference_codes + ALPHA)))


def reconstruct(gain: Tensor, reference_codes: Tensor, scale: Tensor) -> Tensor:
    """H = s (L + alpha) R(G), scene-linear at the reference's exposure."""
    return scale * (reference_codes + ALPHA) * inverse_mu_law(gain)


@dataclass(frozen=True)
class Regression:
    """What DaReg says: gain map in [0, 1], its scale, degradation mask logits, features per encoder scale; as released,
    the coarsest features and the mask, whose pixels are folded into channels to the same size.

    `overflow` counts gain values that had to be held at the ends of [0, 1].
    """

    gain: Tensor
    scale: Tensor
    mask_logits: Tensor
    features: tuple[Tensor, ...]
    overflow: Tensor

    def scene_linear(self, reference_codes: Tensor) -> Tensor:
        """The HDR image (B, 3, H, W) at the reference's exposure."""
        return reconstruct(self.gain, reference_codes, self.scale)


class Backbone(nn.Module):
    """NAFNet U-Net with additive skips; also hands out its encoder features."""

    def __init__(self, config: RegressorConfig) -> None:
        super().__init__()
        widths, scales = config.widths, len(config.encoder)
        naf = functools.partial(stage, channel_attention=config.channel_attention, residual=config.residual)
        self.factor = math.prod(config.strides)
        self.encoders = nn.ModuleList(naf(widths[i], config.encoder[i]) for i in range(scales))
        self.downs = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], stride, stride) for i, stride in enumerate(config.strides)
        )
        self.middle = naf(widths[-1], config.middle)
        self.ups = nn.ModuleList(
            nn.Sequential(Pointwise(widths[i + 1], widths[i] * stride**2, bias=False), nn.PixelShuffle(stride))
            for i, stride in reversed(list(enumerate(config.strides)))
        )
        self.decoders = nn.ModuleList(
            naf(widths[i], blocks) for i, blocks in zip(reversed(range(scales)), config.decoder, strict=True)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(B, widths[0], H, W) to the same shape, and the encoder's and a middle stage's features, finest first."""
        features: list[Tensor] = []
        for index, encoder in enumerate(self.encoders):
            x = encoder(x)
            features.append(x)
            if index < len(self.downs):
                x = self.downs[index](x)
        bottom = self.middle(x)
        skips = list(features)
        if len(self.downs) == len(self.encoders):
            features.append(bottom)
        if len(self.downs) < len(self.encoders):
            skips.pop()
        x = bottom
        decoders = list(self.decoders)
        if len(self.ups) < len(decoders):
            x = decoders.pop(0)(x)
        for up, decoder in zip(self.ups, decoders, strict=True):
            x = decoder(up(x) + skips.pop())
        return x, tuple(features)


class MaskHead(nn.Module):
    """Predicts where the gain map is unreliable, and aggregates encoder features into c_L.

    A 1x1 convolution of the concatenated, upsampled features equals the sum of upsampled 1x1 convolutions per scale;
    the latter never holds the concatenation.
    """

    def __init__(self, config: RegressorConfig) -> None:
        super().__init__()
        widths = config.widths[: len(config.encoder)]
        self.adapters = nn.ModuleList(
            Pointwise(width, config.mask_width, bias=i == 0) for i, width in enumerate(widths)
        )
        self.head = nn.Sequential(
            nn.Conv2d(config.mask_width, config.mask_width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(config.mask_width, 1, 3, padding=1),
        )
        self.embed = nn.ModuleList(Pointwise(width, config.embedding) for width in widths)

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Mask logits (B, 1, H, W) from encoder features, finest first."""
        size = features[0].shape[2:]
        total = self.adapters[0](features[0])
        for adapter, feature in zip(list(self.adapters)[1:], features[1:], strict=True):
            total = total + F.interpolate(adapter(feature), size=size, mode="bilinear", align_corners=False)
        return self.head(total)

    def embeddings(self, features: tuple[Tensor, ...]) -> Tensor:
        """c_L of Eq. 2: (B, K, embedding) tokens, K the pixels of the coarsest scale times the number of scales."""
        size = features[-1].shape[2:]
        tokens = [
            embed(F.adaptive_avg_pool2d(feature, (size[0], size[1]))).flatten(2).transpose(1, 2)
            for embed, feature in zip(self.embed, features, strict=True)
        ]
        return torch.cat(tokens, dim=1)


class ReleasedMaskHead(nn.Module):
    """The public code's mask head: an own 1x1 convolution a scale, joined at full size, and three convolutions."""

    def __init__(self, config: RegressorConfig) -> None:
        super().__init__()
        widths, mask = config.widths[: len(config.encoder)], config.mask_width
        self.adapters = nn.ModuleList(Pointwise(width, mask) for width in widths)
        self.head = nn.Sequential(
            nn.Conv2d(len(widths) * mask, 2 * mask, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(2 * mask, mask, 3, padding=1),
            nn.ReLU(inplace=True),
            Pointwise(mask, 1),
        )

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Mask logits (B, 1, H, W) from features, finest first; those of the middle stage are not used."""
        size = features[0].shape[2:]
        adapted = [
            F.interpolate(adapter(feature), size=size, mode="bilinear", align_corners=False)
            for adapter, feature in zip(self.adapters, features[:-1], strict=True)
        ]
        return self.head(torch.cat(adapted, dim=1))


class PublishedHead(nn.Module):
    """Exactly three exposures: own input convolutions, attention of both outer frames to the reference (AHDRNet)."""

    def __init__(self, config: RegressorConfig) -> None:
        super().__init__()
        width = config.widths[0]
        self.intro = nn.ModuleList(nn.Conv2d(6, width, 3, padding=1) for _ in range(3))
        self.attention = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(2 * width, 2 * width, 3, padding=1),
                nn.LeakyReLU(0.01 if config.released else 0.2),
                nn.Conv2d(2 * width, width, 3, padding=1),
                nn.Sigmoid(),
            )
            for _ in range(2)
        )
        self.fuse = nn.Conv2d(3 * width, width, 3, padding=1)
        self.ending = nn.Conv2d(width, width, 3, padding=1) if config.released else nn.Identity()
        self.out = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, bracket: Bracket) -> tuple[Tensor, Tensor]:
        """Fused features and the reference's features, (B, C, H, W) each."""
        if bracket.codes.shape[1] != 3:
            raise ValueError("the published form takes exactly three exposures")
        x = torch.cat([bracket.scene_linear, bracket.codes], dim=2)
        reference, first, last = (intro(x[:, i]) for i, intro in enumerate(self.intro))
        weighted = [
            f * attention(torch.cat([f, reference], dim=1))
            for f, attention in zip((first, last), self.attention, strict=True)
        ]
        return self.fuse(torch.cat([weighted[0], reference, weighted[1]], dim=1)), reference

    def gain(self, decoded: Tensor, reference: Tensor) -> Tensor:
        """The gain map in [0, 1]."""
        return torch.sigmoid(self.out(self.ending(decoded) + reference))


class SetHead(nn.Module):
    """2 to 7 exposures, the reference first: shared input convolution, attention to the reference, choose and correct.

    The result is a softmax choice, in log2, over the plain merge, the merge of what agrees with the reference and every
    exposure's own estimate, plus a correction. It starts near the mean of both merges, so a bracket in which nothing
    moves keeps their quality.
    """

    def __init__(self, config: RegressorConfig) -> None:
        super().__init__()
        width = config.widths[0]
        self.intro = nn.Conv2d(6, width, 3, padding=1)
        self.exposure = nn.Sequential(nn.Linear(3, width), nn.ReLU(inplace=True), nn.Linear(width, 2 * width))
        self.merge_intro = nn.Conv2d(10, width, 3, padding=1)
        self.attention = nn.Sequential(
            Pointwise(2 * width + 4, width),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            Pointwise(width, 2 * width),
        )
        self.fuse = Pointwise(4 * width, width)
        choice = Pointwise(width, 3)
        self.choose = nn.Sequential(Pointwise(2 * width + 1, width), nn.LeakyReLU(0.2, inplace=True), choice)
        merge_choice = Pointwise(width, 6)
        self.choose_merge = nn.Sequential(Pointwise(2 * width, width), nn.LeakyReLU(0.2, inplace=True), merge_choice)
        self.normalise = ChannelLayerNorm(width)
        self.correct = nn.Conv2d(width, 3, 3, padding=1)
        for layer in (choice, merge_choice, self.correct):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(self, bracket: Bracket, merges: tuple[Tensor, Tensor], doubt: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Fused features (B, C, H, W) and features of both merges and then of each exposure.

        `doubt` (B, N, 1, H, W) is each exposure's disagreement with the reference, 0 to 1.
        """
        described = torch.stack([bracket.ev / 4, (bracket.ev > 0).float(), (bracket.ev < 0).float()], dim=-1)
        modulation = self.exposure(described.to(bracket.codes.dtype))
        frames = [self._frame(bracket, i, modulation[:, i]) for i in range(bracket.ev.shape[1])]
        seen: list[Tensor] = []
        scores: list[Tensor] = []
        stops = [log2_floor(bracket.scene_linear[:, i]) for i in range(len(frames))]
        for i, frame in enumerate(frames):
            against = (stops[i] - stops[0]).clamp(-DISAGREEMENT_STOPS, DISAGREEMENT_STOPS) / DISAGREEMENT_STOPS
            gate, score = self.attention(torch.cat([frame, frames[0], _last(against), doubt[:, i]], dim=1)).chunk(
                2, dim=1
            )
            seen.append(frame * torch.sigmoid(gate) * bracket.valid[:, i])
            scores.append(torch.exp(8 * torch.tanh(score / 8)) * bracket.valid[:, i])
        pooled = sum_of(score * frame for score, frame in zip(scores, seen, strict=True)) / sum_of(scores)
        strongest = seen[0]
        for frame in seen[1:]:
            strongest = torch.maximum(strongest, frame)
        worst = doubt.amax(dim=1)
        both = [mu_law(merges[0]), mu_law(merges[1]), bracket.codes[:, 0], worst]
        merged = self.merge_intro(_last(torch.cat(both, dim=1)))
        fused = self.fuse(torch.cat([pooled, strongest, seen[0], merged], dim=1))
        candidates = [merged, *(torch.cat([frame, doubt[:, i]], dim=1) for i, frame in enumerate(seen))]
        return fused, candidates

    def _frame(self, bracket: Bracket, index: int, modulation: Tensor) -> Tensor:
        gain, bias = modulation[:, :, None, None].chunk(2, dim=1)
        x = torch.cat([mu_law(bracket.scene_linear[:, index]), bracket.codes[:, index]], dim=1)
        return self.intro(_last(x)) * (1 + gain) + bias

    def scene_linear(
        self, decoded: Tensor, candidates: list[Tensor], bracket: Bracket, merges: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Choose among the candidates and correct the choice; (B, 3, H, W)."""
        decoded = self.normalise(decoded)
        chosen = [self.choose(torch.cat([decoded, feature], dim=1)) for feature in candidates[1:]]
        first, second = self.choose_merge(torch.cat([decoded, candidates[0]], dim=1)).chunk(2, dim=1)
        logits = torch.stack([first, second, *chosen], dim=1)
        logits = LARGEST_LOGIT * torch.tanh(logits / LARGEST_LOGIT)
        bias = logits.new_zeros(1, logits.shape[1], 1, 1, 1)
        bias[:, :2] = MERGE_BIAS
        valid = torch.cat([torch.ones_like(bracket.valid[:, :1])] * 2 + [bracket.valid], dim=1)
        weights = torch.softmax(logits + bias + (valid - 1) * 32, dim=1)
        estimates = log2_floor(torch.cat([merges[0][:, None], merges[1][:, None], bracket.scene_linear], dim=1))
        return torch.exp2((weights * estimates).sum(dim=1) + self.correct(decoded))


def sum_of(tensors: Iterable[Tensor]) -> Tensor:
    """The sum of at least one tensor."""
    return functools.reduce(torch.add, tensors)


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


class Regressor(nn.Module):
    """DaReg: a bracket in, a gain map over its reference frame out."""

    def __init__(self, config: RegressorConfig) -> None:
        super().__init__()
        self.config = config
        self.head = PublishedHead(config) if config.form == "published" else SetHead(config)
        self.backbone = Backbone(config)
        self.mask = ReleasedMaskHead(config) if config.released else MaskHead(config)

    def forward(self, bracket: Bracket) -> Regression:
        """Run on any size: edges are replicated up to the backbone's factor and cut off again."""
        height, width = bracket.codes.shape[-2:]
        bracket = _padded(bracket, self.backbone.factor)
        scale = gain_scale(self.config, bracket.ev)
        reference_codes = bracket.codes[:, 0]
        if isinstance(self.head, PublishedHead):
            fused, reference = self.head(bracket)
            decoded, features = self.backbone(fused)
            gain, known = self.head.gain(decoded, reference), 0
        else:
            doubt = disagreement(bracket)
            merges = weighted_merge(bracket), consistent_merge(bracket, doubt)
            fused, candidates = self.head(bracket, merges, (doubt / DISAGREEMENT_STOPS).clamp(max=1))
            decoded, features = self.backbone(fused)
            gain = gain_of(self.head.scene_linear(decoded + fused, candidates, bracket, merges), reference_codes, scale)
            known = UNSUPPORTED_LOGIT * unsupported(bracket, doubt)
        held = gain.clamp(0, 1)
        cut = (..., slice(0, height), slice(0, width))
        overflow = (gain[cut] != held[cut]).sum()
        logits = self.mask(features) + known
        if self.config.released:
            features = features[-1], F.pixel_unshuffle(torch.sigmoid(logits), self.backbone.factor)
        return Regression(held[cut], scale, logits[cut], features, overflow)


def _padded(bracket: Bracket, factor: int) -> Bracket:
    height, width = bracket.codes.shape[-2:]
    pad = (0, -width % factor, 0, -height % factor)
    if not any(pad):
        return bracket
    codes, linear, valid = (
        F.pad(x.flatten(0, 1), pad, mode="replicate").unflatten(0, x.shape[:2])
        for x in (bracket.codes, bracket.scene_linear, bracket.valid)
    )
    return Bracket(codes, linear, bracket.ev, valid)
