"""LatentHDR's second stage: the head and an adapter of the generator together, on Qwen-Image's class.

It owns what is trained and the sum of both losses. It must not know the loop's mechanics, packs or the command line.
The generator learns its own rectified flow by a LoRA; the head learns on the clean latent that the generator's velocity
points to, so that each meets what the other makes. Second-hand: the document says no more than that both are trained
jointly with the diffusion's loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from hdrgen_server.systems.latenthdr.config import EV_HIGH, EV_LOW
from hdrgen_server.systems.latenthdr.head import ExposureHead
from hdrgen_server.systems.qwenlog.flow import noised
from hdrgen_server.training.captioned import Captioned, CaptionSource
from hdrgen_server.training.devices import ONE_CPU, Devices
from hdrgen_server.training.exposures import Exposures
from hdrgen_server.training.latenthdr import Encoded, HeadTask, weighed_error
from hdrgen_server.training.latenthdr import start as start_head
from hdrgen_server.training.loop import Position, load_weights, train
from hdrgen_server.training.qwen import QwenTask, Trained
from hdrgen_server.training.qwen import start as start_qwen
from hdrgen_server.training.recipe import Recipe
from nuke_hdrgen.wire.errors import BadInput

SYSTEM, STAGE = "qwenlog", "lora"
RANK = 16.0


class Joint(nn.Module):
    """What the stage trains: the head, and the adapter's tensors."""

    def __init__(self, head: ExposureHead, adapter: Trained) -> None:
        super().__init__()
        self.head, self.adapter = head, adapter


class JointTask:
    """Both as the training loop sees them. `flow` weighs the diffusion's loss against the head's."""

    def __init__(self, head: HeadTask, qwen: QwenTask, evs: int, flow: float) -> None:
        assert isinstance(head.model, ExposureHead)
        assert isinstance(qwen.model, Trained)
        self.model: nn.Module = Joint(head.model, qwen.model)
        self._head, self._qwen, self._evs, self._flow = head, qwen, evs, flow

    @property
    def qwen(self) -> QwenTask:
        """The generator's side."""
        return self._qwen

    @property
    def source(self) -> CaptionSource:
        """Where batches come from: pictures with a sentence each."""
        return self._qwen.source

    def to(self, device: torch.device) -> None:
        """Move every network."""
        self._head.to(device)
        self._qwen.to(device)

    def loss(self, batch: Captioned) -> tuple[Tensor, Mapping[str, float]]:
        """L_ev on the latent that the velocity points to, weighted by how clean its start was, and L_diff."""
        encoded = self._encoded(batch)
        latents = encoded.base
        level = torch.sigmoid(torch.randn(len(latents), device=latents.device))
        at = level[:, None, None, None]
        noise = torch.randn_like(latents)
        point = noised(latents, noise, at)
        found = self._qwen.velocity(point, level, batch.prompts, batch.panorama)
        flow = (found - (noise - latents)).square().mean()
        clean = point - at * found
        weighted = Encoded(clean, encoded.exposures, encoded.evs, encoded.weight * (1 - at[:, None]).square())
        assert isinstance(self.model, Joint)
        means = weighed_error(self.model.head, clean, weighted, around=batch.panorama)
        figures = {"means": float(means.detach()), "flow": float(flow.detach()), "held": float(batch.held)}
        return means + self._flow * flow, figures

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        """Held-out figures of both; `error` is the sum that is trained on, of clean latents."""
        assert isinstance(model, Joint)
        head, flow = self._head.validate(model.head), self._qwen.validate(model.adapter)
        total = head["error"] + self._flow * flow["error"]
        return {"error": total, "means": head["error"], "gain_db": head["gain_db"], "flow": flow["error"]}

    def _encoded(self, batch: Captioned) -> Encoded:
        evs = EV_LOW + (EV_HIGH - EV_LOW) * torch.rand(len(batch.light), self._evs, device=batch.light.device)
        return self._head.encode(Exposures(batch.light, batch.light.clamp(0, 1), evs))


def start(recipe: Recipe, folder: Path, base: Path, source: CaptionSource, head: Path | None) -> JointTask:
    """A trained head, `head` its weights' file, and a new adapter on the transformer in `base`. Raises BadInput for a
    base that does not draw.
    """
    if not (base / "transformer").is_dir():
        raise BadInput(f"{base} has no transformer/ to train; stage joint needs a folder of Qwen-Image that draws")
    heads = start_head(recipe, folder, base)
    if head is not None:
        load_weights(heads.model, head)
    adapted = replace(recipe, weights={"rank": recipe.weights.get("rank", RANK)})
    qwen = start_qwen(SYSTEM, adapted, STAGE, base, source)
    return JointTask(heads, qwen, int(recipe.pictures.get("evs", 4)), recipe.weights.get("flow", 1.0))


def train_joint(
    recipe: Recipe,
    folder: Path,
    run: Path,
    base: Path,
    head: Path,
    report: Callable[[str], None],
    devices: Devices = ONE_CPU,
) -> Position:
    """Train head and adapter, or resume them, in `run`, from a head's run."""
    torch.manual_seed(recipe.schedule.seed)
    task = start(recipe, folder, base, CaptionSource(folder, recipe.crop), head / "best.safetensors")
    return train(task, recipe.schedule, run, report, devices)


def best_joint(recipe: Recipe, folder: Path, run: Path, base: Path) -> JointTask:
    """A run's averaged weights at their lowest held-out error, in place. Raises BadInput where it has none yet."""
    weights = run / "best.safetensors"
    if not weights.is_file():
        raise BadInput(f"{weights} is missing; train first, into {run}")
    task = start(recipe, folder, base, CaptionSource(folder, recipe.crop), None)
    load_weights(task.model, weights)
    return task
