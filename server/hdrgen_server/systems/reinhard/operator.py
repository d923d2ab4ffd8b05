"""The inverse of Reinhard's tone curve as an operator.

It owns what its parameters choose. It must not know the formulas, sockets, files or torch.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from hdrgen_server.contracts.descriptor import Value
from hdrgen_server.packs.manifest import Pack
from hdrgen_server.systems.curve import CurveOperator, Expand
from hdrgen_server.systems.reinhard.expand import expand

SDR_NITS = 100.0


def create(pack: Pack, device: str) -> ReinhardOperator:
    """The operator of a pack; it computes in numpy whatever the device."""
    del device
    return ReinhardOperator(pack.descriptor)


class ReinhardOperator(CurveOperator):
    """One curve, chosen by the light that it brings to white."""

    def expansion(self, parameters: Mapping[str, Value]) -> Expand:
        """The inverse curve for the parameter `peak_nits`."""
        return functools.partial(expand, white=float(parameters["peak_nits"]) / SDR_NITS)
