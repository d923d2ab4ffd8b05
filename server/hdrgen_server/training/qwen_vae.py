"""The VAEs of both Qwen systems: codes of a curve, or light beside its tone-mapped picture.

It owns what they are trained on, the losses, the held-out check and the export. It must not know the loop's mechanics,
the command line or the transformer.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from hdrgen_server.colour.curves import CURVES
from hdrgen_server.systems.qwenlinear.config import CONFIGS as LINEAR_CONFIGS
from hdrgen_server.systems.qwenlinear.loading import NORM_FILE, load_norm
from hdrgen_server.systems.qwenlinear.normalise import LightNorm, both_views
from hdrgen_server.systems.qwenlinear.widen import widened_vae
from hdrgen_server.systems.qwenlog import stills
from hdrgen_server.systems.qwenlog.config import CONFIGS, QwenConfig
from hdrgen_server.systems.qwenlog.loading import VAE, load_vae
from hdrgen_server.systems.qwenlog.operator import LOG_CURVES
from hdrgen_server.training.autoencoder import gradient_distance
from hdrgen_server.training.captioned import Captioned, CaptionSource, held_out
from hdrgen_server.training.devices import ONE_CPU, Devices
from hdrgen_server.training.loop import Position, load_weights, train
from hdrgen_server.training.qwen_start import start_linear
from hdrgen_server.training.recipe import Recipe
from nuke_hdrgen.wire.errors import BadInput, BadParameter

SYSTEMS = ("qwenlog", "qwenlinear")
FLOOR = 2e-3
WEIGHTS = "diffusion_pytorch_model.safetensors"
LATENT_BATCHES, LATENT_BATCH = 8, 8


@dataclass(frozen=True)
class Weights:
    """Weights of the loss: errors of codes (of a curve, or tone-mapped), of light in stops, of gradients of both, and
    the divergence of latents from unit normal.
    """

    code: float = 1.0
    stops: float = 0.0
    gradient: float = 0.5
    divergence: float = 1e-5


class CodeVAE(nn.Module):
    """A VAE whose pictures are 2 code - 1 of a curve in Rec.709."""

    def __init__(self, config: QwenConfig, curve: str) -> None:
        super().__init__()
        self.vae = stills.for_stills(_new(config, range(config.vae.channels)))
        self.curve = curve

    def picture_of(self, light: Tensor) -> Tensor:
        """The VAE's picture of light (B, 3, H, W)."""
        return 2 * CURVES[self.curve].encode(light) - 1

    def light_of(self, picture: Tensor) -> Tensor:
        """Light of a picture."""
        return CURVES[self.curve].decode((picture + 1) / 2)

    def codes_of(self, picture: Tensor) -> Tensor:
        """The part of a picture that is codes."""
        return picture


class DualVAE(nn.Module):
    """A VAE of two heads with the normalisation that it learns besides."""

    def __init__(self, config: QwenConfig, knee: float) -> None:
        super().__init__()
        half, heads = config.vae.latent_channels // 2, config.vae.channels // 2
        latents = [*range(heads), *range(half, half + heads)]
        self.vae, self.norm = stills.for_stills(_new(config, latents)), LightNorm(knee)

    def picture_of(self, light: Tensor) -> Tensor:
        """Both views of light (B, 3, H, W)."""
        return both_views(light, self.norm)

    def light_of(self, picture: Tensor) -> Tensor:
        """Light of the linear head."""
        return self.norm.inverse(picture[:, 3:])

    def codes_of(self, picture: Tensor) -> Tensor:
        """The tone-mapped head."""
        return picture[:, :3]


LightVAE = CodeVAE | DualVAE


def stops_of(light: Tensor) -> Tensor:
    """Light in stops, a straight line through 0 below the floor: defined for negative light, and of finite slope."""
    return torch.asinh(light / (2 * FLOOR)) / float(np.log(2))


class VAETask:
    """A VAE as the training loop sees it."""

    def __init__(self, network: LightVAE, source: CaptionSource, weights: Weights) -> None:
        self.model: nn.Module = network
        self._network, self._source, self.weights = network, source, weights

    @property
    def source(self) -> CaptionSource:
        """Where batches come from."""
        return self._source

    def to(self, device: torch.device) -> None:
        """Move the network."""
        self._network.to(device)

    def loss(self, batch: Captioned) -> tuple[Tensor, Mapping[str, float]]:
        """The loss of a batch, through sampled latents."""
        network = self._network
        picture = network.picture_of(batch.light)
        mean, log_variance = stills.encode(network.vae, picture)
        drawn = stills.decode(network.vae, mean + torch.randn_like(mean) * (log_variance / 2).exp()).float()
        codes, wanted = network.codes_of(drawn), network.codes_of(picture).detach()
        found, truth = stops_of(network.light_of(drawn)), stops_of(batch.light)
        terms = {
            "code": F.l1_loss(codes, wanted),
            "stops": F.l1_loss(found, truth),
            "gradient": gradient_distance(codes, wanted) + gradient_distance(found, truth) / 8,
            "divergence": 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean(),
        }
        total = torch.stack([getattr(self.weights, name) * term for name, term in terms.items()]).sum()
        return total, {**{name: float(term.detach()) for name, term in terms.items()}, "held": float(batch.held)}

    @functools.cached_property
    def held_out(self) -> Sequence[Captioned]:
        """The fixed held-out pictures."""
        return held_out(self._source)

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        """Held-out round trips through the most likely latent: `error` is the mean absolute error of light in stops;
        `code_psnr` of codes (peak 1), and of two heads `cut`, the error when latents 16 to 31 are zero.
        """
        assert isinstance(model, (CodeVAE, DualVAE))
        device = next(model.parameters()).device
        errors: list[float] = []
        cut: list[float] = []
        squares: list[float] = []
        for batch in (b.to(device) for b in self.held_out):
            picture = model.picture_of(batch.light)
            mean, _ = stills.encode(model.vae, picture)
            drawn = stills.decode(model.vae, mean)
            squares.append(float(((model.codes_of(drawn) - model.codes_of(picture)) / 2).square().mean()))
            errors.append(_error(model.light_of(drawn), batch.light))
            if isinstance(model, DualVAE):
                mean[:, mean.shape[1] // 2 :] = 0
                cut.append(_error(model.light_of(stills.decode(model.vae, mean)), batch.light))
        psnr = -10 * float(np.log10(max(float(np.mean(squares)), 1e-12)))
        return {"error": float(np.mean(errors)), "code_psnr": psnr} | ({"cut": float(np.mean(cut))} if cut else {})


def _error(found: Tensor, light: Tensor) -> float:
    return float((stops_of(found) - stops_of(light)).abs().mean())


def _new(config: QwenConfig, latents: Sequence[int]) -> AutoencoderKLQwenImage:
    """A new VAE that passes block means of its picture's channels on, each through one of `latents`."""
    vae = AutoencoderKLQwenImage(**config.vae.arguments())
    start_linear(vae, latents)
    return vae


def config_of(system: str, recipe: Recipe) -> QwenConfig:
    """The configuration that a recipe names. Raises BadParameter."""
    known = LINEAR_CONFIGS if system == "qwenlinear" else CONFIGS
    if recipe.config not in known:
        raise BadParameter(f"{system} has no configuration {recipe.config!r}; there are: {', '.join(known)}")
    return LINEAR_CONFIGS[recipe.config].qwen if system == "qwenlinear" else CONFIGS[recipe.config]


def start_vae(system: str, recipe: Recipe, base: Path | None, curve: str, source: CaptionSource) -> LightVAE:
    """What a training starts from: a new network, or the VAE in `base`, widened where the system needs it.

    The normalisation starts at what training pictures hold. Raises BadInput for a base that is another.
    """
    config = config_of(system, recipe)
    network: LightVAE
    if system == "qwenlog":
        network = CodeVAE(config, checked_curve(curve))
        if base is not None:
            network.vae.load_state_dict(load_vae(config, base).state_dict())
        return network
    linear = LINEAR_CONFIGS[recipe.config]
    network = DualVAE(config, linear.knee)
    if base is not None:
        network.vae.load_state_dict(widened_vae(load_vae(linear.base, base).state_dict()))
    batches = [source(np.random.default_rng((19, index)), LATENT_BATCH).light for index in range(LATENT_BATCHES)]
    flat = torch.cat([light.transpose(0, 1).flatten(1) for light in batches], dim=1)
    network.norm.fit(flat[None, ..., None])
    return network


def train_vae(
    system: str,
    recipe: Recipe,
    source: CaptionSource,
    run: Path,
    report: Callable[[str], None],
    devices: Devices = ONE_CPU,
    base: Path | None = None,
    curve: str = "logc4",
) -> Position:
    """Train a VAE, or resume it, in the folder `run`. Raises BadInput, BadParameter."""
    torch.manual_seed(recipe.schedule.seed)
    network = start_vae(system, recipe, base, curve, source)
    return train(VAETask(network, source, Weights(**recipe.weights)), recipe.schedule, run, report, devices)


def best_vae(system: str, recipe: Recipe, run: Path, curve: str) -> LightVAE:
    """A run's averaged weights at their lowest held-out error. Raises BadInput where it has none yet."""
    weights = run / "best.safetensors"
    if not weights.is_file():
        raise BadInput(f"{weights} is missing; train first, into {run}")
    config = config_of(system, recipe)
    network = CodeVAE(config, curve) if system == "qwenlog" else DualVAE(config, LINEAR_CONFIGS[recipe.config].knee)
    load_weights(network, weights)
    return network.eval()


@torch.inference_mode()
def export(network: LightVAE, source: CaptionSource, folder: Path) -> None:
    """Write `vae/` for stills in half precision, with its latents' mean and deviation on 64 training pictures, and what
    stands before it.
    """
    latents: list[Tensor] = []
    for index in range(LATENT_BATCHES):
        light = source(np.random.default_rng((17, index)), LATENT_BATCH).light
        mean, _ = stills.encode(network.vae, network.picture_of(light))
        latents.append(mean.transpose(0, 1).flatten(1))
    values = torch.cat(latents, dim=1)
    place = folder / VAE
    place.mkdir(parents=True, exist_ok=True)
    network.vae.register_to_config(
        latents_mean=values.mean(dim=1).tolist(), latents_std=values.std(dim=1).clamp(min=1e-4).tolist()
    )
    network.vae.save_config(place)
    kept = stills.last_taps(network.vae.state_dict(), network.vae)
    save_file({name: tensor.half().contiguous() for name, tensor in kept.items()}, place / WEIGHTS)
    if isinstance(network, DualVAE):
        save_file({k: v.contiguous() for k, v in network.norm.state_dict().items()}, folder / NORM_FILE)
    else:
        (folder / VAE / "curve.json").write_text(json.dumps({"curve": network.curve}) + "\n", encoding="utf-8")


def load_light_vae(system: str, recipe: Recipe, folder: Path, curve: str = "") -> LightVAE:
    """What `export` wrote, or a published VAE; on codes of `curve`, else of the folder's own. Raises BadInput."""
    config = config_of(system, recipe)
    network: LightVAE
    if system == "qwenlinear":
        linear = LINEAR_CONFIGS[recipe.config]
        network = DualVAE(config, linear.knee)
        network.norm = load_norm(linear, folder / NORM_FILE)
    else:
        network = CodeVAE(config, curve or curve_of(folder))
    network.vae = stills.for_stills(load_vae(config, folder))
    return network.requires_grad_(requires_grad=False).eval()


def curve_of(folder: Path) -> str:
    """The curve that a folder's VAE was trained on, LogC4 where it does not say: a published one was on none."""
    path = folder / VAE / "curve.json"
    return checked_curve(str(json.loads(path.read_text(encoding="utf-8"))["curve"]) if path.is_file() else "logc4")


def checked_curve(name: str) -> str:
    """The curve's name. Raises BadParameter where no pack can have it."""
    if name not in LOG_CURVES:
        raise BadParameter(f"there is no curve {name!r} for log codes; there are: {', '.join(LOG_CURVES)}")
    return name
