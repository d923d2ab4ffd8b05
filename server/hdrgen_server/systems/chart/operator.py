"""The test chart as an operator of txt2hdr: no frame or one start picture in, one chart out.

It owns the checks of sizes and the mix with a start picture. It must not know the chart's layout, sockets, files or
torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from hdrgen_server.colour.interop import colourspace
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.contracts.operator import Progress, Request
from hdrgen_server.packs.manifest import Pack
from hdrgen_server.systems.chart.draw import draw
from hdrgen_server.systems.plain import PlainOperator
from nuke_hdrgen.wire.errors import BadInput, BadParameter

WARNING = "this is the test chart, a diagnostic: it ignores the prompt; add a pack for pictures with `hdrgen packs add`"


def create(pack: Pack, device: str) -> ChartOperator:
    """The operator of a pack; it computes in numpy whatever the device."""
    del device
    return ChartOperator(pack.descriptor)


class ChartOperator(PlainOperator):
    """Holds no weights and no state."""

    def run(self, request: Request, frames: Iterable[Frame], progress: Progress) -> Iterator[Frame]:
        """Yield one chart of `width` x `height`, with the warning that it is one.

        A start picture of that size shows through: light is mixed by `strength`. Raises BadParameter for a size that is
        not allowed or no panorama's, BadInput for a start picture of another size or more than one.
        """
        size = self._descriptor.made_size(request.parameters)
        if size is None:
            raise BadParameter("the chart needs a width and a height")
        width, height = size
        panorama = request.parameters["projection"] == "panorama"
        if panorama and width != 2 * height:
            raise BadParameter(f"a panorama is twice as wide as high, got {width} x {height}; change width or height")
        starts = list(frames)
        if len(starts) > 1:
            raise BadInput(f"the chart takes one start picture, got {len(starts)}")
        if starts and (starts[0].width, starts[0].height) != size:
            raise BadInput(
                f"the start picture is {starts[0].width} x {starts[0].height}, the chart {width} x {height}; "
                "set width and height to the picture's"
            )
        progress.step(0, 1)
        chart = draw(width, height, request.seed, panorama=panorama)
        if starts:
            strength = np.float32(request.parameters["strength"])
            chart = starts[0].rgb * (1 - strength) + chart * strength
        progress.step(1, 1)
        yield Frame(
            np.ascontiguousarray(chart, dtype=np.float32),
            ("R", "G", "B"),
            colourspace(self._descriptor.output_space),
            number=starts[0].number if starts else 0,
            metadata={"warnings": (WARNING,)},
        )
