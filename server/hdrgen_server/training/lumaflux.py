"""LumaFlux's training: the adapters on a frozen backbone, and at size s the backbone before them.

It owns what is trained, the losses of the document's Eq. 18 and the held-out check. It must not know the loop's
mechanics, packs or the command line.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from transformers import SiglipVisionConfig, SiglipVisionModel

from hdrgen_server.colour.curves import CURVES
from hdrgen_server.systems.lumaflux.adapters import MODULES, Adapters
from hdrgen_server.systems.lumaflux.config import CONFIGS, LumaFluxConfig
from hdrgen_server.systems.lumaflux.flow import bridge, euler, start_of
from hdrgen_server.systems.lumaflux.loading import load_encoder, load_transformer, load_vae
from hdrgen_server.systems.lumaflux.model import LumaFlux
from hdrgen_server.systems.lumaflux.physical import luma_of
from hdrgen_server.training.devices import ONE_CPU, Devices
from hdrgen_server.training.loop import Position, load_weights, train
from hdrgen_server.training.pairs import PANORAMAS, WHITE_NITS, Pairs, PairSource, held_out_pairs
from hdrgen_server.training.recipe import Recipe
from hdrgen_server.training.tone_mapping import OPERATORS
from nuke_hdrgen.wire.errors import BadInput, BadParameter

STAGES = ("backbone", "adapters")
HELD_OUT_STEPS = 4
FLOOR = 2e-3
CLIPPED_CODE = 250 / 255
KEPT_BLOCKS = 12
"""With more blocks than this, the backward pass makes their activations again instead of keeping them."""


@dataclass(frozen=True)
class Weights:
    """Weights of the loss: velocity, and every `every`-th step, drawn at random, the terms of Eq. 18 on decoded light.

    `luma` and `rgb` are mean absolute errors of linear light over the peak, `smooth` the spline's roughness; `stops`
    is ours, the mean absolute error of log2 light, for a peak so high that most of a picture is a sliver of it.
    """

    velocity: float = 1.0
    luma: float = 1.0
    rgb: float = 0.5
    smooth: float = 0.1
    stops: float = 0.0
    every: float = 4.0


class LumaFluxTask:
    """One stage as the training loop sees it.

    `adapters` trains what LumaFlux adds on the bridge from SDR to HDR; `backbone` trains transformer, image encoder and
    context on flow from noise, both SDR and HDR pictures, the way FLUX.1 was before: at size s there is none to fetch.
    """

    def __init__(self, model: LumaFlux, source: PairSource, weights: Weights, stage: str = "adapters") -> None:
        self.flux, self.weights, self.stage = model, weights, stage
        self._source = source
        if stage == "backbone":
            adapters = model.adapters
            for parameter in adapters.parameters():
                parameter.requires_grad_(False)
            freed: tuple[nn.Module, ...] = (model.steered.transformer, model.encoder, adapters.ctx_connector)
            for module in (*freed, adapters.pooled_from_stats):
                for parameter in module.parameters():
                    parameter.requires_grad_(True)
            for parameter in (adapters.null_context, adapters.null_pooled):
                parameter.requires_grad_(True)
        self._whole = _Whole(model)
        self.model: nn.Module = self._whole if stage == "backbone" else model.adapters

    @property
    def source(self) -> PairSource:
        """Where batches come from."""
        return self._source

    def to(self, device: torch.device) -> None:
        """Move every network to a device; the adapters stay in float32."""
        self.flux.to(device)
        self.flux.adapters.float()

    def loss(self, batch: Pairs) -> tuple[Tensor, Mapping[str, float]]:
        """The loss of a batch at one random time a picture."""
        flow = self._noise_flow if self.stage == "backbone" else self._bridge_flow
        total, figures = flow(batch, bool(torch.rand(()) * self.weights.every < 1))
        return total, {**figures, "held": batch.held}

    def _bridge_flow(self, batch: Pairs, decoded: bool) -> tuple[Tensor, dict[str, float]]:
        model, weights = self.flux, self.weights
        with torch.no_grad():
            sdr, hdr = model.encode(batch.sdr), model.encode(batch.hdr)
        time = torch.rand(len(sdr), device=sdr.device)
        on = bridge(hdr, start_of(sdr, torch.randn_like(sdr), model.config.bridge_noise), time)
        conditions = model.condition(batch.sdr)
        found = model.velocity(conditions, on.point, time)
        terms = {"velocity": F.mse_loss(found, on.velocity)}
        if decoded:
            final = on.point - time[:, None, None, None] * found
            field = model.field(conditions, final)
            terms |= light_terms(model.finish(model.decode(final), field), batch.hdr, model.config)
            terms["smooth"] = field.roughness()
        return _weighed(terms, weights)

    def _noise_flow(self, batch: Pairs, decoded: bool) -> tuple[Tensor, dict[str, float]]:
        del decoded
        model = self.flux
        with torch.no_grad():
            clean = model.encode(batch.hdr if torch.rand(()) < 0.5 else batch.sdr)
        time = torch.sigmoid(torch.randn(len(clean), device=clean.device))
        on = bridge(clean, torch.randn_like(clean), time)
        found = model.velocity(model.condition(batch.sdr), on.point, time)
        return _weighed({"velocity": F.mse_loss(found, on.velocity)}, self.weights)

    @functools.cached_property
    def held_out(self) -> tuple[Pairs, ...]:
        """The fixed held-out pairs, made as training's are: the best weights are chosen on them."""
        source = self._source
        return held_out_pairs(source.folder, source.peak_nits, source.operators, curves=source.curves > 0)

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        """Held-out figures; `error` is the mean absolute error of log2 luminance in stops, or of velocities."""
        if self.stage == "backbone":
            weights: dict[str, Tensor] = dict(model.named_parameters())
            errors = [float(functional_call(self._whole, weights, (p.to(self.flux.device),))) for p in self.held_out]
            return {"error": sum(errors) / len(errors)}
        assert isinstance(model, Adapters)
        live, self.flux.adapters = self.flux.adapters, model
        try:
            found = [self._stops(pair.to(self.flux.device)) for pair in self.held_out]
        finally:
            self.flux.adapters = live
        everywhere = torch.cat([error for error, _ in found])
        clipped = torch.cat([error[mask] for error, mask in found])
        figures = {"error": float(everywhere.abs().mean())}
        return figures | ({"clipped": float(clipped.square().mean().sqrt())} if len(clipped) else {})

    def _stops(self, pair: Pairs) -> tuple[Tensor, Tensor]:
        """Errors of log2 luminance of one picture, and which of its pixels clip, both flat."""
        model = self.flux
        sdr, conditions = model.encode(pair.sdr), model.condition(pair.sdr)

        def velocity(point: Tensor, time: float) -> Tensor:
            return model.velocity(conditions, point, torch.full((len(point),), time, device=point.device))

        noise = torch.randn(sdr.shape, generator=torch.Generator().manual_seed(5)).to(sdr)
        final = euler(start_of(sdr, noise, model.config.bridge_noise), velocity, HELD_OUT_STEPS)
        codes = model.finish(model.decode(final), model.field(conditions, final))
        error = stops_of(luma_of(light_of(codes))) - stops_of(luma_of(light_of(pair.hdr)))
        return error.flatten(), (pair.sdr.amax(dim=1) >= CLIPPED_CODE).flatten()


class _Whole(nn.Module):
    """What the backbone stage trains, as one module; called with pairs, its velocity's error at fixed times."""

    def __init__(self, model: LumaFlux) -> None:
        super().__init__()
        self.transformer, self.encoder, self.adapters = model.steered.transformer, model.encoder, model.adapters
        self._held = (model,)

    def forward(self, pairs: Pairs) -> Tensor:
        """Mean squared error of the velocity from noise to the HDR picture, at three times."""
        (model,) = self._held
        clean = model.encode(pairs.hdr)
        generator = torch.Generator().manual_seed(5)
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        conditions = model.condition(pairs.sdr)
        errors: list[Tensor] = []
        for time in (0.2, 0.5, 0.8):
            at = torch.full((len(clean),), time, device=clean.device)
            on = bridge(clean, noise, at)
            errors.append(F.mse_loss(model.velocity(conditions, on.point, at), on.velocity))
        return torch.stack(errors).mean()


def light_of(pq_codes: Tensor) -> Tensor:
    """PQ codes to linear light, diffuse white (100 cd/m2) at 1.0."""
    return CURVES["pq"].decode(pq_codes)


def stops_of(light: Tensor) -> Tensor:
    """Light in stops above diffuse white, with a floor below which nothing is told apart."""
    return torch.log2(light.clamp(min=0) + FLOOR)


def light_terms(found: Tensor, truth: Tensor, config: LumaFluxConfig) -> dict[str, Tensor]:
    """Eq. 18's errors between PQ codes of BT.2020, in linear light over the peak, and of its logarithm."""
    peak = config.peak_nits / WHITE_NITS
    made, wanted = light_of(found), light_of(truth)
    return {
        "luma": F.l1_loss(luma_of(made), luma_of(wanted)) / peak,
        "rgb": F.l1_loss(made, wanted) / peak,
        "stops": F.l1_loss(stops_of(made), stops_of(wanted)),
    }


def _weighed(terms: Mapping[str, Tensor], weights: Weights) -> tuple[Tensor, dict[str, float]]:
    total = torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()
    return total, {name: float(term.detach()) for name, term in terms.items()}


def start(
    recipe: Recipe, stage: str, base: Path, without: frozenset[str] = frozenset(), dtype: torch.dtype = torch.float32
) -> LumaFlux:
    """The networks that a stage starts from: new ones on the VAE of `base` for the backbone, else those of `base`, with
    what stays frozen in `dtype`.

    `base` is a folder as a pack holds it, or for the backbone stage the folder of an autoencoder. Raises BadInput.
    """
    config = config_of(recipe)
    vae_folder = base if (base / "vae").exists() or (base / "vae.safetensors").exists() else None
    if stage == "backbone":
        vae = _plain_vae(config, base) if vae_folder is None else load_vae(config, base)
        transformer = FluxTransformer2DModel(**config.flux.arguments())
        encoder = SiglipVisionModel(SiglipVisionConfig(**config.encoder.arguments()))
        return LumaFlux(config, transformer, vae, encoder, Adapters(config))
    vae = load_vae(config, base)
    transformer, encoder = load_transformer(config, base, dtype), load_encoder(config, base, dtype)
    if config.flux.blocks > KEPT_BLOCKS:
        transformer.enable_gradient_checkpointing()
    adapters = Adapters(config, without)
    _take_context(adapters, base)
    return LumaFlux(config, transformer.eval(), vae.eval(), encoder.eval(), adapters)


def _plain_vae(config: LumaFluxConfig, folder: Path) -> AutoencoderKL:
    """The VAE of a folder that holds nothing else."""
    return load_vae(config, folder.parent, folder.name)


def _take_context(adapters: Adapters, base: Path) -> None:
    """The context that a backbone was trained with, where the base has it; a published base has none."""
    path = base / "adapters.safetensors"
    if path.is_file():
        load_weights(adapters, path)


def config_of(recipe: Recipe) -> LumaFluxConfig:
    """The configuration that a recipe names. Raises BadParameter."""
    if recipe.config not in CONFIGS:
        raise BadParameter(f"LumaFlux has no configuration {recipe.config!r}; there are: {', '.join(CONFIGS)}")
    return CONFIGS[recipe.config]


def operators_without(name: str) -> tuple[str, ...]:
    """The operators but one, "" for all. Raises BadParameter for one that there is none of."""
    if name and name not in OPERATORS:
        raise BadParameter(f"there is no operator {name!r}; there are: {', '.join(OPERATORS)}")
    return tuple(operator for operator in OPERATORS if operator != name)


def modules_without(names: str) -> frozenset[str]:
    """Module names split by commas. Raises BadParameter for one that there is none of."""
    found = frozenset(filter(None, names.split(",")))
    if found - set(MODULES):
        raise BadParameter(f"there is no module {min(found - set(MODULES))!r}; there are: {', '.join(MODULES)}")
    return found


@dataclass(frozen=True)
class Choice:
    """What of a stage's training may be chosen beside its recipe."""

    stage: str = "adapters"
    layout: str = PANORAMAS
    without: frozenset[str] = frozenset()
    operators: tuple[str, ...] = tuple(OPERATORS)


def train_lumaflux(
    recipe: Recipe,
    folder: Path,
    run: Path,
    base: Path,
    report: Callable[[str], None],
    devices: Devices = ONE_CPU,
    choice: Choice = Choice(),
) -> Position:
    """Train a stage, or resume it, in `run`, on what lies in `folder` in the chosen layout, from `base`."""
    if choice.stage not in STAGES:
        raise BadParameter(f"lumaflux has no stage {choice.stage!r}; there are: {', '.join(STAGES)}")
    torch.manual_seed(recipe.schedule.seed)
    frozen = torch.bfloat16 if devices.precision == "bf16" else torch.float32
    model = start(recipe, choice.stage, base, choice.without, frozen)
    curves = recipe.pictures.get("curves", 0.0)
    source = PairSource(folder, recipe.crop, model.config.peak_nits, choice.layout, choice.operators, curves=curves)
    task = LumaFluxTask(model, source, Weights(**recipe.weights), choice.stage)
    return train(task, recipe.schedule, run, report, devices)


def best_model(recipe: Recipe, stage: str, run: Path, base: Path) -> LumaFlux:
    """A run's averaged weights at their lowest held-out error, on their base. Raises BadInput where it has none yet."""
    weights: Any = run / "best.safetensors"
    if not weights.is_file():
        raise BadInput(f"{weights} is missing; train first, into {run}")
    model = start(recipe, stage, base)
    load_weights(_Whole(model) if stage == "backbone" else model.adapters, weights)
    return model
