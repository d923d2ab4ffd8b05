"""The one training loop: optimiser, schedule, weight average, checkpoints, log and resume.

It owns when things happen. It must not know what a model computes, where data comes from or what it runs on: a task
hands it a loss and a held-out error, `devices` the rest.
"""

from __future__ import annotations

import copy
import ctypes
import functools
import itertools
import json
import math
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hdrgen_server.training.devices import ONE_CPU, Devices

Report = Callable[[str], None]
AHEAD = 4
CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: AdamW with linear warm-up and cosine decay to `final_rate` of the peak rate.

    `minutes` > 0 ends the run by the clock instead of by `steps`, with the decay reaching its end at that time. Without
    steps a run is what its model starts as, checked on held-out data.
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

    def to(self, device: torch.device) -> None:
        """Move every network that the loss or the check uses; batches to `loss` lie there already."""
        ...

    def loss(self, batch: Any) -> tuple[Tensor, Mapping[str, float]]:
        """The loss to descend and its named parts, each a mean over the batch."""
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


@dataclass(frozen=True, eq=False)
class _State:
    """Everything that a checkpoint holds."""

    model: nn.Module
    average: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    position: Position


def train(task: Task, schedule: Schedule, folder: Path, report: Report, devices: Devices = ONE_CPU) -> Position:
    """Run or resume a training in `folder`; leaves `average.safetensors`, `best.safetensors` and `log.jsonl` there.

    Every step draws its batch from a generator seeded by (seed, step), and by the process's number where there are
    many, so a run that is resumed with as many processes sees the data that an unbroken one would have seen. An
    interrupt saves a checkpoint first. Only the first process validates and writes; all of them read `folder`.
    """
    torch.set_num_threads(schedule.threads)
    number = devices.number if devices.processes > 1 else None
    draw = functools.partial(make_part, task.source, schedule.seed, devices.share_of(schedule.batch), number)
    report = devices.alone(report)
    folder.mkdir(parents=True, exist_ok=True)
    task.to(devices.device)
    optimiser = torch.optim.AdamW(
        task.model.parameters(), lr=schedule.rate, weight_decay=schedule.weight_decay, betas=(0.9, 0.99)
    )
    state = _State(task.model, _copy(task.model), optimiser, devices.scaler(), Position())
    _resume(folder, state)
    position = state.position
    devices.start_alike(task.model, position.step)
    report(f"{'resuming at' if position.step else 'starting at'} step {position.step} in {folder}")
    batches = _batches(draw, position.step)
    record = _Record(task, state, schedule, folder, report) if devices.first else None
    try:
        while (progress := _progress(schedule, position)) < 1:
            figures = _step(task, state, schedule, devices, batches, progress)
            if record is not None:
                record.add(figures)
        if record is not None:
            record.end()
    finally:
        batches.close()
        if record is not None:
            record.close()
    devices.wait()
    return position


def _batches(draw: Callable[[int], Any], first: int) -> Generator[Any]:
    """Batches from one process beside this one, a few ahead."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_end_with_parent) as pool:
        ahead = deque(pool.submit(draw, first + i) for i in range(AHEAD))
        for step in itertools.count(first + AHEAD):
            batch = ahead.popleft().result()
            ahead.append(pool.submit(draw, step))
            yield batch


def _step(
    task: Task, state: _State, schedule: Schedule, devices: Devices, batches: Iterator[Any], progress: float
) -> dict[str, float]:
    """One step of the optimiser, or none where the gradient is not finite; its figures."""
    started = time.monotonic()
    position, scaler = state.position, state.scaler
    torch.manual_seed(schedule.seed * 1_000_003 + position.step + 7_368_787 * devices.number)
    for group in state.optimiser.param_groups:
        group["lr"] = rate_at(schedule, position.step, progress)
    with devices.autocast():
        loss, named = task.loss(devices.place(next(batches)))
    state.optimiser.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()
    devices.average_gradients(task.model.parameters())
    scaler.unscale_(state.optimiser)
    norm = float(nn.utils.clip_grad_norm_(task.model.parameters(), schedule.clip_norm))
    if math.isfinite(norm):
        scaler.step(state.optimiser)
        _update(state.average, task.model, min(schedule.average, (1 + position.step) / (10 + position.step)))
    scaler.update()
    figures = devices.averaged(
        {"loss": float(loss.detach()), "norm": norm, **named, "seconds": time.monotonic() - started}
    )
    position.step += 1
    position.seconds += figures.pop("seconds")
    return figures


def _end_with_parent() -> None:
    """Have Linux end this process with the training, however that ends (prctl(2), PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def make_part(source: Source, seed: int, size: int, number: int | None, step: int) -> Any:
    """A step's batch, or one of several processes' part of it: always the same for the same numbers."""
    torch.set_num_threads(1)
    return source(np.random.default_rng((seed, step) if number is None else (seed, step, number)), size)


def rate_at(schedule: Schedule, step: int, progress: float) -> float:
    """The learning rate at a step, `progress` in 0..1 being the part of the run that is done."""
    warm = min(1.0, (step + 1) / max(1, schedule.warmup))
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return schedule.rate * warm * (schedule.final_rate + (1 - schedule.final_rate) * cosine)


def _progress(schedule: Schedule, position: Position) -> float:
    if schedule.minutes > 0:
        return position.seconds / (60 * schedule.minutes)
    return position.step / schedule.steps if schedule.steps else 1.0


class _Record:
    """What the first process does beside training: the log, the held-out error, checkpoints."""

    def __init__(self, task: Task, state: _State, schedule: Schedule, folder: Path, report: Report) -> None:
        (folder / "schedule.json").write_text(json.dumps(asdict(schedule), indent=1))
        self._task, self._state, self._schedule, self._folder, self._report = task, state, schedule, folder, report
        self._log = (folder / "log.jsonl").open("a", buffering=1)
        self._parts: dict[str, list[float]] = {}

    def add(self, figures: Mapping[str, float]) -> None:
        """Take a step's figures; validate and save where it is time."""
        for name, value in figures.items():
            self._parts.setdefault(name, []).append(value)
        if self._state.position.step % self._schedule.validate_every == 0:
            self._validate()
        if self._state.position.step % self._schedule.checkpoint_every == 0:
            _save(self._folder, self._state)

    def end(self) -> None:
        """Validate what the last steps made of the model, or what it starts as where there are none, unless that was
        done.
        """
        if self._parts or not self._state.position.step:
            self._validate()

    def close(self) -> None:
        """Save, and close the log."""
        _save(self._folder, self._state)
        self._log.close()

    def _validate(self) -> None:
        average, position = self._state.average, self._state.position
        average.eval()
        with torch.inference_mode():
            held_out = dict(self._task.validate(average))
        means = {name: float(np.mean(values)) for name, values in self._parts.items()}
        self._parts.clear()
        row = {"step": position.step, "seconds": round(position.seconds, 1), **means, "held_out": held_out}
        self._log.write(json.dumps(row) + "\n")
        if held_out["error"] < position.best:
            position.best = held_out["error"]
            save_weights(average, self._folder / "best.safetensors")
        figures = ", ".join(f"{name} {value:.4g}" for name, value in held_out.items())
        loss = f"loss {means['loss']:.4f}; " if means else ""
        self._report(f"step {position.step}: {loss}held out: {figures}")


def _copy(model: nn.Module) -> nn.Module:
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


def _save(folder: Path, state: _State) -> None:
    """One file holds all of a state: a run that is killed in mid save keeps the checkpoint before."""
    tensors = {f"model.{k}": v.contiguous() for k, v in state.model.state_dict().items()}
    tensors |= {f"average.{k}": v.contiguous() for k, v in state.average.state_dict().items()}
    for index, values in state.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{k}": torch.as_tensor(v).contiguous() for k, v in values.items()}
    metadata = {k: str(v) for k, v in asdict(state.position).items()}
    if state.scaler.is_enabled():
        metadata["scaler"] = json.dumps(state.scaler.state_dict())
    temporary = folder / ".checkpoint"
    save_file(tensors, temporary, metadata=metadata)
    temporary.replace(folder / CHECKPOINT)
    save_weights(state.average, folder / "average.safetensors")


def _resume(folder: Path, state: _State) -> None:
    """Fill a state from the folder's checkpoint, where there is one."""
    path = folder / CHECKPOINT
    if not path.exists():
        return
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    state.model.load_state_dict(part("model."))
    state.average.load_state_dict(part("average."))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in part("optimiser.").items():
        index, key = name.split(".", 1)
        moments.setdefault(int(index), {})[key] = value
    state.optimiser.load_state_dict({**state.optimiser.state_dict(), "state": moments})
    if state.scaler.is_enabled() and "scaler" in metadata:
        state.scaler.load_state_dict(json.loads(metadata["scaler"]))
    state.position.step, state.position.seconds = int(metadata["step"]), float(metadata["seconds"])
    state.position.best = float(metadata["best"])
