"""LatentHDR's training: the exposure head on any VAE's posterior means, then jointly with a generator's adapter.

It owns what is trained, the losses and the held-out check. It must not know the loop's mechanics, packs or the command
line. What a base folder holds decides: an AutoencoderKL takes plates as its base latent, Qwen-Image's VAE the codes
that its generator draws.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdrgen_server.colour.curves import CURVES
from hdrgen_server.systems.latenthdr.config import CONFIGS
from hdrgen_server.systems.latenthdr.exposure import code_of, picture_of
from hdrgen_server.systems.latenthdr.head import ExposureHead
from hdrgen_server.systems.latenthdr.spaces import LatentSpace, QwenSpace, load_space
from hdrgen_server.training.devices import ONE_CPU, Devices
from hdrgen_server.training.exposures import (
    CLIPPED_LIGHT,
    GAIN_EV,
    NO_ERRORS,
    Exposures,
    ExposureSource,
    clipped_errors,
)
from hdrgen_server.training.loop import Position, load_weights, train
from hdrgen_server.training.qwen_vae import curve_of
from hdrgen_server.training.recipe import Recipe
from nuke_hdrgen.wire.errors import BadInput, BadParameter

ENCODED_AT_ONCE = 8


@dataclass(frozen=True)
class Weights:
    """`clipped` is how much more an error counts where the plate clips; `noise` what a head sees of it in training, in
    deviations of the base latent: so few scenes are known by heart soon.
    """

    clipped: float = 0.0
    noise: float = 0.0


@dataclass(frozen=True, eq=False)
class Encoded:
    """A batch as latents: bases (B, C, h, w), exposures (B, K, C, h, w), EVs (B, K), and how much each place counts,
    (B, 1, 1, h, w) with mean 1.
    """

    base: Tensor
    exposures: Tensor
    evs: Tensor
    weight: Tensor


class Backbone:
    """The latent space in a base folder, and what its base latent is of: a plate's EV 0, or codes of a curve."""

    def __init__(self, folder: Path) -> None:
        self.space: LatentSpace = load_space(folder)
        self.curve = curve_of(folder) if isinstance(self.space, QwenSpace) else ""

    @property
    def plates(self) -> bool:
        """Whether the base is a plate."""
        return not self.curve

    def base_picture(self, batch: Exposures) -> Tensor:
        """The picture that the base latent is of."""
        return picture_of(batch.shown, 0.0) if self.plates else 2 * CURVES[self.curve].encode(batch.light) - 1


class HeadTask:
    """A head as the training loop sees it. Of a source with a pool each batch is drawn and encoded once."""

    def __init__(self, head: ExposureHead, backbone: Backbone, source: ExposureSource, weights: Weights) -> None:
        self.model: nn.Module = head
        self._head, self.backbone, self._source, self.weights = head, backbone, source, weights
        self._kept: dict[int, Encoded] = {}

    @property
    def source(self) -> ExposureSource:
        """Where batches come from."""
        return self._source

    def to(self, device: torch.device) -> None:
        """Move head and VAE."""
        self._head.to(device)
        self.backbone.space.to(device)

    def loss(self, batch: Exposures) -> tuple[Tensor, Mapping[str, float]]:
        """Mean squared error of posterior means, L_ev, errors where the plate clips weighted up."""
        encoded = self._encoded(batch)
        error = weighed_error(self._head, encoded.base, encoded, noise=self.weights.noise)
        return error, {"means": float(error.detach()), "held": float(batch.held)}

    @functools.cached_property
    def held_out(self) -> Sequence[Exposures]:
        """The fixed held-out views."""
        return self._source.held_out()

    @functools.cached_property
    def _held_out_latents(self) -> Sequence[Encoded]:
        return [self.encode(batch.to(self.backbone.space.device)) for batch in self.held_out]

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        """Held-out figures: `error`, the weighted squared error of decoded codes over six EVs; `copied`, that of the
        base taken for every exposure; `means`, the loss; `gain_db`, the head's pictures at EV -3 where plates clip over
        the plate made darker.
        """
        assert isinstance(model, ExposureHead)
        figures: dict[str, list[float]] = {"error": [], "copied": [], "means": []}
        clipped, space = NO_ERRORS, self.backbone.space
        for batch, encoded in zip(self.held_out, self._held_out_latents, strict=True):
            figures["means"].append(float(weighed_error(model, encoded.base, encoded)))
            weight = self._weight(batch.shown)
            base, plate = (_codes_of(space, latents) for latents in (encoded.base, self._plate(batch, encoded)))
            for ev in batch.evs[0].tolist():
                found = _codes_of(space, model(encoded.base, torch.full((len(base),), ev, device=space.device)))
                truth = code_of(batch.light, ev)
                for name, codes in (("error", found), ("copied", base)):
                    figures[name].append(float((weight * (codes.clamp(0, 1) - truth).square()).mean()))
                if ev == GAIN_EV:
                    clipped += clipped_errors(found, plate, batch.light, batch.shown)
        return {**{name: sum(found) / len(found) for name, found in figures.items()}, "gain_db": clipped.gain_db}

    def _plate(self, batch: Exposures, encoded: Encoded) -> Tensor:
        """The latent of the plate at EV 0."""
        if self.backbone.plates:
            return encoded.base
        return self.backbone.space.encode(picture_of(batch.shown.to(self.backbone.space.device), 0.0))

    def _weight(self, shown: Tensor) -> Tensor:
        """How much each pixel of plates counts, (B, 1, H, W), with mean 1."""
        weight = 1 + self.weights.clipped * (shown.amax(dim=1, keepdim=True) >= CLIPPED_LIGHT).float()
        return weight / weight.mean()

    def _encoded(self, batch: Exposures) -> Encoded:
        if batch.number < 0:
            return self.encode(batch)
        if batch.number not in self._kept:
            drawn = self._source.numbered(batch.number, len(batch.light))
            self._kept[batch.number] = self.encode(drawn.to(batch.light.device))
        return self._kept[batch.number]

    @torch.no_grad()
    def encode(self, batch: Exposures) -> Encoded:
        """A batch's posterior means."""
        space = self.backbone.space
        count, each = batch.evs.shape
        with torch.autocast(batch.light.device.type, enabled=False):  # half precision bands codes
            base = space.encode(self.backbone.base_picture(batch))
            shown = picture_of(batch.light[:, None], batch.evs[..., None, None, None]).flatten(0, 1)
            exposures = torch.cat([space.encode(part) for part in shown.split(ENCODED_AT_ONCE)])
        clips = (batch.shown.amax(dim=1, keepdim=True) >= CLIPPED_LIGHT).float()
        weight = 1 + self.weights.clipped * F.max_pool2d(clips, space.factor)
        weight = (weight / weight.mean())[:, None]
        return Encoded(base, exposures.unflatten(0, (count, each)), batch.evs, weight)


def _codes_of(space: LatentSpace, latents: Tensor) -> Tensor:
    """Decoded codes, nominally in [0, 1], on the CPU."""
    return (space.decode(latents).cpu() + 1) / 2


def weighed_error(
    head: ExposureHead, base: Tensor, encoded: Encoded, *, around: bool = False, noise: float = 0.0
) -> Tensor:
    """L_ev of a head on a base latent (B, C, h, w): mean squared error of the exposures' posterior means. With `noise`
    the head sees the base with noise of so many of its deviations.
    """
    count, each = encoded.evs.shape
    seen = base + noise * base.std() * torch.randn_like(base) if noise else base
    change = head.change(seen.repeat_interleave(each, dim=0), encoded.evs.flatten(), around=around)
    found = base[:, None] + change.unflatten(0, (count, each))
    return (encoded.weight * (found - encoded.exposures).square()).mean()


def start(recipe: Recipe, folder: Path, base: Path) -> HeadTask:
    """A head that is still the identity, on the VAE in `base`. Raises BadInput, BadParameter."""
    if recipe.config not in CONFIGS:
        raise BadParameter(f"LatentHDR has no configuration {recipe.config!r}; there are: {', '.join(CONFIGS)}")
    backbone = Backbone(base)
    pictures = recipe.pictures
    source = ExposureSource(
        folder, recipe.crop, int(pictures.get("evs", 4)), backbone.plates, pictures.get("curves", 0.0),
        int(pictures.get("pool", 0)),
    )  # fmt: skip
    head = ExposureHead(CONFIGS[recipe.config], backbone.space.channels)
    weights = Weights(recipe.weights.get("clipped", 0.0), recipe.weights.get("noise", 0.0))
    return HeadTask(head, backbone, source, weights)


def train_head(
    recipe: Recipe, folder: Path, run: Path, base: Path, report: Callable[[str], None], devices: Devices = ONE_CPU
) -> Position:
    """Train a head, or resume it, in `run`, on the panoramas of `folder`, for the VAE in `base`."""
    torch.manual_seed(recipe.schedule.seed)
    return train(start(recipe, folder, base), recipe.schedule, run, report, devices)


def best_head(recipe: Recipe, run: Path, backbone: Backbone) -> ExposureHead:
    """A run's averaged weights at their lowest held-out error. Raises BadInput where it has none yet."""
    weights: Any = run / "best.safetensors"
    if not weights.is_file():
        raise BadInput(f"{weights} is missing; train first, into {run}")
    head = ExposureHead(CONFIGS[recipe.config], backbone.space.channels)
    try:
        load_weights(head, weights)
    except RuntimeError as error:
        raise BadInput(f"{weights} is no head for this base; give --base and --size as in its training") from error
    return head.eval()
