"""The inverse tone mappings as an operator: SDR plates in, one scene-linear frame out for each.

It owns the scale that keeps mid-grey and the work in bands of rows. It must not know the formulas, sockets, files or
torch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from hdrgen_server.colour.interop import colourspace
from hdrgen_server.colour.ocio import convert
from hdrgen_server.contracts.descriptor import Value
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.contracts.operator import Progress, Request
from hdrgen_server.packs.manifest import Pack
from hdrgen_server.systems.bt2446.expand import TABLE_NITS, method_a, method_c
from hdrgen_server.systems.plain import PlainOperator
from hdrgen_server.systems.sdr2hdr import MID_GREY, result_of, sdr_plate
from nuke_hdrgen.wire.errors import BadParameter

Expand = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
BAND_PIXELS = 1 << 16


def create(pack: Pack, device: str) -> BT2446Operator:
    """The operator of a pack; it computes in numpy whatever the device."""
    del device
    return BT2446Operator(pack.descriptor)


class BT2446Operator(PlainOperator):
    """Holds no weights and no state; each frame stands alone."""

    def run(self, request: Request, frames: Iterable[Frame], progress: Progress) -> Iterator[Frame]:
        """Yield one result a frame, linear Rec.2020, neutral mid-grey 0.18 staying where the plate has it.

        Alpha, layers, windows and metadata pass; what was clipped is counted, `aovs` adds `hdrgen.generated` and
        `hdrgen.clipped`. Raises BadInput for plates that are no SDR, BadParameter for a peak that method c would
        ignore.
        """
        expand = _anchored(request.parameters)
        space = colourspace(self._descriptor.output_space)
        for index, frame in enumerate(frames):
            plate = sdr_plate(frame, request.parameters)
            light_hwc = convert(plate.codes, space).rgb
            expanded_hwc = np.empty_like(light_hwc)
            bands = _bands(frame.height, frame.width)
            for done, rows in enumerate(bands):
                progress.step(done, len(bands), index)
                expanded_hwc[rows] = expand(light_hwc[rows].astype(np.float64))
            progress.step(len(bands), len(bands), index)
            yield result_of(frame, plate, expanded_hwc, space, aovs=request.aovs)


def _anchored(parameters: Mapping[str, Value]) -> Expand:
    """The chosen method, scaled so that neutral mid-grey stays."""
    method, peak_nits = str(parameters["method"]), float(parameters["peak_nits"])
    if method == "c" and peak_nits != TABLE_NITS:
        raise BadParameter(f"method c has one fixed curve; leave peak_nits at {TABLE_NITS:g}, or use method a")
    expand: Expand = method_c if method == "c" else functools.partial(method_a, peak_nits=peak_nits)
    scale = MID_GREY / float(expand(np.full(3, MID_GREY))[1])
    return lambda light: expand(light) * scale


def _bands(height: int, width: int) -> list[slice]:
    rows = max(1, BAND_PIXELS // width)
    return [slice(top, min(top + rows, height)) for top in range(0, height, rows)]
