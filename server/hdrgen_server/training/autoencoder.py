"""The small variational autoencoder that the diffusion systems of size s share, trained from nothing.

It owns the losses, the held-out check and the export as a diffusers folder. It must not know the loop's mechanics, the
command line, or what a picture means: those come by name from `pictures`.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn
from torch.nn import functional as F

from hdrgen_server.networks.nafnet import in_channels_last
from hdrgen_server.settings import load_settings
from hdrgen_server.systems.gmodiff.refine.config import REFINERS, VAEConfig
from hdrgen_server.training.devices import ONE_CPU, Devices
from hdrgen_server.training.linear_start import start_linear
from hdrgen_server.training.loop import Position, load_weights, train
from hdrgen_server.training.perceptual import load_perceptual
from hdrgen_server.training.pictures import ENCODINGS, Pictures, PictureSource, held_out_pictures
from hdrgen_server.training.recipe import Recipe
from nuke_hdrgen.wire.errors import BadInput

Distance = Callable[[Tensor, Tensor], Tensor]
GRADIENT_SCALES = 3
TONE_SIDE = 16
PERCEPTUAL_SIDE = 48
LATENT_BATCHES, LATENT_BATCH = 16, 8


@dataclass(frozen=True)
class Weights:
    """Weights of the loss: mean absolute error, that of local means, gradients, VGG features, unit-normal divergence.

    `tone` is for the group norms: they take the level out of every feature, and a young model gets tones wrong most.
    """

    l1: float = 1.0
    tone: float = 1.0
    gradient: float = 0.5
    perceptual: float = 0.0
    divergence: float = 1e-4


def gradient_distance(first: Tensor, second: Tensor) -> Tensor:
    """Mean absolute difference of the horizontal and vertical gradients of (B, C, H, W), at three scales."""
    difference = first - second
    terms: list[Tensor] = []
    for scale in range(GRADIENT_SCALES):
        if scale:
            difference = F.avg_pool2d(difference, 2)
        terms += [difference.diff(dim=2).abs().mean(), difference.diff(dim=3).abs().mean()]
    return torch.stack(terms).sum() / GRADIENT_SCALES


class AutoencoderTask:
    """The autoencoder as the training loop sees it."""

    def __init__(
        self, config: VAEConfig, folder: Path, weights: Weights, crop: int, perceptual: Distance | None = None
    ) -> None:
        self.vae = in_channels_last(AutoencoderKL(**config.arguments()))
        start_linear(self.vae)
        self.model: nn.Module = self.vae
        self.source = PictureSource(folder, crop)
        self.weights, self.perceptual = weights, perceptual

    def to(self, device: torch.device) -> None:
        """Move the autoencoder and VGG."""
        for network in (self.model, self.perceptual):
            if isinstance(network, nn.Module):
                network.to(device)

    def loss(self, batch: Pictures) -> tuple[Tensor, Mapping[str, float]]:
        """The loss of a batch, through a sampled latent; VGG, being dear, sees the middle of one picture."""
        pictures = batch.pictures.contiguous(memory_format=torch.channels_last)
        posterior = _posterior(self.vae, pictures)
        decoded = _decoded(self.vae, posterior.sample()).float()
        terms = {
            "l1": F.l1_loss(decoded, pictures),
            "tone": F.avg_pool2d(decoded - pictures, TONE_SIDE).abs().mean(),
            "gradient": gradient_distance(decoded, pictures),
            "divergence": posterior.kl().mean() / posterior.mean[0].numel(),
        }
        if self.perceptual is not None:
            chosen = int(torch.randint(len(pictures), ()))
            terms["perceptual"] = self.perceptual(*(_middle(x[chosen : chosen + 1]) for x in (decoded, pictures)))
        weighted = [getattr(self.weights, name) * term for name, term in terms.items()]
        figures = {name: float(term.detach()) for name, term in terms.items()}
        return torch.stack(weighted).sum(), {**figures, "held": batch.held}

    @functools.cached_property
    def held_out(self) -> dict[str, Sequence[Tensor]]:
        """The fixed held-out pictures of each encoding."""
        return {name: held_out_pictures(self.source.folder, name) for name in self.source.encodings}

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        """Mean PSNR (dB, peak 1 on codes in [0, 1]) of each encoding, and as `error` the negative of their mean."""
        assert isinstance(model, AutoencoderKL)
        held_out = {name: [p.to(model.device) for p in pictures] for name, pictures in self.held_out.items()}
        figures = {name: float(np.mean(psnrs(model, pictures))) for name, pictures in held_out.items()}
        return {"error": -float(np.mean(list(figures.values()))), **figures}


def _posterior(model: AutoencoderKL, pictures: Tensor) -> DiagonalGaussianDistribution:
    encoded: Any = model.encode(pictures)
    return DiagonalGaussianDistribution(encoded.latent_dist.parameters.float())


def _decoded(model: AutoencoderKL, latents: Tensor) -> Tensor:
    decoder: Any = model
    return decoder.decode(latents).sample


def _middle(pictures: Tensor) -> Tensor:
    """The middle of (B, 3, H, W) pictures, from [-1, 1] to codes in [0, 1]."""
    top, left = (max(0, (side - PERCEPTUAL_SIDE) // 2) for side in pictures.shape[2:])
    return (pictures[..., top : top + PERCEPTUAL_SIDE, left : left + PERCEPTUAL_SIDE] + 1) / 2


def round_trip(model: AutoencoderKL, pictures: Tensor) -> Tensor:
    """Encode (B, 3, H, W) in [-1, 1] to the most likely latent and decode it, limited to [-1, 1] as a display would."""
    return _decoded(model, _posterior(model, pictures).mode()).clamp(-1, 1)


def psnrs(model: AutoencoderKL, pictures: Sequence[Tensor]) -> list[float]:
    """Round-trip PSNR of every picture, dB with peak 1 on codes in [0, 1]."""
    errors = [float(((round_trip(model, p) - p) / 2).square().mean()) for p in pictures]
    return [-10 * float(np.log10(max(error, 1e-12))) for error in errors]


def train_autoencoder(
    recipe: Recipe, folder: Path, run: Path, report: Callable[[str], None], devices: Devices = ONE_CPU
) -> Position:
    """Train a recipe, or resume it, in the folder `run` on the panoramas of `folder`; also leaves `curve.json`.

    Raises BadInput when there are none, or when the perceptual term is asked for and its weights are not installed.
    """
    torch.manual_seed(recipe.schedule.seed)
    weights = Weights(**recipe.weights)
    perceptual = load_perceptual(load_settings().cache_folder) if weights.perceptual else None
    task = AutoencoderTask(REFINERS[recipe.config].vae, folder, weights, recipe.crop, perceptual)
    try:
        return train(task, recipe.schedule, run, report, devices)
    finally:
        if devices.first:
            write_curve(run)


def write_curve(run: Path) -> None:
    """Write `curve.json`: step, seconds and held-out figures of every check of a run so far."""
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    curve = [{"step": row["step"], "seconds": row["seconds"], **row["held_out"]} for row in rows]
    temporary = run / f".curve.json.{os.getpid()}"
    temporary.write_text(json.dumps(curve, indent=1), encoding="utf-8")
    temporary.replace(run / "curve.json")


@torch.inference_mode()
def latent_deviation(model: AutoencoderKL, source: PictureSource) -> float:
    """Standard deviation of the latents of 128 fixed training pictures."""
    rng = np.random.default_rng(17)
    batches = (source(rng, LATENT_BATCH).pictures for _ in range(LATENT_BATCHES))
    latents = [_posterior(model, pictures).mode() for pictures in batches]
    return float(torch.cat(latents).std())


def best_model(recipe: Recipe, run: Path) -> AutoencoderKL:
    """A run's averaged weights at their lowest held-out error. Raises BadInput where it has none yet."""
    weights = run / "best.safetensors"
    if not weights.is_file():
        raise BadInput(f"{weights} is missing; train first, into {run}")
    model = AutoencoderKL(**REFINERS[recipe.config].vae.arguments())
    load_weights(model, weights)
    return model.eval()


def export(recipe: Recipe, folder: Path, run: Path, target: Path) -> Mapping[str, float]:
    """Write the best weights as a diffusers folder in half precision, and return the figures of what was written.

    The scaling factor becomes one over the deviation of the latents, so that a denoising network sees unit variance.
    The figures are those of the exported model, read back: held-out PSNR of each encoding, and the scaling factor.
    Raises BadInput where the run has no weights or the folder no panoramas.
    """
    model = best_model(recipe, run)
    source = PictureSource(folder, recipe.crop)
    factor = 1 / latent_deviation(model, source)
    model.register_to_config(scaling_factor=factor)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    model.half().save_pretrained(temporary)
    target.mkdir(parents=True, exist_ok=True)
    for path in temporary.iterdir():
        path.chmod(0o644)
        path.replace(target / path.name)
    shutil.rmtree(temporary)
    written = AutoencoderKL.from_pretrained(target, torch_dtype=torch.float32).eval()
    with torch.inference_mode():
        figures = {name: float(np.mean(psnrs(written, held_out_pictures(folder, name)))) for name in ENCODINGS}
    return {**figures, "scaling_factor": factor}
