"""What SDR2HDR systems without weights share: a fixed function of each pixel, mid-grey put back, in bands of rows.

It must not know any one of them, nor torch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from hdrgen_server.colour.interop import colourspace
from hdrgen_server.colour.ocio import convert
from hdrgen_server.contracts.descriptor import Value
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.contracts.operator import Progress, Request
from hdrgen_server.systems.plain import PlainOperator
from hdrgen_server.systems.sdr2hdr import MID_GREY, result_of, sdr_plate

Expand = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
"""Linear light (..., 3) in the system's output primaries, 1.0 at SDR white, to the light before the tone curve."""
BAND_PIXELS = 1 << 16


class CurveOperator(PlainOperator):
    """Holds no weights and no state; each frame stands alone."""

    @abstractmethod
    def expansion(self, parameters: Mapping[str, Value]) -> Expand:
        """The function that the parameters choose. Raises BadParameter."""
        raise NotImplementedError

    def run(self, request: Request, frames: Iterable[Frame], progress: Progress) -> Iterator[Frame]:
        """Yield one result a frame in the system's output space, neutral mid-grey 0.18 staying where the plate has it.

        Alpha, layers, windows and metadata pass; what was clipped is counted, `aovs` adds `hdrgen.generated` and
        `hdrgen.clipped`. Raises BadInput for plates that are no SDR, and what `expansion` raises.
        """
        expand = _anchored(self.expansion(request.parameters))
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


def _anchored(expand: Expand) -> Expand:
    scale = MID_GREY / float(expand(np.full(3, MID_GREY))[1])
    return lambda light: expand(light) * scale


def _bands(height: int, width: int) -> list[slice]:
    rows = max(1, BAND_PIXELS // width)
    return [slice(top, min(top + rows, height)) for top in range(0, height, rows)]
