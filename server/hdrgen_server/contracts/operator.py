"""The seam between the worker and a system: a request goes in with frames, frames come out.

It owns the protocol only. It must not know torch, sockets or files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from hdrgen_server.contracts.descriptor import Descriptor, Value
from hdrgen_server.contracts.frame import Frame


@dataclass(frozen=True)
class Request:
    """One job as a system sees it: parameters are already resolved against the descriptor."""

    operation: str
    parameters: Mapping[str, Value] = field(default_factory=dict[str, Value])
    seed: int = 0
    quality: str = "draft"
    frame_count: int = 1
    aovs: bool = False


class Progress(Protocol):
    """How a system reports and learns of cancel; both cost next to nothing to call."""

    def step(self, done: int, total: int, frame: int = 0) -> None:
        """Report `done` of `total` steps or tiles of frame index `frame`; raises Cancelled once the job is."""
        ...


class Operator(Protocol):
    """A loaded pack that can run jobs. Built by `create(pack, device)` in `systems/<name>/operator.py`."""

    @property
    def descriptor(self) -> Descriptor:
        """What this operator says about itself."""
        ...

    def run(self, request: Request, frames: Iterable[Frame], progress: Progress) -> Iterator[Frame]:
        """Yield result frames, pulling input frames as they are needed.

        Frames come in the descriptor's `input_space` (or encoded, as their colourspace says) and leave scene-linear
        in its `output_space`. Extra outputs are layers of the result. Raises Cancelled through `progress`.
        """
        ...

    def set_rung(self, rung: int) -> None:
        """Set the rung of the memory ladder: 0 normal, 1 caches freed, 2 smaller tiles, 3 offload."""
        ...
