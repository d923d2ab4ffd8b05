"""LumiVid's training: at size s a video VAE and a transformer from nothing, on a published base an IC-LoRA.

It owns what is trained, the losses and the held-out check. It must not know the loop's mechanics, clips' making or the
command line. Source: LumiVid (arXiv 2604.11788), sections 3.1 and 3.2; levels of noise as LTX-2's trainer draws them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_ltx2 import AutoencoderKLLTX2Video
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel
from torch import Tensor, nn
from torch.nn import functional as F

from hdrgen_server.systems.lumivid.codes import TRANSFORMS
from hdrgen_server.systems.lumivid.config import CONFIGS, FPS, LumiVidConfig
from hdrgen_server.systems.lumivid.loading import SCENE_FILE, add_adapter, load_contexts, load_transformer, load_vae
from hdrgen_server.systems.lumivid.model import LumiVid
from hdrgen_server.systems.lumivid.sampling import euler, noised
from hdrgen_server.training.autoencoder import gradient_distance
from hdrgen_server.training.clips import Clips, ClipSource, held_out_clips
from hdrgen_server.training.devices import ONE_CPU, Devices
from hdrgen_server.training.loop import CHECKPOINT, Position, load_weights, train
from hdrgen_server.training.pairs import CLIPPED_CODE
from hdrgen_server.training.qwen import Trained
from hdrgen_server.training.recipe import Recipe
from hdrgen_server.training.tone_mapping import DISPLAY_GAMMA
from hdrgen_server.training.video_start import start_linear
from hdrgen_server.training.views import LUMINANCE
from nuke_hdrgen.wire.errors import BadInput, BadParameter

STAGES = ("vae", "backbone", "lora")
CONTEXT_TOKENS = 4
START_CLIPS = 96
TARGETS = tuple(f"{a}.{p}" for a in ("attn1", "attn2") for p in ("to_q", "to_k", "to_v", "to_out.0"))
ADAPTED = (*TARGETS, "ff.net.0.proj", "ff.net.2")
KEPT_BLOCKS = 12
FIRST_FRAME = 0.2
FLOOR = 2e-3
CHANGE = 0.3
TONE_SIDE = 16
# Mean of the logit of levels at two numbers of tokens, straight between and beyond; then its 0.5 and 99.9 percentiles
# are stretched to the whole range, and a tenth of levels is uniform.
SHIFTS = ((1024, 0.95), (4096, 2.05))
PERCENTILES = (-2.5758293, 3.0902323)
UNIFORM, LEAST = 0.1, 1e-3


@dataclass(frozen=True)
class Weights:
    """Weights of the losses; those of the VAE are named as the autoencoder's; `velocity` is the flow's, `clipped` how
    much more it counts where the SDR clips, and by `decoded` a latent channel counts as that power of what it changes
    in the decoded codes: 0 is the plain flow, 1 an error of codes.

    No weights are `whole`, the share of clips at the flow's very start, where sampling begins, and the rank of an
    adapter.
    """

    l1: float = 1.0
    tone: float = 1.0
    gradient: float = 0.5
    divergence: float = 1e-4
    velocity: float = 1.0
    clipped: float = 0.0
    decoded: float = 0.0
    whole: float = 0.0
    rank: float = 32.0


class VAETask:
    """The video VAE as the training loop sees it: SDR and HDR codes are both pictures to it."""

    def __init__(self, vae: AutoencoderKLLTX2Video, source: ClipSource, weights: Weights) -> None:
        self.vae, self._source, self.weights = vae, source, weights
        self.model: nn.Module = vae

    @property
    def source(self) -> ClipSource:
        """Where batches come from."""
        return self._source

    def to(self, device: torch.device) -> None:
        """Move the VAE."""
        self.model.to(device)

    def loss(self, batch: Clips) -> tuple[Tensor, Mapping[str, float]]:
        """The loss of the SDR or the HDR of each clip, through a sampled latent."""
        chosen = torch.rand(len(batch.sdr), 1, 1, 1, 1, device=batch.sdr.device) < 0.5
        pictures = 2 * torch.where(chosen, batch.sdr, batch.hdr) - 1
        posterior = posterior_of(self.vae, pictures)
        drawn = decoded(self.vae, posterior.sample())
        found, wanted = (clips.transpose(1, 2).flatten(0, 1) for clips in (drawn, pictures))
        terms = {
            "l1": F.l1_loss(found, wanted),
            "tone": F.avg_pool2d(found - wanted, TONE_SIDE).abs().mean(),
            "gradient": gradient_distance(found, wanted),
            "divergence": posterior.kl().mean() / posterior.mean[0].numel(),
        }
        return _weighed(terms, self.weights, batch.held)

    @functools.cached_property
    def held_out(self) -> tuple[Clips, ...]:
        """The fixed held-out clips."""
        return held_out_clips(self._source)

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        """Mean PSNR (dB, peak 1 on codes) of round trips of SDR and of HDR; `error` is the negative of their mean."""
        assert isinstance(model, AutoencoderKLLTX2Video)
        device = next(model.parameters()).device
        figures: dict[str, float] = {}
        for name in ("sdr", "hdr"):
            errors: list[Tensor] = []
            for clip in (batch.to(device) for batch in self.held_out):
                pictures: Tensor = 2 * getattr(clip, name) - 1
                back = decoded(model, posterior_of(model, pictures).mode())
                errors.append(-10 * torch.log10(((back - pictures) / 2).square().mean().clamp(min=1e-12)))
            figures[name] = float(torch.stack(errors).mean())
        return {"error": -sum(figures.values()) / 2, **figures}


@dataclass(frozen=True, eq=False)
class Encoded:
    """Latents of a batch's HDR, of its SDR as the reference shows it, and of the plate in the codes of HDR where the
    flow begins there, (B, C, F, H, W); and the share of each HDR latent's pixels that clip, (B, F, H, W).
    """

    latents: Tensor
    reference: Tensor
    plate: Tensor | None
    clipped: Tensor

    def start(self) -> Tensor:
        """Where the flow begins: at the plate, or at noise."""
        return torch.randn_like(self.latents) if self.plate is None else self.plate


class FlowTask:
    """The transformer, or an adapter on it, as the training loop sees it.

    Of a source with a pool each batch is encoded once: the VAE takes longer than the small transformer does.
    """

    def __init__(self, model: LumiVid, source: ClipSource, weights: Weights, frozen: torch.dtype) -> None:
        self.lumivid, self._source, self.weights, self._frozen = model, source, weights, frozen
        self._encoded: dict[int, Encoded] = {}
        self._trained = Trained({name: p for name, p in model.named_parameters() if p.requires_grad})
        self.model: nn.Module = self._trained

    @property
    def source(self) -> ClipSource:
        """Where batches come from."""
        return self._source

    def to(self, device: torch.device) -> None:
        """Move every network."""
        self.lumivid.to(device)

    def loss(self, batch: Clips) -> tuple[Tensor, Mapping[str, float]]:
        """Rectified flow, v = start - x, at one level a clip; of a fifth of clips the first frame is given, and it and
        the reference are no part of the loss.
        """
        encoded = self._latents(batch)
        latents = encoded.latents
        drawn = shifted_levels(len(latents), latents[0, 0].numel())
        drawn = torch.where(torch.rand(len(latents)) < self.weights.whole, 1, drawn).to(latents.device)
        levels = drawn[:, None].repeat(1, latents.shape[2])
        given = torch.rand(len(latents), device=latents.device) < FIRST_FRAME
        levels[:, 0] = torch.where(given, 0, levels[:, 0])
        begin = encoded.start()
        point = noised(latents, begin, levels[:, None, :, None, None])
        with self._mixed(latents.device):
            found = self.lumivid.velocity(point, levels, encoded.reference, FPS)
        share = 1 + self.weights.clipped * encoded.clipped
        squared = (found - (begin - latents)).square() * self._channels
        error = (squared.mean(dim=1) * share).sum(dim=(2, 3)) / share.sum(dim=(2, 3))
        counts = (levels > 0).float()
        total = self.weights.velocity * (error * counts).sum() / counts.sum().clamp(min=1)
        return total, {"velocity": float(total.detach()), "held": batch.held}

    @functools.cached_property
    def _channels(self) -> Tensor:
        """How much each channel of latents counts, (1, C, 1, 1, 1), 1 on average; a resumed run has the same."""
        if not self.weights.decoded:
            return torch.ones(1, 1, 1, 1, 1, device=self.lumivid.device)
        clip = replace(self._source, pool=0)(np.random.default_rng(29), 1).to(self.lumivid.device)
        felt = channel_changes(self.lumivid, self._encode(clip).latents) ** self.weights.decoded
        return (felt / felt.mean()).view(1, -1, 1, 1, 1)

    @functools.cached_property
    def held_out(self) -> tuple[Clips, ...]:
        """The fixed held-out clips."""
        return held_out_clips(self._source)

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        """Held-out figures of sampled clips, mean absolute errors in stops: `gain` over the SDR, what the VAE loses of
        both cancelled; `light`, that of the decoded light, and `clipped`, the same where the SDR clips, of clips that
        do. `error` is the mean of `gain` and `clipped`, or `gain` where nothing clips.
        """
        assert isinstance(model, Trained)
        figures: dict[str, list[float]] = {"gain": [], "light": [], "clipped": []}
        with _swapped(self._trained, model):
            for number, clip in enumerate(batch.to(self.lumivid.device) for batch in self.held_out):
                found = self._found(clip, number)
                for name, value in found.items():
                    figures[name].append(value)
        means = {name: sum(values) / len(values) for name, values in figures.items() if values}
        return {"error": (means["gain"] + means.get("clipped", means["gain"])) / 2, **means}

    def _found(self, clip: Clips, number: int) -> dict[str, float]:
        lumivid = self.lumivid
        encoded = self._encode(clip)
        begin = encoded.plate
        if begin is None:
            generator = torch.Generator().manual_seed(number)
            begin = torch.randn(encoded.latents.shape, generator=generator).to(encoded.latents)

        def velocity(point: Tensor, level: float) -> Tensor:
            with self._mixed(point.device):
                at = torch.full((len(point), point.shape[2]), level, device=point.device)
                return lumivid.velocity(point, at, encoded.reference, FPS)

        curve = TRANSFORMS[self._source.transform]
        made = lumivid.decode(euler(begin, velocity, lumivid.config.sampling.first))
        found, wanted = (_stops(curve.decode(codes.clamp(0, 1))) for codes in (made, clip.hdr))
        shown = _stops(light_of_sdr(clip.sdr))
        if encoded.plate is None:
            before = _stops(light_of_sdr(lumivid.decode(lumivid.encode(clip.sdr))))
        else:
            before = _stops(curve.decode(lumivid.decode(encoded.plate).clamp(0, 1)))
        gain = (found - before) - (wanted - shown)
        light, clips = (found - wanted).abs(), clip.sdr.amax(dim=1) >= float(CLIPPED_CODE)
        figures = {"gain": gain.abs().mean().item(), "light": light.mean().item()}
        return {**figures, "clipped": light[clips].mean().item()} if clips.any() else figures

    def _latents(self, batch: Clips) -> Encoded:
        if batch.number < 0:
            return self._encode(batch)
        if batch.number not in self._encoded:
            made = self._source.made(batch.number, len(batch.sdr)).to(self.lumivid.device)
            self._encoded[batch.number] = self._encode(made)
        return self._encoded[batch.number]

    @torch.no_grad()
    def _encode(self, batch: Clips) -> Encoded:
        plate = None
        with torch.autocast(batch.sdr.device.type, enabled=False):  # half precision bands codes
            latents, reference = (self.lumivid.encode(codes) for codes in (batch.hdr, self.lumivid.shown(batch.sdr)))
            if self.lumivid.config.from_plate:
                curve = TRANSFORMS[self._source.transform]
                plate = self.lumivid.encode(curve.encode(light_of_sdr(batch.sdr)))
        clipped = (batch.sdr.amax(dim=1, keepdim=True) >= float(CLIPPED_CODE)).float()
        first, rest = (
            F.adaptive_avg_pool3d(part, (count, latents.shape[3], latents.shape[4]))
            for part, count in ((clipped[:, :, :1], 1), (clipped[:, :, 1:], latents.shape[2] - 1))
        )
        return Encoded(latents, reference, plate, torch.cat([first, rest], dim=2)[:, 0])

    def _mixed(self, device: torch.device) -> AbstractContextManager[object]:
        """What lets float32 weights work among frozen ones of half precision."""
        return nullcontext() if self._frozen == torch.float32 else torch.autocast(device.type, self._frozen)


@torch.no_grad()
def channel_changes(model: LumiVid, latents: Tensor) -> Tensor:
    """The mean squared change of the decoded codes by a step of CHANGE deviations in each channel of latents, (C,)."""
    plain, found = model.decode(latents), list[Tensor]()
    signs = torch.randn(latents[:, 0].shape, generator=torch.Generator().manual_seed(3)).sign().to(latents)
    for channel in range(latents.shape[1]):
        moved = latents.clone()
        moved[:, channel] += CHANGE * signs
        found.append((model.decode(moved) - plain).square().mean())
    return torch.stack(found)


def posterior_of(vae: AutoencoderKLLTX2Video, pictures: Tensor) -> DiagonalGaussianDistribution:
    """What a VAE makes of clips (B, 3, F, H, W) in [-1, 1]."""
    return vae.encode(pictures).latent_dist  # pyright: ignore[reportAttributeAccessIssue]


def decoded(vae: AutoencoderKLLTX2Video, latents: Tensor) -> Tensor:
    """The clips of latents, not limited."""
    return vae.decode(latents).sample  # pyright: ignore[reportAttributeAccessIssue]


def shifted_levels(count: int, tokens: int) -> Tensor:
    """Levels of noise in [0.001, 1]: a logit-normal that leans towards noise the more tokens there are, stretched, and
    a tenth of them uniform.
    """
    (few, low), (many, high) = SHIFTS
    mean = low + (high - low) * (tokens - few) / (many - few)
    found = torch.sigmoid(mean + torch.randn(count))
    ends = torch.sigmoid(mean + torch.tensor(PERCENTILES))
    stretched = ((found - ends[0]) / (ends[1] - ends[0])).clamp(LEAST, 1)
    return torch.where(torch.rand(count) < UNIFORM, LEAST + (1 - LEAST) * torch.rand(count), stretched)


def light_of_sdr(codes: Tensor) -> Tensor:
    """Linear Rec.709 light of BT.709 codes on a BT.1886 display."""
    return codes.clamp(0, 1) ** DISPLAY_GAMMA


def _stops(light: Tensor) -> Tensor:
    """Light (B, 3, F, H, W) as luminance in stops."""
    luminance = torch.einsum("bcfhw,c->bfhw", light.float(), torch.from_numpy(LUMINANCE).to(light.device))
    return torch.log2(luminance.clamp(min=0) + FLOOR)


def _weighed(terms: Mapping[str, Tensor], weights: Weights, held: float) -> tuple[Tensor, dict[str, float]]:
    total = torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()
    return total, {**{name: float(term.detach()) for name, term in terms.items()}, "held": held}


@contextmanager
def _swapped(live: Trained, other: Trained) -> Generator[None]:
    """While this holds, a network's trained parameters have another set's values."""
    pairs = list(zip(live.parameters(), other.parameters(), strict=True))

    def swap() -> None:
        for one, two in pairs:
            one.data, two.data = two.data, one.data

    swap()
    try:
        yield
    finally:
        swap()


def config_of(recipe: Recipe) -> LumiVidConfig:
    """The configuration that a recipe names. Raises BadParameter."""
    if recipe.config not in CONFIGS:
        raise BadParameter(f"LumiVid has no configuration {recipe.config!r}; there are: {', '.join(CONFIGS)}")
    return CONFIGS[recipe.config]


def start(recipe: Recipe, stage: str, base: Path | None, dtype: torch.dtype = torch.float32) -> LumiVid:
    """The networks that a stage of the flow starts from: on the VAE in `base` a new transformer (`backbone`), or an
    adapter on the one in `base` (`lora`), with what stays frozen in `dtype`. Raises BadInput, BadParameter.
    """
    if stage not in STAGES[1:] or base is None:
        raise BadParameter(
            f"lumivid trains {', '.join(STAGES)}, and all but the first start from a --base; got {stage!r}"
        )
    config, vae = config_of(recipe), load_vae(config_of(recipe), base).eval()
    if stage == "backbone":
        sizes = config.transformer.width, config.transformer.audio_width
        contexts = tuple(torch.randn(1, CONTEXT_TOKENS, size) * 0.02 for size in sizes)
        transformer = LTX2VideoTransformer3DModel(**config.transformer_arguments())
        model = LumiVid(config, transformer, vae, None, (contexts[0], contexts[1]))
        if config.from_plate:
            nn.init.zeros_(transformer.proj_out.weight)
            nn.init.zeros_(transformer.proj_out.bias)
        vae.requires_grad_(requires_grad=False)
        model.video_context.requires_grad_()
    else:
        transformer = load_transformer(config, base, dtype)
        paths = _adapted(transformer, ADAPTED)
        add_adapter(transformer, dict.fromkeys(paths, max(1, int(Weights(**recipe.weights).rank))))
        for name, parameter in transformer.named_parameters():
            if ".lora_" in name:  # half precision would round small steps away
                parameter.data = parameter.data.float()
        model = LumiVid(config, transformer, vae, None, load_contexts(config, base / SCENE_FILE))
    if config.transformer.layers > KEPT_BLOCKS:
        transformer.enable_gradient_checkpointing()
    return model


def _adapted(transformer: LTX2VideoTransformer3DModel, names: Sequence[str]) -> list[str]:
    """The paths of the modules of every block that the published IC-LoRA adapts."""
    return [f"transformer_blocks.{n}.{name}" for n in range(len(transformer.transformer_blocks)) for name in names]


def train_lumivid(
    recipe: Recipe,
    stage: str,
    source: ClipSource,
    run: Path,
    base: Path | None,
    report: Callable[[str], None],
    devices: Devices = ONE_CPU,
) -> Position:
    """Train a stage, or resume it, in `run`, from `base`. Raises BadInput, BadParameter."""
    torch.manual_seed(recipe.schedule.seed)
    weights = Weights(**recipe.weights)
    if stage == "vae":
        vae = new_vae(recipe)
        if not (run / CHECKPOINT).exists():
            report(f"fitting {START_CLIPS} clips, layer by layer")
            start_linear(vae, start_clips(source))
        return train(VAETask(vae, source, weights), recipe.schedule, run, report, devices)
    frozen = torch.bfloat16 if devices.precision == "bf16" and stage == "lora" else torch.float32
    task = FlowTask(start(recipe, stage, base, frozen), source, weights, frozen)
    return train(task, recipe.schedule, run, report, devices)


def new_vae(recipe: Recipe) -> AutoencoderKLLTX2Video:
    """A new VAE of a recipe's configuration."""
    return AutoencoderKLLTX2Video(**config_of(recipe).vae.arguments())


def start_clips(source: ClipSource) -> Tensor:
    """The clips that a new VAE is fitted to, (N, 3, F, H, W) in [-1, 1]: of half of them the SDR, of half the HDR."""
    plain, half = replace(source, pool=0), START_CLIPS // 2
    batches = [plain(np.random.default_rng((23, index)), half) for index in range(2)]
    return 2 * torch.cat([batches[0].sdr, batches[1].hdr]) - 1


def best_vae(recipe: Recipe, run: Path) -> AutoencoderKLLTX2Video:
    """A run's averaged VAE at its lowest held-out error. Raises BadInput where it has none yet."""
    vae = new_vae(recipe)
    load_weights(vae, _best(run))
    return vae.eval()


def best_flow(recipe: Recipe, stage: str, run: Path, base: Path) -> LumiVid:
    """A run's averaged weights at their lowest held-out error, in place. Raises BadInput where it has none yet."""
    weights = _best(run)
    model = start(recipe, stage, base)
    load_weights(Trained({name: p for name, p in model.named_parameters() if p.requires_grad}), weights)
    return model.eval()


def _best(run: Path) -> Path:
    weights = run / "best.safetensors"
    if not weights.is_file():
        raise BadInput(f"{weights} is missing; train first, into {run}")
    return weights
