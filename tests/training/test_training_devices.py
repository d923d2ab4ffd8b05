"""Many processes train as one does, and mixed precision trains, resumes and survives an overflow; all on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from safetensors import safe_open
from safetensors.torch import load_file

from hdrgen_server.training.devices import ONE_CPU, Devices, open_devices
from hdrgen_server.training.loop import Schedule, train
from nuke_hdrgen.wire.errors import BadParameter
from tests.training import two_processes
from tests.training.test_training_loop import LineTask, assert_same, silent, states
from tests.training.two_processes import EvenTask, both_parts

ROOT = Path(__file__).parents[2]
BF16, FP16 = (replace(ONE_CPU, precision=name) for name in ("bf16", "fp16"))
SHORT = Schedule(steps=60, batch=16, warmup=1, rate=3e-2, validate_every=20, average=0.9)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two processes that trained together over gloo."""
    folder = tmp_path_factory.mktemp("together")
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "server")))
    }  # fmt: skip
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", two_processes.__file__]
    subprocess.run([sys.executable, *command, str(folder)], env=environment, check=True, capture_output=True)
    return folder


@pytest.mark.usefixtures("same_process")
def test_two_processes_with_half_a_batch_step_as_one_with_the_whole(together: Path, tmp_path: Path) -> None:
    """Within float32's rounding of a mean in another order: 1e-6 of the gradient's and the weights' size."""
    task = EvenTask()
    task.source = both_parts
    train(task, replace(two_processes.STEPS, steps=1), tmp_path, silent)
    alone, shared = states(tmp_path), states(together / "one")
    assert alone.keys() == shared.keys()
    fresh = EvenTask().model.state_dict()
    for name, tensor in alone.items():
        torch.testing.assert_close(shared[name], tensor, rtol=1e-6, atol=1e-7)
        if name.startswith("model."):
            assert not torch.equal(tensor, fresh[name.removeprefix("model.")])


def test_each_process_draws_its_own_part_and_one_writes(together: Path) -> None:
    said = [json.loads((together / f"process-{number}.json").read_text()) for number in range(2)]
    assert [(s["number"], s["processes"]) for s in said] == [(0, 2), (1, 2)]
    assert said[0]["seconds"] == said[1]["seconds"] > 0  # so that both end by the clock at the same step
    rows = [json.loads(line) for line in (together / "whole" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]
    first, second = (two_processes.make_part(two_processes.points, 5, 3, number, 0)[0] for number in range(2))
    assert not torch.equal(first, second)


def test_a_resumed_run_of_two_processes_equals_an_unbroken_one(together: Path) -> None:
    assert_same(together / "whole", together / "parts")


@pytest.mark.parametrize("devices", [BF16, FP16], ids=["bf16", "fp16"])
@pytest.mark.usefixtures("same_process")
def test_mixed_precision_trains_and_keeps_weights_in_float32(tmp_path: Path, devices: Devices) -> None:
    train(LineTask(), SHORT, tmp_path / "fp32", silent)
    train(LineTask(), SHORT, tmp_path / "mixed", silent, devices)
    errors = {
        name: [json.loads(line)["held_out"]["error"] for line in (tmp_path / name / "log.jsonl").open()]
        for name in ("fp32", "mixed")
    }
    assert errors["mixed"] != errors["fp32"]
    assert errors["mixed"][-1] < 0.5 * errors["mixed"][0]
    assert {t.dtype for t in load_file(tmp_path / "mixed" / "average.safetensors").values()} == {torch.float32}


@pytest.mark.usefixtures("same_process")
def test_the_scale_of_float16_is_resumed(tmp_path: Path) -> None:
    steps = replace(SHORT, steps=6)
    train(LineTask(), steps, tmp_path / "whole", silent, FP16)
    with pytest.raises(KeyboardInterrupt):
        train(LineTask(interrupt_at=4), steps, tmp_path / "parts", silent, FP16)
    train(LineTask(), steps, tmp_path / "parts", silent, FP16)
    assert_same(tmp_path / "whole", tmp_path / "parts")
    scalers = [scaler(tmp_path / name) for name in ("whole", "parts")]
    assert scalers[0] == scalers[1]
    assert scalers[0]["scale"] < 2.0**16  # what it starts at is too much for this line's gradients


@pytest.mark.usefixtures("same_process")
def test_an_overflow_lowers_the_scale_and_changes_no_weight(tmp_path: Path) -> None:
    task = LineTask(broken_at=1)
    before = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    train(task, replace(SHORT, steps=1), tmp_path, silent, FP16)
    assert all(torch.equal(tensor, before[name]) for name, tensor in task.model.state_dict().items())
    assert scaler(tmp_path)["scale"] == 2.0**15  # half of what it starts at


def scaler(folder: Path) -> dict[str, float]:
    with safe_open(folder / "checkpoint.safetensors", "pt") as file:
        return json.loads(file.metadata()["scaler"])


@pytest.mark.usefixtures("same_process")
def test_a_run_may_change_its_precision(tmp_path: Path) -> None:
    for steps, devices in ((2, ONE_CPU), (4, FP16), (6, BF16)):
        assert train(LineTask(), replace(SHORT, steps=steps), tmp_path, silent, devices).step == steps


def test_devices_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for device, precision, words in (
        ("tpu", "fp32", "no device 'tpu'"),
        ("cuda", "fp32", "has 0 CUDA devices"),
        ("cuda:3", "fp32", "has 0 CUDA devices"),
        ("cpu", "fp8", "there are: fp32, bf16, fp16"),
    ):
        with pytest.raises(BadParameter, match=words) as caught, open_devices(device, precision):
            pass
        assert "\n" not in caught.value.message


def test_a_process_alone_is_the_first_of_one() -> None:
    PartialState._reset_state()
    with open_devices("auto") as devices:
        assert (devices.first, devices.processes, devices.device.type) == (True, 1, "cpu")
        assert devices.share_of(7) == 7
    with pytest.raises(BadParameter, match="batch of 7 cannot be shared by 2 processes"):
        replace(ONE_CPU, processes=2).share_of(7)
