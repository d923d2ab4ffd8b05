"""Training of both Qwen systems' transformers: at size s whole, else an adapter on frozen weights.

It owns what is trained, the loss of rectified flow and the held-out check. It must not know the loop's mechanics,
packs or the command line.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from hdrgen_server.systems.qwenlinear.config import CONFIGS as LINEAR_CONFIGS
from hdrgen_server.systems.qwenlinear.loading import load_wide
from hdrgen_server.systems.qwenlinear.widen import WAYS
from hdrgen_server.systems.qwenlog import lora
from hdrgen_server.systems.qwenlog.flow import noised
from hdrgen_server.systems.qwenlog.loading import load_transformer
from hdrgen_server.systems.qwenlog.model import QwenImage
from hdrgen_server.systems.qwenlog.text import EMPTY, load_text, padded
from hdrgen_server.training.captioned import Captioned, CaptionSource, held_out
from hdrgen_server.training.devices import ONE_CPU, Devices
from hdrgen_server.training.loop import Position, load_weights, train
from hdrgen_server.training.qwen_vae import LightVAE, config_of, load_light_vae, stops_of
from hdrgen_server.training.recipe import Recipe
from nuke_hdrgen.wire.errors import BadInput, BadParameter

STAGES = ("backbone", "lora")
QKV = ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj")
"""Queries, keys and values of both streams, as the document adapts them."""
PROJECTIONS = ("img_in", "proj_out")
UNSAID = 0.1
"""This share of prompts is left out, so that guidance has something to go away from."""
HELD_OUT_LEVELS = (0.2, 0.5, 0.8)
KEPT_BLOCKS = 12
"""With more blocks than this, the backward pass makes their activations again instead of keeping them."""
WHITE_STOPS = 8.0
SLASH = "/"


@dataclass(frozen=True)
class Weights:
    """`bright` is how much more an error counts per stop above diffuse white; `rank` is the adapter's, 0 for none."""

    bright: float = 0.0
    rank: float = 0.0


class QwenTask:
    """A transformer, or an adapter of one, as the training loop sees it.

    Of a source with a pool each batch is encoded once: that takes three times what the small transformer does.
    """

    def __init__(
        self,
        model: QwenImage,
        light: LightVAE,
        source: CaptionSource,
        weights: Weights,
        frozen: torch.dtype = torch.float32,
    ) -> None:
        self.qwen, self.weights, self._frozen = model, weights, frozen
        self._light, self._source = light, source
        self._encoded: dict[int, tuple[Tensor, Tensor]] = {}
        trained = {n: p for n, p in model.transformer.named_parameters() if p.requires_grad}
        self.model: nn.Module = Trained(trained)

    @property
    def source(self) -> CaptionSource:
        """Where batches come from."""
        return self._source

    def to(self, device: torch.device) -> None:
        """Move every network."""
        self.qwen.to(device)
        self._light.to(device)

    def loss(self, batch: Captioned) -> tuple[Tensor, Mapping[str, float]]:
        """Rectified flow at one logit-normal level a picture, errors of bright light weighted up."""
        latents, weight = self._latents(batch)
        count, device = len(latents), latents.device
        level = torch.sigmoid(torch.randn(count, device=device))
        noise = torch.randn_like(latents)
        said = [EMPTY if left_out else p for p, left_out in zip(batch.prompts, _unsaid(count), strict=True)]
        found = self.velocity(noised(latents, noise, level[:, None, None, None]), level, said, batch.panorama)
        error = (weight * (found - (noise - latents)).square()).mean()
        return error, {"velocity": float(error.detach()), "held": float(batch.held)}

    @functools.cached_property
    def held_out(self) -> Sequence[Captioned]:
        """The fixed held-out pictures."""
        return held_out(self._source)

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        """Held-out mean squared errors of velocities at three levels: `error` with the pictures' own sentences, `other`
        with each other's, which is to be higher.
        """
        assert isinstance(model, Trained)
        errors: dict[str, list[float]] = {"error": [], "other": []}
        for number, batch in enumerate(b.to(self.qwen.device) for b in self.held_out):
            latents, _ = self._latents(batch)
            generator = torch.Generator().manual_seed(number)
            noise = torch.randn(latents.shape, generator=generator).to(latents)
            for mark in HELD_OUT_LEVELS:
                at = torch.full((len(latents),), mark, device=latents.device)
                point = noised(latents, noise, mark)
                for name, prompts in (("error", batch.prompts), ("other", batch.prompts[::-1])):
                    found = self.velocity(point, at, prompts, batch.panorama, model.named())
                    errors[name].append(float(F.mse_loss(found, noise - latents)))
        return {name: sum(values) / len(values) for name, values in errors.items()}

    def _latents(self, batch: Captioned) -> tuple[Tensor, Tensor]:
        """Latents of a batch's pictures, and how much each counts, (B, 1, h, w) with mean 1."""
        if batch.number < 0:
            return self._encode(batch)
        if batch.number not in self._encoded:
            self._encoded[batch.number] = self._encode(batch)
        return self._encoded[batch.number]

    @torch.no_grad()
    def _encode(self, batch: Captioned) -> tuple[Tensor, Tensor]:
        light, factor = batch.light, self.qwen.config.vae.factor
        with torch.autocast(light.device.type, enabled=False):  # half precision bands codes
            latents = self.qwen.encode(self._light.picture_of(light))
        brightest = F.max_pool2d(light.amax(dim=1, keepdim=True), factor)
        weight = 1 + self.weights.bright * (stops_of(brightest) - stops_of(torch.ones(1))[0].item()).clamp(
            0, WHITE_STOPS
        )
        return latents, weight / weight.mean()

    def velocity(
        self,
        point: Tensor,
        level: Tensor,
        prompts: Sequence[str],
        panorama: bool,
        given: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """The velocity of points (B, C, h, w) at levels (B,) towards prompts, by the network's own parameters or by the
        `given` ones.
        """
        tokens, mask = padded([self._tokens(prompt) for prompt in prompts])
        tokens, mask = tokens.to(point.device), mask.to(point.device)
        network = self.qwen.transformer
        if given is not None:
            swapped: Any = _Swapped(network, given)
            self.qwen.transformer = swapped
        try:
            with self._mixed(point.device):
                return self.qwen.velocity(point, level, tokens, mask, panorama=panorama)
        finally:
            self.qwen.transformer = network

    def _mixed(self, device: torch.device) -> AbstractContextManager[object]:
        """What lets float32 weights work among frozen ones of half precision."""
        return nullcontext() if self._frozen == torch.float32 else torch.autocast(device.type, self._frozen)

    @functools.lru_cache(maxsize=20_000)  # noqa: B019 the task lives as long as the process
    def _tokens(self, prompt: str) -> Tensor:
        return self.qwen.text.encode(prompt)


class Trained(nn.Module):
    """The parameters of a network that are trained, and no others, under its own names."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        self.trained = nn.ParameterDict({name.replace(".", SLASH): p for name, p in parameters.items()})

    def named(self) -> dict[str, Tensor]:
        """The parameters by the network's names."""
        return {name.replace(SLASH, "."): parameter for name, parameter in self.trained.items()}


class _Swapped:
    """A network called with other parameters than its own."""

    def __init__(self, network: QwenImageTransformer2DModel, given: Mapping[str, Tensor]) -> None:
        self._network, self._given = network, dict(given)
        self.dtype = network.dtype

    def __call__(self, **arguments: Any) -> Any:
        return functional_call(self._network, self._given, kwargs=arguments)


def _unsaid(count: int) -> list[bool]:
    return (torch.rand(count) < UNSAID).tolist()


def start(
    system: str,
    recipe: Recipe,
    stage: str,
    base: Path,
    source: CaptionSource,
    dtype: torch.dtype = torch.float32,
    way: str = "halved",
    curve: str = "",
) -> QwenTask:
    """A stage as it starts, with what stays frozen in `dtype`: on the VAE in `base` a new transformer (`backbone`), or
    an adapter on the one in `base` (`lora`), of `qwenlinear` with its widened projections. Raises BadInput.
    """
    if stage not in STAGES:
        raise BadParameter(f"{system} has no stage {stage!r}; there are: vae, {', '.join(STAGES)}")
    if way not in WAYS:
        raise BadParameter(f"there is no way {way!r} of widening; there are: {', '.join(WAYS)}")
    config, weights = config_of(system, recipe), Weights(**recipe.weights)
    light = load_light_vae(system, recipe, base, curve)
    text = load_text(config.text, base, dtype)
    if stage == "backbone":
        transformer = QwenImageTransformer2DModel(**config.transformer.arguments())
    else:
        transformer = (
            load_wide(LINEAR_CONFIGS[recipe.config], base, dtype, "zero" if way == "zero" else "halved")
            if system == "qwenlinear"
            else load_transformer(config, base, dtype)
        )
        _adapt(transformer, max(1, int(weights.rank)), projections=system == "qwenlinear")
    if config.transformer.layers > KEPT_BLOCKS:
        transformer.enable_gradient_checkpointing()
    source = replace(source, pool=int(recipe.pictures.get("pool", 0)))
    return QwenTask(QwenImage(config, transformer, light.vae, text), light, source, weights, dtype)


def _adapt(transformer: QwenImageTransformer2DModel, rank: int, *, projections: bool) -> None:
    """Freeze all but a new adapter on queries, keys and values of both streams, and the widened projections.

    What is trained is float32, whatever the frozen weights are: half precision rounds small steps away.
    """
    for parameter in transformer.parameters():
        parameter.requires_grad = False
    lora.add(transformer, dict.fromkeys(lora.targets(transformer, QKV), rank), "gaussian")
    for name, parameter in transformer.named_parameters():
        parts = name.split(".")
        if ".lora_" in name or (projections and parts[0] in PROJECTIONS):
            parameter.requires_grad = True
            parameter.data = parameter.data.float()


def train_qwen(
    system: str,
    recipe: Recipe,
    stage: str,
    source: CaptionSource,
    run: Path,
    base: Path,
    report: Callable[[str], None],
    devices: Devices = ONE_CPU,
    way: str = "halved",
    curve: str = "",
) -> Position:
    """Train a stage, or resume it, in `run`, from `base`. Raises BadInput, BadParameter."""
    torch.manual_seed(recipe.schedule.seed)
    frozen = torch.bfloat16 if devices.precision == "bf16" and stage == "lora" else torch.float32
    task = start(system, recipe, stage, base, source, frozen, way, curve)
    return train(task, recipe.schedule, run, report, devices)


def best_task(system: str, recipe: Recipe, stage: str, run: Path, base: Path, source: CaptionSource) -> QwenTask:
    """A run's averaged weights at their lowest held-out error, in place. Raises BadInput where it has none yet."""
    weights = run / "best.safetensors"
    if not weights.is_file():
        raise BadInput(f"{weights} is missing; train first, into {run}")
    task = start(system, recipe, stage, base, source)
    load_weights(task.model, weights)
    return task
