"""The one pixel carrier that crosses module boundaries: a frame and the colourspace that its values are in.

It owns shapes, windows and tags. It must not know files, OCIO, sockets or torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Range = Literal["scene_linear", "encoded", "data"]
Chromaticities = tuple[float, float, float, float, float, float, float, float]


@dataclass(frozen=True)
class Colourspace:
    """What pixel values mean. `name` is what the user's config calls the space; the rest says it without that config.

    `interop_id` is a Color Interop Forum id ("" when there is none); `chromaticities` are the CIE 1931 xy of red,
    green, blue and white. `range` is `scene_linear` (proportional to light, diffuse white 1.0), `encoded`
    (non-linear codes, nominally 0..1) or `data` (no colour).
    """

    name: str
    interop_id: str = ""
    chromaticities: Chromaticities | None = None
    range: Range = "scene_linear"


@dataclass(frozen=True)
class Box:
    """An inclusive pixel rectangle with y down, as EXR headers hold it."""

    x_min: int
    y_min: int
    x_max: int
    y_max: int

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.x_max - self.x_min + 1

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.y_max - self.y_min + 1

    @classmethod
    def of_size(cls, width: int, height: int) -> Box:
        """A box of this size with its origin at 0, 0."""
        return cls(0, 0, width - 1, height - 1)


@dataclass(frozen=True, eq=False)
class Frame:
    """Pixels with everything needed to understand them.

    `pixels` is C-contiguous float32 (H, W, C) covering the data window; `channels` names C. Alpha is straight.
    `layers` carries channels that no operator reads, each (H, W) in the file's own dtype, so that they pass through
    bit for bit. `ev` is the exposure relative to the reference frame, in stops: values scale by 2**ev.
    """

    pixels: npt.NDArray[np.float32]
    channels: tuple[str, ...]
    colourspace: Colourspace
    ev: float = 0.0
    number: int = 0
    data_window: Box | None = None
    display_window: Box | None = None
    pixel_aspect: float = 1.0
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    layers: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict[str, npt.NDArray[Any]])

    def __post_init__(self) -> None:
        """Check the invariants that every room relies on."""
        shape = self.pixels.shape
        if self.pixels.dtype != np.float32 or len(shape) != 3 or not self.pixels.flags.c_contiguous:
            raise ValueError(f"a frame needs C-contiguous float32 (H, W, C), got {self.pixels.dtype} {shape}")
        if shape[2] != len(self.channels) or 0 in shape:
            raise ValueError(f"channels {self.channels} do not fit pixels of shape {shape}")
        if self.data_window is not None and (self.data_window.height, self.data_window.width) != shape[:2]:
            raise ValueError(f"data window {self.data_window} does not fit pixels of shape {shape}")

    @property
    def height(self) -> int:
        """Rows of the data window."""
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        """Columns of the data window."""
        return self.pixels.shape[1]

    @property
    def rgb(self) -> npt.NDArray[np.float32]:
        """The (H, W, 3) colour part; a grey frame repeats its channel."""
        if len(self.channels) < 3:
            return np.repeat(self.pixels[..., :1], 3, axis=2)
        return self.pixels[..., :3]

    def with_pixels(self, pixels: npt.NDArray[Any], **changes: Any) -> Frame:
        """The same frame with other pixels (made contiguous float32) and any other field changed."""
        return replace(self, pixels=np.ascontiguousarray(pixels, dtype=np.float32), **changes)
