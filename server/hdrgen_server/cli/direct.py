"""Runs a pack's operator in this process, without a sidecar: for scoring and timing.

It owns nothing but the call. It must not know sockets, files or the terminal.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from hdrgen_server.contracts.descriptor import Value
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.contracts.operator import Operator, Request
from hdrgen_server.packs.manifest import Pack
from nuke_hdrgen.wire.errors import BadParameter


class Quiet:
    """Progress that nobody watches."""

    def step(self, done: int, total: int, frame: int = 0) -> None:
        """Nothing."""


def load_operator(pack: Pack, device: str) -> Operator:
    """The loaded operator of a pack. Raises BadParameter when its system has none (echo)."""
    try:
        module: Any = importlib.import_module(f"hdrgen_server.systems.{pack.system}.operator")
    except ModuleNotFoundError as error:
        raise BadParameter(f"pack {pack.name} has no operator to run; name a pack of an operation") from error
    return module.create(pack, device)


def run_operator(
    operator: Operator,
    operation: str,
    frames: Sequence[Frame],
    parameters: Mapping[str, Value],
    quality: str = "draft",
) -> list[Frame]:
    """One job: the result frames, scene-linear in the descriptor's output space."""
    resolved = operator.descriptor.resolve(parameters)
    request = Request(operation, resolved, quality=quality, frame_count=len(frames))
    return list(operator.run(request, iter(frames), Quiet()))
