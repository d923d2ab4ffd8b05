"""What a training runs on: one device, or many with a process each, and in which precision.

It owns the group of processes, what they average, and mixed precision, through accelerate and torch. It must not know
losses, data, files or the command line.

`torchrun` or `accelerate launch` start the processes and say by environment variables how many there are; a program
started without them is one process. Gradients are averaged after the backward pass rather than by a wrapper around the
model, so that a loss may call networks as often and in whatever order it likes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, reduce, send_to_device
from torch import Tensor, nn

from nuke_hdrgen.wire.errors import BadInput, BadParameter

PRECISIONS: Mapping[str, torch.dtype | None] = MappingProxyType(
    {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
)
# The other processes wait for the first one while it validates and saves.
PATIENCE = timedelta(hours=2)


@dataclass(frozen=True)
class Devices:
    """One process: its device, its number among `processes`, and the precision of matrix products and convolutions.

    Weights, their average and the optimiser stay float32 in every precision.
    """

    device: torch.device
    precision: str = "fp32"
    number: int = 0
    processes: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that validates, writes and reports."""
        return self.number == 0

    def share_of(self, batch: int) -> int:
        """How many of a batch's samples this process makes. Raises BadParameter where they cannot be shared evenly."""
        if batch % self.processes:
            raise BadParameter(
                f"a batch of {batch} cannot be shared by {self.processes} processes; start a number that divides it"
            )
        return batch // self.processes

    def autocast(self) -> AbstractContextManager[object]:
        """Mixed precision for a forward pass."""
        dtype = PRECISIONS[self.precision]
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)

    def scaler(self) -> torch.amp.GradScaler:
        """What keeps small gradients in float16's range; without effect in other precisions."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    def place(self, batch: Any) -> Any:
        """A batch, which is a tensor, has a method `to`, or is a container of such, on the device."""
        return send_to_device(batch, self.device)

    def start_alike(self, model: nn.Module, step: int) -> None:
        """Give every process the first one's weights. Raises BadInput where they stand at different steps."""
        if self.processes == 1:
            return
        if self.averaged({"step": step})["step"] != step:
            raise BadInput("the processes found different checkpoints; give a run's folder that all of them share")
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.copy_(broadcast(tensor.detach().contiguous()))

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their mean over the processes; one that a process does not have counts as zero."""
        if self.processes == 1:
            return
        owners = [p for p in parameters if p.requires_grad]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in owners]
        mean: Any = reduce(torch.cat([gradient.flatten() for gradient in gradients]), "mean")
        for owner, gradient, part in zip(owners, gradients, mean.split([g.numel() for g in gradients]), strict=True):
            owner.grad = gradient.copy_(part.view(gradient.shape))

    def averaged(self, figures: Mapping[str, float]) -> dict[str, float]:
        """The mean over the processes of figures that each has under the same names."""
        if self.processes == 1:
            return dict(figures)
        mean: Tensor | Any = reduce(torch.tensor(list(figures.values()), dtype=torch.float64, device=self.device))
        return dict(zip(figures, mean.tolist(), strict=True))

    def wait(self) -> None:
        """Until every process is here."""
        if self.processes > 1:
            PartialState().wait_for_everyone()

    def alone(self, report: Callable[[str], None]) -> Callable[[str], None]:
        """`report` in the first process, silence in the others."""
        return report if self.first else lambda text: None


ONE_CPU = Devices(torch.device("cpu"))


@contextmanager
def open_devices(device: str = "auto", precision: str = "fp32") -> Generator[Devices]:
    """The device of this process, and the group of processes that it was started in, for the length of the block.

    `device` is auto (CUDA where there is one), cpu, cuda or cuda:N. Raises BadParameter for another one, one that is
    not there, or another precision.
    """
    if precision not in PRECISIONS:
        raise BadParameter(f"there is no precision {precision!r}; there are: {', '.join(PRECISIONS)}")
    kind = re.fullmatch(r"(auto|cpu|cuda)|cuda:(\d{1,3})", device)
    if kind is None:
        raise BadParameter(f"there is no device {device!r}; give auto, cpu, cuda or cuda:N")
    found = torch.cuda.device_count()
    if device.startswith("cuda") and int(kind[2] or 0) >= found:
        raise BadParameter(f"this machine has {found} CUDA devices, so not {device}; use auto or cpu")
    state: Any = PartialState(cpu=device == "cpu" or not found, timeout=PATIENCE)
    if kind[2] and state.num_processes > 1:
        raise BadParameter(f"{device} is one device for {state.num_processes} processes; use cuda or auto")
    chosen = torch.device(device) if kind[2] else state.device
    try:
        yield Devices(chosen, precision, state.process_index, state.num_processes)
    finally:
        state.destroy_process_group()
