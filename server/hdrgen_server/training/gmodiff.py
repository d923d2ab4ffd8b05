"""Stage one of GMODiff's training: the regressor on simulated brackets, judged on scenes that it never sees.

It owns the data mix, the held-out check and the recipe. It must not know the loop's mechanics or the command line.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hdrgen_server.evaluate.metrics import crop, pu21_psnr
from hdrgen_server.networks.nafnet import in_channels_last
from hdrgen_server.packs.add import finished_manifest
from hdrgen_server.packs.manifest import MANIFEST_NAME
from hdrgen_server.settings import load_settings
from hdrgen_server.systems.gmodiff.candidates import Bracket, weighted_merge
from hdrgen_server.systems.gmodiff.config import CONFIGS, RegressorConfig
from hdrgen_server.systems.gmodiff.losses import Distance, Weights, regression_loss
from hdrgen_server.systems.gmodiff.prepare import prepare, to_bracket
from hdrgen_server.systems.gmodiff.regressor import Regression, Regressor
from hdrgen_server.training.brackets import BORDER, PROTOCOL_MOTION, STILL, Camera, Motion, simulate
from hdrgen_server.training.devices import ONE_CPU, Devices
from hdrgen_server.training.loop import Position, load_weights, save_weights, train
from hdrgen_server.training.perceptual import load_perceptual
from hdrgen_server.training.recipe import Recipe
from hdrgen_server.training.scenes import Scene, load_scenes, scene_paths
from nuke_hdrgen.wire.errors import BadInput, BadParameter

MANIFEST = """format = 1
name = "{name}"
summary = "GMODiff's regressor: brackets of 2 to 7 exposures, moving or not."
system = "gmodiff"
size = "{config}"
preview = {preview}
licence = "Apache-2.0"

[options]
config = "{config}"
"""
CROP = 128
COUNTS = (2, 3, 3, 3, 3, 3, 4, 5)
BRIGHT = 0.7
HELD_OUT_KINDS = (
    ("still 2", 2, STILL),
    ("still 3", 3, STILL),
    ("moving 2", 2, PROTOCOL_MOTION),
    ("moving 3", 3, PROTOCOL_MOTION),
)
HELD_OUT_EACH = 6
DEFAULT_WEIGHTS = Weights()


@dataclass(frozen=True, eq=False)
class Batch:
    """Brackets of one count with their truth, scene-linear (B, 3, H, W) at the reference's exposure."""

    bracket: Bracket
    truth: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(self.bracket.to(device=device), self.truth.to(device))


@dataclass(frozen=True)
class BracketSource:
    """Makes training batches from a folder of panoramas; small enough to send to another process.

    `group` (K, N) takes the Kth of N groups of scenes only (GMODiff, Eq. 10). `shares` are the parts of the brackets
    that stand still and that move as in the protocol; the rest moves in any way.
    """

    folder: Path
    crop: int = CROP
    counts: tuple[int, ...] = COUNTS
    group: tuple[int, int] = (1, 1)
    shares: tuple[float, float] = (0.33, 0.33)

    def __call__(self, rng: np.random.Generator, size: int) -> Batch:
        """A batch of `size` brackets with one count of exposures."""
        scenes = _scenes(self.folder, False)[self.group[0] - 1 :: self.group[1]]
        count = int(rng.choice(self.counts))
        samples = [_sample(rng, scenes, count, self) for _ in range(size)]
        prepared = [prepare(list(s.codes_nhwc), s.evs, s.reference) for s in samples]
        return Batch(to_bracket(prepared), _planes([s.scene_linear_hwc for s in samples]))


@functools.lru_cache(maxsize=2)
def _scenes(folder: Path, held_out: bool) -> Sequence[Scene]:
    import cv2

    cv2.setNumThreads(1)
    return load_scenes(folder, held_out=held_out)


def _planes(images: list[np.ndarray]) -> Tensor:  # type: ignore[type-arg]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def _sample(rng: np.random.Generator, scenes: Sequence[Scene], count: int, source: BracketSource):
    spacing = float(rng.choice([1.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0, rng.uniform(1, 3.5)])) * (1.0 if count <= 3 else 0.6)
    evs = [spacing * (i - (count - 1) / 2) for i in range(count)]
    reference = int(rng.integers(count)) if rng.random() < 0.25 else count // 2
    bright = bool(rng.random() < BRIGHT)
    camera, motion = Camera.random(rng), _motion(rng, source.shares)
    return simulate(
        rng, scenes, (source.crop, source.crop), evs, reference, camera=camera, motion=motion, bright=bright
    )


def _motion(rng: np.random.Generator, shares: tuple[float, float]) -> Motion:
    """Still, as in the protocol, or any motion."""
    kind = rng.random()
    if kind < shares[0]:
        return STILL
    if kind < sum(shares):
        return PROTOCOL_MOTION
    return Motion(
        shift=float(rng.uniform(0, 12)), whole_pixels=bool(rng.random() < 0.3), roll=float(rng.uniform(0, 1.0)),
        foreground=(float(rng.uniform(0, 10)), float(rng.uniform(10, 45))), patches=int(rng.integers(0, 3)),
    )  # fmt: skip


class RegressorTask:
    """The regressor as the training loop sees it."""

    def __init__(
        self,
        config: RegressorConfig,
        folder: Path,
        weights: Weights = DEFAULT_WEIGHTS,
        crop: int = CROP,
        perceptual: Distance | None = None,
        group: tuple[int, int] = (1, 1),
    ) -> None:
        self.model: nn.Module = in_channels_last(Regressor(config))
        self.source = BracketSource(folder, crop, (3,) if config.form == "published" else COUNTS, group)
        self.weights, self.perceptual = weights, perceptual

    def to(self, device: torch.device) -> None:
        """Move the regressor and VGG."""
        move(device, self.model, self.perceptual)

    def loss(self, batch: Batch) -> tuple[Tensor, Mapping[str, float]]:
        """The regression loss of a batch."""
        regression = in_float32(self.model(batch.bracket))
        return regression_loss(regression, batch.bracket.codes[:, 0], batch.truth, self.weights, self.perceptual)

    @functools.cached_property
    def held_out(self) -> dict[str, list[Batch]]:
        """A fixed set of held-out brackets of each kind."""
        return held_out_batches(self.source.folder)

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        """Mean PU21-PSNR of each kind, and as `error` the negative of their mean."""
        device = next(model.parameters()).device

        def image(bracket: Bracket) -> Tensor:
            bracket = bracket.to(device=device)
            return model(bracket).scene_linear(bracket.codes[:, 0])

        figures = {name: mean_psnr(image, batches) for name, batches in self.held_out.items()}
        return {"error": -float(np.mean(list(figures.values()))), **figures}


def move(device: torch.device, *networks: object) -> None:
    """Move those of the networks that are there."""
    for network in networks:
        if isinstance(network, nn.Module):
            network.to(device)


def in_float32(regression: Regression) -> Regression:
    """What a regressor says, in the precision that losses need; mixed precision ends here."""
    gain, logits = regression.gain.float(), regression.mask_logits.float()
    return replace(regression, gain=gain, mask_logits=logits)


def held_out_batches(folder: Path) -> dict[str, list[Batch]]:
    """Brackets of one each, always the same, of each kind and of scenes that are never trained on."""
    scenes = _scenes(folder, True)
    sets: dict[str, list[Batch]] = {}
    for name, spacing, motion in HELD_OUT_KINDS:
        sets[name] = []
        for index in range(HELD_OUT_EACH):
            rng = np.random.default_rng((77, index))
            s = simulate(rng, scenes, (192, 192), (-spacing, 0, spacing), 1, motion=motion, bright=True)
            bracket = to_bracket([prepare(list(s.codes_nhwc), s.evs, s.reference)])
            sets[name].append(Batch(bracket, _planes([s.scene_linear_hwc])))
    return sets


def merge_figures(task: RegressorTask) -> Mapping[str, float]:
    """What the plain merge scores on the same held-out brackets."""
    return {name: mean_psnr(weighted_merge, batches) for name, batches in task.held_out.items()}


def mean_psnr(image: Callable[[Bracket], Tensor], batches: Sequence[Batch]) -> float:
    """Mean PU21-PSNR in dB of scene-linear images (1, 3, H, W) made of brackets, without the border."""
    return float(np.mean([pu21_psnr(_inner_hwc(image(b.bracket)), _inner_hwc(b.truth)) for b in batches]))


def _inner_hwc(planes: Tensor) -> npt.NDArray[np.float32]:
    return crop(planes[0].permute(1, 2, 0).float().cpu().numpy(), BORDER)


def parse_group(text: str) -> tuple[int, int]:
    """`K/N` as two numbers; all scenes where it is empty. Raises BadParameter."""
    found = re.fullmatch(r"(\d{1,3})/(\d{1,3})", text or "1/1")
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise BadParameter(f"group {text!r} must be K/N, the Kth of N groups, such as 1/3")
    return int(found[1]), int(found[2])


def train_regressor(
    recipe: Recipe,
    folder: Path,
    run: Path,
    report: Callable[[str], None],
    group: tuple[int, int] = (1, 1),
    devices: Devices = ONE_CPU,
) -> Position:
    """Train a recipe, or resume it, in the folder `run` on the panoramas of `folder`, or on one group of them.

    Raises BadInput when there are none or fewer than groups, or when the perceptual term is asked for and its weights
    are not installed.
    """
    if len(scene_paths(folder, held_out=False)) < group[1]:
        raise BadInput(f"{folder} has fewer training scenes than {group[1]} groups; use fewer groups")
    torch.manual_seed(recipe.schedule.seed)
    weights = Weights(**recipe.weights)
    perceptual = load_perceptual(load_settings().cache_folder) if weights.perceptual else None
    task = RegressorTask(CONFIGS[recipe.config], folder, weights, recipe.crop, perceptual, group)
    baseline = ", ".join(f"{name} {value:.2f}" for name, value in merge_figures(task).items())
    devices.alone(report)(f"plain merge of the aligned bracket, held out: {baseline}")
    return train(task, recipe.schedule, run, report, devices)


def write_pack(recipe: Recipe, run: Path, folder: Path) -> None:
    """Make a pack of a run's averaged weights at their lowest held-out error, in half precision.

    The folder's name becomes the pack's. A card, README.md, may lie in it already; the manifest records every file.
    Raises BadInput where the run has no weights yet.
    """
    weights = run / "best.safetensors"
    if not weights.is_file():
        raise BadInput(f"{weights} is missing; train first, into {run}")
    model = Regressor(CONFIGS[recipe.config])
    load_weights(model, weights)
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(model, folder / "regressor.safetensors", half=True)
    manifest = folder / MANIFEST_NAME
    manifest.write_text(
        MANIFEST.format(name=folder.name, config=recipe.config, preview=str(recipe.config == "s").lower()),
        encoding="utf-8",
    )
    manifest.write_bytes(finished_manifest(folder))
