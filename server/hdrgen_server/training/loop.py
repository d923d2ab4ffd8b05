"""The one training loop: optimiser, schedule, weight average, checkpoints, log and resume.

It owns when things happen. It must not know what a model computes or where data comes from: a task hands it a loss and
a held-out error.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import math
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

Report = Callable[[str], None]
AHEAD = 4


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: AdamW with linear warm-up and cosine decay to `final_rate` of the peak rate.

    `minutes` > 0 ends the run by the clock instead of by `steps`, with the decay reaching its end at that time.
    """

    steps: int = 10_000
    minutes: float = 0.0
    rate: float = 1e-3
    final_rate: float = 0.02
    warmup: int = 100
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    average: float = 0.998
    batch: int = 6
    seed: int = 1
    threads: int = 1
    validate_every: int = 200
    checkpoint_every: int = 200


class Source(Protocol):
    """Makes batches. It is sent to another process, so it must pickle and hold little."""

    def __call__(self, rng: np.random.Generator, size: int) -> Any:
        """Make one batch; all randomness comes from `rng`."""
        ...


class Task(Protocol):
    """What a system brings to the loop."""

    model: nn.Module

    @property
    def source(self) -> Source:
        """Where batches come from."""
        ...

    def loss(self, batch: Any) -> tuple[Tensor, Mapping[str, float]]:
        """The loss to descend and its named parts."""
        ...

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        """Held-out figures of a model; `error` is the one that should fall."""
        ...


@dataclass
class Position:
    """Where a run stands."""

    step: int = 0
    seconds: float = 0.0
    best: float = math.inf


def train(task: Task, schedule: Schedule, folder: Path, report: Report) -> Position:
    """Run or resume a training in `folder`; leaves `average.safetensors`, `best.safetensors` and `log.jsonl` there.

    Every step draws its batch from a generator seeded by (seed, step), so a resumed run sees the data that an unbroken
    one would have seen. An interrupt saves a checkpoint first.
    """
    torch.set_num_threads(schedule.threads)
    folder.mkdir(parents=True, exist_ok=True)
    average = _copy(task.model)
    optimiser = torch.optim.AdamW(
        task.model.parameters(), lr=schedule.rate, weight_decay=schedule.weight_decay, betas=(0.9, 0.99)
    )
    position = _resume(folder, task.model, average, optimiser)
    (folder / "schedule.json").write_text(json.dumps(asdict(schedule), indent=1))
    report(f"{'resuming at' if position.step else 'starting at'} step {position.step} in {folder}")
    log = (folder / "log.jsonl").open("a", buffering=1)
    parts: dict[str, list[float]] = {}
    batches = _batches(task.source, schedule, position.step)
    try:
        while (progress := _progress(schedule, position)) < 1:
            started = time.monotonic()
            torch.manual_seed(schedule.seed * 1_000_003 + position.step)
            for group in optimiser.param_groups:
                group["lr"] = rate_at(schedule, position.step, progress)
            loss, named = task.loss(next(batches))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            norm = float(nn.utils.clip_grad_norm_(task.model.parameters(), schedule.clip_norm))
            if math.isfinite(norm):
                optimiser.step()
                _update(average, task.model, min(schedule.average, (1 + position.step) / (10 + position.step)))
            position.step += 1
            position.seconds += time.monotonic() - started
            for name, value in {"loss": float(loss.detach()), "norm": norm, **named}.items():
                parts.setdefault(name, []).append(value)
            if position.step % schedule.validate_every == 0:
                _validate(task, average, position, parts, folder, log.write, report)
                parts.clear()
            if position.step % schedule.checkpoint_every == 0:
                _save(folder, task.model, average, optimiser, position)
    finally:
        batches.close()
        _save(folder, task.model, average, optimiser, position)
        log.close()
    return position


def _batches(source: Source, schedule: Schedule, first: int) -> Generator[Any]:
    """Batches from one process beside this one, a few ahead."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_end_with_parent) as pool:
        ahead = deque(pool.submit(_make, source, schedule, first + i) for i in range(AHEAD))
        for step in itertools.count(first + AHEAD):
            batch = ahead.popleft().result()
            ahead.append(pool.submit(_make, source, schedule, step))
            yield batch


def _end_with_parent() -> None:
    """Have Linux end this process with the training, however that ends (prctl(2), PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _make(source: Source, schedule: Schedule, step: int) -> Any:
    torch.set_num_threads(1)
    return source(np.random.default_rng((schedule.seed, step)), schedule.batch)


def rate_at(schedule: Schedule, step: int, progress: float) -> float:
    """The learning rate at a step, `progress` in 0..1 being the part of the run that is done."""
    warm = min(1.0, (step + 1) / max(1, schedule.warmup))
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return schedule.rate * warm * (schedule.final_rate + (1 - schedule.final_rate) * cosine)


def _progress(schedule: Schedule, position: Position) -> float:
    if schedule.minutes > 0:
        return position.seconds / (60 * schedule.minutes)
    return position.step / schedule.steps


def _validate(
    task: Task,
    average: nn.Module,
    position: Position,
    parts: Mapping[str, list[float]],
    folder: Path,
    write: Callable[[str], object],
    report: Report,
) -> None:
    average.eval()
    with torch.inference_mode():
        held_out = dict(task.validate(average))
    means = {name: float(np.mean(values)) for name, values in parts.items()}
    row = {"step": position.step, "seconds": round(position.seconds, 1), **means, "held_out": held_out}
    write(json.dumps(row) + "\n")
    if held_out["error"] < position.best:
        position.best = held_out["error"]
        save_weights(average, folder / "best.safetensors")
    figures = ", ".join(f"{name} {value:.4g}" for name, value in held_out.items())
    report(f"step {position.step}: loss {means['loss']:.4f}; held out: {figures}")


def _copy(model: nn.Module) -> nn.Module:
    import copy

    average = copy.deepcopy(model)
    for parameter in average.parameters():
        parameter.requires_grad_(False)
    return average


def _update(average: nn.Module, model: nn.Module, keep: float) -> None:
    with torch.no_grad():
        for old, new in zip(average.parameters(), model.parameters(), strict=True):
            old.lerp_(new, 1 - keep)


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill a model from safetensors, in the model's own precision. Raises RuntimeError when names or shapes differ."""
    model.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})


def save_weights(model: nn.Module, path: Path, *, half: bool = False) -> None:
    """Write a model's weights as safetensors, beside the target and renamed."""
    state = {name: (t.half() if half else t).contiguous() for name, t in model.state_dict().items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(state, temporary)
    temporary.chmod(0o644)
    temporary.replace(path)


def _save(
    folder: Path, model: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer, position: Position
) -> None:
    """One file holds model, average and optimiser: a run that is killed in mid save keeps the checkpoint before."""
    state = {f"model.{k}": v.contiguous() for k, v in model.state_dict().items()}
    state |= {f"average.{k}": v.contiguous() for k, v in average.state_dict().items()}
    for index, values in optimiser.state_dict()["state"].items():
        state |= {f"optimiser.{index}.{k}": torch.as_tensor(v).contiguous() for k, v in values.items()}
    temporary = folder / ".checkpoint"
    metadata = {k: str(v) for k, v in asdict(position).items()}
    save_file(state, temporary, metadata=metadata)
    temporary.replace(folder / "checkpoint.safetensors")
    save_weights(average, folder / "average.safetensors")


def _resume(folder: Path, model: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer) -> Position:
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return Position()
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    state = load_file(path)

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

    model.load_state_dict(part("model."))
    average.load_state_dict(part("average."))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in part("optimiser.").items():
        index, key = name.split(".", 1)
        moments.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
    return Position(int(metadata["step"]), float(metadata["seconds"]), float(metadata["best"]))
