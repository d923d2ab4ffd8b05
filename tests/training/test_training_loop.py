"""The training loop: resume, interrupt, the clock, and checkpoints that survive a crash."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hdrgen_server.training import loop
from hdrgen_server.training.loop import Schedule, rate_at, save_weights, train

STEPS = Schedule(steps=8, batch=4, warmup=2, rate=1e-2, validate_every=4, checkpoint_every=4)


def points(rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
    """A batch of a line with noise."""
    x = rng.standard_normal((size, 3)).astype(np.float32)
    return torch.from_numpy(x), torch.from_numpy(x @ np.array([[1.0], [-2.0], [0.5]], np.float32))


class LineTask:
    """Fits a line through a small network with dropout, so that torch's own randomness counts too."""

    def __init__(self, interrupt_at: int = -1, broken_at: int = -1) -> None:
        torch.manual_seed(3)
        self.model: nn.Module = nn.Sequential(nn.Linear(3, 16), nn.Dropout(0.2), nn.Linear(16, 1))
        self.source = points
        self.calls, self.interrupt_at, self.broken_at = 0, interrupt_at, broken_at

    def to(self, device: torch.device) -> None:
        self.model.to(device)

    def loss(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Mapping[str, float]]:
        self.calls += 1
        if self.calls == self.interrupt_at:
            raise KeyboardInterrupt
        error = (self.model(batch[0]) - batch[1]).square().mean()
        if self.calls == self.broken_at:
            error = error * torch.nan
        return error, {"squared": float(error.detach())}

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        assert not model.training
        x, y = points(np.random.default_rng(99), 64)
        return {"error": float((model(x) - y).square().mean().detach())}


def silent(text: str) -> None:
    del text


def states(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "checkpoint.safetensors") | {
        f"file.{name}": t for name, t in load_file(folder / "average.safetensors").items()
    }


def assert_same(a: Path, b: Path) -> None:
    first, second = states(a), states(b)
    assert set(first) == set(second)
    assert any(name.startswith("optimiser.") for name in first)
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.usefixtures("same_process")
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(tmp_path: Path) -> None:
    assert train(LineTask(), STEPS, tmp_path / "whole", silent).step == 8
    task = LineTask(interrupt_at=6)
    with pytest.raises(KeyboardInterrupt):
        train(task, STEPS, tmp_path / "parts", silent)
    lines: list[str] = []
    position = train(LineTask(), STEPS, tmp_path / "parts", lines.append)
    assert lines[0].startswith("resuming at step 5")
    assert position.step == 8
    assert_same(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.usefixtures("same_process")
def test_an_interrupt_saves_what_was_done(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(LineTask(interrupt_at=3), STEPS, tmp_path, silent)
    model = LineTask().model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    saved = {k.removeprefix("model."): v for k, v in states(tmp_path).items() if k.startswith("model.")}
    assert not torch.equal(saved["0.weight"], before["0.weight"])
    assert train(LineTask(), Schedule(steps=2, checkpoint_every=1), tmp_path, silent).step == 2


@pytest.mark.usefixtures("same_process")
def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    train(LineTask(), STEPS, tmp_path, silent)
    before = states(tmp_path)
    task = LineTask()
    train(task, STEPS, tmp_path, silent)
    assert task.calls == 0
    assert all(torch.equal(before[name], tensor) for name, tensor in states(tmp_path).items())


@pytest.mark.usefixtures("same_process")
def test_minutes_end_the_run_and_the_decay_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10**6, 2))
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(clock)))
    rates: list[float] = []

    def recorded(schedule: Schedule, step: int, progress: float) -> float:
        rates.append(rate_at(schedule, step, progress))
        return rates[-1]

    monkeypatch.setattr(loop, "rate_at", recorded)
    schedule = Schedule(steps=1, minutes=1.0, rate=1e-2, warmup=1, batch=2, validate_every=10, checkpoint_every=50)
    position = train(LineTask(), schedule, tmp_path, silent)
    assert (position.step, position.seconds) == (30, 60.0)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.05 * rates[0]


@pytest.mark.usefixtures("same_process")
def test_a_crash_in_mid_save_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(LineTask(), STEPS, tmp_path, silent)
    before = states(tmp_path)

    def torn(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
        del tensors, metadata
        Path(path).write_bytes(b"half a file")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_file", torn)
        with pytest.raises(OSError, match="disk full"):
            train(LineTask(), Schedule(steps=12, batch=4, checkpoint_every=10), tmp_path, silent)
    assert all(torch.equal(before[name], tensor) for name, tensor in states(tmp_path).items())
    assert train(LineTask(), Schedule(steps=9, batch=4), tmp_path, silent).step == 9


@pytest.mark.usefixtures("same_process")
def test_the_log_and_the_best_weights_follow_the_held_out_error(tmp_path: Path) -> None:
    schedule = Schedule(steps=60, batch=16, warmup=1, rate=3e-2, validate_every=20, average=0.9)
    position = train(LineTask(), schedule, tmp_path, silent)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [20, 40, 60]
    errors = [row["held_out"]["error"] for row in rows]
    assert errors[-1] < 0.5 * errors[0]
    assert position.best == min(errors)
    assert {"loss", "norm", "squared", "seconds"} <= set(rows[0])
    best = LineTask()
    best.model.load_state_dict(load_file(tmp_path / "best.safetensors"))
    assert best.validate(best.model.eval())["error"] == pytest.approx(min(errors), rel=1e-5)
    assert json.loads((tmp_path / "schedule.json").read_text())["steps"] == 60


@pytest.mark.usefixtures("same_process")
def test_a_step_whose_gradient_is_not_finite_changes_nothing(tmp_path: Path) -> None:
    task = LineTask(broken_at=1)
    before = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    assert train(task, Schedule(steps=1, batch=2), tmp_path, silent).step == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in task.model.state_dict().items())


def test_the_rate_warms_up_and_decays() -> None:
    schedule = Schedule(steps=100, rate=1.0, warmup=10, final_rate=0.1)
    assert rate_at(schedule, 0, 0.0) == pytest.approx(0.1)
    assert rate_at(schedule, 9, 0.0) == pytest.approx(1.0)
    assert rate_at(schedule, 50, 0.5) == pytest.approx(0.55)
    assert rate_at(schedule, 100, 1.0) == pytest.approx(0.1)
    assert math.isclose(rate_at(schedule, 999, 3.0), 0.1)


def test_weights_can_be_saved_in_half(tmp_path: Path) -> None:
    save_weights(LineTask().model, tmp_path / "w.safetensors", half=True)
    assert {t.dtype for t in load_file(tmp_path / "w.safetensors").values()} == {torch.float16}
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


@pytest.mark.usefixtures("same_process")
def test_the_last_steps_are_validated_too(tmp_path: Path) -> None:
    for steps, wanted in ((2, [2]), (6, [2, 4, 6]), (8, [2, 4, 6, 8])):
        train(LineTask(), replace(STEPS, steps=steps), tmp_path, silent)
        assert (tmp_path / "best.safetensors").is_file()
        assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == wanted


@pytest.mark.usefixtures("same_process")
def test_without_steps_a_run_is_its_start_checked_once(tmp_path: Path) -> None:
    task, lines = LineTask(), list[str]()
    before = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    assert train(task, replace(STEPS, steps=0), tmp_path, lines.append).step == 0
    assert task.calls == 0
    for name, tensor in load_file(tmp_path / "best.safetensors").items():
        assert torch.equal(tensor, before[name]), name
    assert lines[-1].startswith("step 0: held out: error ")
    assert train(LineTask(), STEPS, tmp_path, silent).step == 8
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == [0, 4, 8]
