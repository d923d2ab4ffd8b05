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
    """The start picture, if there is one, of the result's shape; it may be larger or smaller by whole.

    Raises BadInput for more than one, another shape, NaN or Inf.
    """
    starts = list(frames)
    if not starts:
        return None
    if len(starts) > 1:
        raise BadInput(f"a prompt takes one start picture, got {len(starts)}")
    frame = starts[0]
    width, height = size
    if abs(frame.width * height - frame.height * width) > max(width * frame.height, height * frame.width) / 50:
        raise BadInput(
            f"the start picture is {frame.width} x {frame.height}, the result {width} x {height}; "
            "set width and height to its shape, or crop it"
        )
    if not np.isfinite(frame.rgb).all():
        raise BadInput("the start picture holds NaN or Inf; clean it first")
    return frame
