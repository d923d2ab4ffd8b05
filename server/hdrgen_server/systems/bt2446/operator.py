"""The inverse tone mappings of BT.2446 as an operator.

It owns what their parameters choose. It must not know the formulas, sockets, files or torch.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from hdrgen_server.contracts.descriptor import Value
from hdrgen_server.packs.manifest import Pack
from hdrgen_server.systems.bt2446.expand import TABLE_NITS, method_a, method_c
from hdrgen_server.systems.curve import CurveOperator, Expand
from nuke_hdrgen.wire.errors import BadParameter


def create(pack: Pack, device: str) -> BT2446Operator:
    """The operator of a pack; it computes in numpy whatever the device."""
    del device
    return BT2446Operator(pack.descriptor)


class BT2446Operator(CurveOperator):
    """Method A or C."""

    def expansion(self, parameters: Mapping[str, Value]) -> Expand:
        """The chosen method. Raises BadParameter for a peak that method c would ignore."""
        method, peak_nits = str(parameters["method"]), float(parameters["peak_nits"])
        if method == "c" and peak_nits != TABLE_NITS:
            raise BadParameter(f"method c has one fixed curve; leave peak_nits at {TABLE_NITS:g}, or use method a")
        return method_c if method == "c" else functools.partial(method_a, peak_nits=peak_nits)
