"""What every system that makes pictures from prompts agrees on: sizes, projections and start pictures.

It must not know any one of them, nor torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from hdrgen_server.contracts.descriptor import Descriptor, Value
from hdrgen_server.contracts.frame import Frame
from nuke_hdrgen.wire.errors import BadInput, BadParameter

Float32 = npt.NDArray[np.float32]
PANORAMA = "panorama"
MOST_KEPT = 0.8
"""A start picture of another shape loses what is outside the result's; a fifth of it at most."""


def asked_size(descriptor: Descriptor, parameters: Mapping[str, Value]) -> tuple[int, int]:
    """(width, height) of the picture. Raises BadParameter for a size that is not allowed, or no panorama's."""
    size = descriptor.made_size(parameters)
    if size is None:
        raise BadParameter(f"{descriptor.system} needs a width and a height")
    width, height = size
    if parameters["projection"] == PANORAMA and width != 2 * height:
        raise BadParameter(f"a panorama is twice as wide as high, got {width} x {height}; change width or height")
    return size


def start_frame(frames: Iterable[Frame], size: tuple[int, int]) -> Frame | None:
    """The start picture, if there is one, cut in the middle to the result's shape where it has nearly that.

    It may be larger or smaller. Raises BadInput for more than one, another shape, NaN or Inf.
    """
    starts = list(frames)
    if not starts:
        return None
    if len(starts) > 1:
        raise BadInput(f"a prompt takes one start picture, got {len(starts)}")
    frame = starts[0]
    width, height = size
    kept_width, kept_height = (
        min(frame.width, frame.height * width / height),
        min(frame.height, frame.width * height / width),
    )
    if kept_width * kept_height < MOST_KEPT * frame.width * frame.height:
        raise BadInput(
            f"the start picture is {frame.width} x {frame.height}, the result {width} x {height}; "
            "set width and height to its shape, or crop it"
        )
    if not np.isfinite(frame.rgb).all():
        raise BadInput("the start picture holds NaN or Inf; clean it first")
    rows, columns = round(kept_height), round(kept_width)
    top, left = (frame.height - rows) // 2, (frame.width - columns) // 2
    if (rows, columns) == (frame.height, frame.width):
        return frame
    return frame.with_pixels(
        frame.pixels[top : top + rows, left : left + columns], data_window=None, display_window=None, layers={}
    )
