"""One of several processes that train a line together, as `torchrun` starts it: its folder is the one argument."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hdrgen_server.training import loop
from hdrgen_server.training.devices import open_devices
from hdrgen_server.training.loop import Schedule, make_part, train
from tests.training.test_training_loop import LineTask, points, silent

SEED, PART = 5, 3
STEPS = Schedule(steps=4, batch=2 * PART, warmup=1, rate=1e-2, validate_every=2, checkpoint_every=2, seed=SEED)


class EvenTask(LineTask):
    """Without dropout, which differs between processes on purpose."""

    def __init__(self, interrupt_at: int = -1) -> None:
        super().__init__(interrupt_at)
        self.model.get_submodule("1").p = 0.0


def both_parts(rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
    """What two processes make for the first step, as one batch."""
    del rng
    parts = [make_part(points, SEED, size // 2, number, 0) for number in range(2)]
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


def main(folder: Path) -> None:
    """One step into `one`, four into `whole`, and four with an interrupt after the third into `parts`.

    Without processes that make batches, which take seconds to start.
    """
    loop._batches = lambda draw, first: (draw(step) for step in count(first))
    with open_devices("cpu") as devices:
        train(EvenTask(), replace(STEPS, steps=1), folder / "one", silent, devices)
        position = train(EvenTask(), STEPS, folder / "whole", silent, devices)
        with suppress(KeyboardInterrupt):
            train(EvenTask(interrupt_at=4), STEPS, folder / "parts", silent, devices)
        devices.wait()
        train(EvenTask(), STEPS, folder / "parts", silent, devices)
        said = {"number": devices.number, "processes": devices.processes, "seconds": position.seconds}
        (folder / f"process-{devices.number}.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
