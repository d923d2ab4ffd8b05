"""Stage two of GMODiff's training: the refiner over frozen regressors, judged on scenes that it never sees.

It owns what is trained, the loss of Eq. 9 and the choice among regressors of Eq. 10. It must not know the loop's
mechanics, packs or the command line.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdrgen_server.evaluate.knockout import SECOND
from hdrgen_server.networks.nafnet import in_channels_last
from hdrgen_server.settings import load_settings
from hdrgen_server.systems.gmodiff.candidates import Bracket
from hdrgen_server.systems.gmodiff.config import CONFIGS
from hdrgen_server.systems.gmodiff.losses import Distance, Weights, regression_loss
from hdrgen_server.systems.gmodiff.refine.adversary import Discriminator, deceive, discern
from hdrgen_server.systems.gmodiff.refine.config import REFINERS
from hdrgen_server.systems.gmodiff.refine.loading import load_base, load_vae, read_tensors
from hdrgen_server.systems.gmodiff.refine.lora import add_lora
from hdrgen_server.systems.gmodiff.refine.model import Refiner
from hdrgen_server.systems.gmodiff.refine.prior import pooled_features
from hdrgen_server.systems.gmodiff.regressor import Regression, Regressor, mu_law
from hdrgen_server.training.devices import ONE_CPU, Devices
from hdrgen_server.training.gmodiff import (
    COUNTS,
    Batch,
    BracketSource,
    held_out_batches,
    in_float32,
    mean_psnr,
    move,
)
from hdrgen_server.training.loop import Position, load_weights, train
from hdrgen_server.training.perceptual import load_perceptual
from hdrgen_server.training.recipe import Recipe
from nuke_hdrgen.wire.errors import BadInput, BadParameter

TONE_MU = 5000.0
ABLATIONS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "reconstruction": (), "groups": (), "prior": ("embeddings c_L",), "decoder": ("decoder's refinement blocks",),
})  # fmt: skip
"""What can be left out, as in the document's ablation, each with the modules that are silenced for it."""
SHARES = (0.1, 0.5)
"""Few brackets stand still: the mask leaves nothing to refine in them."""


@dataclass(frozen=True)
class RefineWeights:
    """The terms of Eq. 9 by name, as in `losses.Weights`, and the adversarial one (published: 1e-3)."""

    gain: float = 1.0
    tone: float = 1.0
    stops: float = 0.0
    square: float = 0.0
    perceptual: float = 0.0
    adversarial: float = 0.0

    @property
    def of_the_map(self) -> RefineWeights:
        """Without what compares the reconstructed image."""
        return RefineWeights(gain=self.gain)

    @property
    def regression(self) -> Weights:
        """The terms that stage one has too; the mask is not trained here."""
        return Weights(self.gain, self.tone, self.stops, 0.0, self.perceptual, self.square)


class Trained(nn.Module):
    """What the loop averages, saves and resumes: the refiner's trained parameters, and the discriminator's.

    Frozen weights are reached through the refiner, which is held without being registered.
    """

    def __init__(self, refiner: Refiner, discriminator: Discriminator | None = None) -> None:
        super().__init__()
        self.discriminator = discriminator
        self._held = (refiner,)
        for name, parameter in refiner.named_parameters():
            if parameter.requires_grad:
                self.register_parameter(name.replace(".", ":"), parameter)

    @property
    def refiner(self) -> Refiner:
        """The whole refiner."""
        return self._held[0]


class RefineTask:
    """The refiner as the training loop sees it."""

    def __init__(
        self,
        refiner: Refiner,
        regressors: Sequence[Regressor],
        source: BracketSource,
        weights: RefineWeights,
        perceptual: Distance | None = None,
    ) -> None:
        freeze(refiner)
        self._trained = Trained(in_channels_last(refiner.eval()), Discriminator() if weights.adversarial else None)
        self._regressors = [in_channels_last(r.eval().requires_grad_(requires_grad=False)) for r in regressors]
        self.model: nn.Module = self._trained
        self._source, self.weights, self.perceptual = source, weights, perceptual

    @property
    def source(self) -> BracketSource:
        """Where batches come from."""
        return self._source

    def to(self, device: torch.device) -> None:
        """Move the refiner, what is frozen included, the discriminator, the regressors and VGG."""
        move(device, self._trained.refiner, self._trained, *self._regressors, self.perceptual)

    def loss(self, batch: Batch) -> tuple[Tensor, Mapping[str, float]]:
        """Eq. 9 with the regressor of Eq. 10 drawn for this batch."""
        chosen = int(torch.randint(len(self._regressors), ()))
        refined = in_float32(refine(self._trained.refiner, self._regressors[chosen], batch.bracket))
        codes = batch.bracket.codes[:, 0]
        total, named = regression_loss(refined, codes, batch.truth, self.weights.regression, self.perceptual)
        if self._trained.discriminator is None:
            return total, named
        made, truth = (
            mu_law((x / refined.scale).clamp(max=1), TONE_MU) for x in (refined.scene_linear(codes), batch.truth)
        )
        deceived = deceive(self._trained.discriminator, made)
        discerned = discern(self._trained.discriminator, made, truth)
        figures = {"adversarial": float(deceived.detach()), "discriminator": float(discerned.detach())}
        return total + self.weights.adversarial * deceived + discerned, {**named, **figures}

    @functools.cached_property
    def held_out(self) -> dict[str, list[Batch]]:
        """A fixed set of held-out brackets of each kind."""
        return held_out_batches(self._source.folder)

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        """Mean PU21-PSNR of each kind with the first regressor, and as `error` the negative of their mean."""
        assert isinstance(model, Trained)
        return self._figures(lambda bracket: refine(model.refiner, self._regressors[0], bracket))

    def draft_figures(self) -> Mapping[str, float]:
        """What the first regressor alone scores on the same brackets."""
        with torch.inference_mode():
            return self._figures(self._regressors[0])

    def _figures(self, estimate: Callable[[Bracket], Regression]) -> Mapping[str, float]:
        device = next(self._regressors[0].parameters()).device

        def image(bracket: Bracket) -> Tensor:
            bracket = bracket.to(device=device)
            return estimate(bracket).scene_linear(bracket.codes[:, 0])

        figures = {name: mean_psnr(image, batches) for name, batches in self.held_out.items()}
        return {"error": -float(np.mean(list(figures.values()))), **figures}


def refine(refiner: Refiner, regressor: Regressor, bracket: Bracket) -> Regression:
    """Stage one, frozen, and stage two on whole brackets whose sides are multiples of the refiner's."""
    with torch.no_grad():
        regression = regressor(bracket)
        cell = regressor.backbone.factor
        cells = bracket.codes.shape[-2] // cell, bracket.codes.shape[-1] // cell
        pooled = F.avg_pool2d(pooled_features(regression.features, cells), refiner.config.token // cell)
        mask = torch.sigmoid(regression.mask_logits)
    gain = refiner(regression.gain, mask, under_exposed(bracket), refiner.prior(pooled))
    return replace(regression, gain=gain)


def under_exposed(bracket: Bracket) -> Tensor:
    """The codes of each bracket's shortest exposure, L0: (B, 3, H, W)."""
    return bracket.codes[torch.arange(len(bracket.ev)), bracket.ev.argmin(dim=1)]


def freeze(refiner: Refiner) -> None:
    """Leave only what stage two trains with gradients: adapters, conv_in, projection, blocks; the UNet where it has no
    adapter.
    """
    whole = refiner.config.lora.unet == 0
    for name, parameter in refiner.named_parameters():
        trained = "lora_" in name or name.startswith(("prior.", "blocks.", "unet.conv_in."))
        parameter.requires_grad_(trained or (whole and name.startswith("unet.")))


def start(recipe: Recipe, base: Path) -> Refiner:
    """An untrained refiner: adapters on a base model, or a new UNet on a VAE alone where the UNet is trained whole.

    A new UNet's last convolution starts at zero, so that the first step changes next to nothing. Raises BadInput.
    """
    config = REFINERS[recipe.config]
    refiner = load_base(config, base) if config.lora.unet else load_vae(config, base)
    if not config.lora.unet:
        nn.init.zeros_(refiner.unet.conv_out.weight)
        if refiner.unet.conv_out.bias is not None:
            nn.init.zeros_(refiner.unet.conv_out.bias)
    add_lora(refiner)
    return refiner


def load_regressors(config: str, paths: Sequence[Path]) -> list[Regressor]:
    """Stage-one weights, one file each. Raises BadInput where one is of another configuration."""
    regressors: list[Regressor] = []
    for path in paths:
        regressor = Regressor(CONFIGS[config])
        try:
            regressor.load_state_dict(read_tensors(path))
        except RuntimeError as error:
            raise BadInput(
                f"{path}: its tensors are not those of regressor {config}; train one with that size"
            ) from error
        regressors.append(regressor)
    return regressors


def refine_task(
    recipe: Recipe, folder: Path, base: Path, regressors: Sequence[Path], without: str = "", warm: Path | None = None
) -> RefineTask:
    """The task of a recipe, `without` one of `ABLATIONS`, from the weights of another run's file `warm`.

    Raises BadInput for files that are missing or do not fit, BadParameter for an unknown ablation.
    """
    config = REFINERS[recipe.config]
    if without and without not in ABLATIONS:
        raise BadParameter(f"{without!r} cannot be left out; there are: {', '.join(ABLATIONS)}")
    weights = RefineWeights(**recipe.weights)
    weights = weights.of_the_map if without == "reconstruction" else weights
    regressors = regressors[:1] if without == "groups" else regressors
    perceptual = load_perceptual(load_settings().cache_folder) if weights.perceptual else None
    counts = (3,) if CONFIGS[config.regressor].form == "published" else COUNTS
    source = BracketSource(folder, recipe.crop, counts, shares=SHARES)
    refiner = start(recipe, base)
    task = RefineTask(refiner, load_regressors(config.regressor, regressors), source, weights, perceptual)
    if warm is not None:
        load_trained(task.model, warm)
    for name in ABLATIONS.get(without, ()):
        for module, hook in SECOND[name](refiner):
            module.register_forward_hook(hook)
    return task


def load_trained(model: nn.Module, path: Path) -> None:
    """Fill a task's model with what another run trained. Raises BadInput where that does not fit."""
    if not path.is_file():
        raise BadInput(f"{path} is missing; name the best.safetensors or average.safetensors of a run")
    try:
        load_weights(model, path)
    except RuntimeError as error:
        raise BadInput(f"{path} is of another recipe; name a run of the same size and weights") from error


def train_refiner(
    recipe: Recipe,
    folder: Path,
    run: Path,
    base: Path,
    regressors: Sequence[Path],
    report: Callable[[str], None],
    devices: Devices = ONE_CPU,
    *,
    without: str = "",
    warm: Path | None = None,
) -> Position:
    """Train a recipe, or resume it, in `run` on the panoramas of `folder`, over frozen `regressors`.

    Several regressors are the groups of Eq. 10; the first is the one that judges, and should have seen all groups.
    `without` and `warm` are as for `refine_task`.
    """
    torch.manual_seed(recipe.schedule.seed)
    task = refine_task(recipe, folder, base, regressors, without, warm)
    if devices.first:
        alone = ", ".join(f"{name} {value:.2f}" for name, value in task.draft_figures().items())
        report(f"the regressor alone, held out: {alone}")
    return train(task, recipe.schedule, run, report, devices)


def best_refiner(recipe: Recipe, run: Path, base: Path) -> Refiner:
    """A run's averaged weights at their lowest held-out error. Raises BadInput where it has none yet."""
    weights: Any = run / "best.safetensors"
    if not weights.is_file():
        raise BadInput(f"{weights} is missing; train first, into {run}")
    task_weights = RefineWeights(**recipe.weights)
    refiner = start(recipe, base)
    freeze(refiner)
    load_weights(Trained(refiner, Discriminator() if task_weights.adversarial else None), weights)
    return refiner
