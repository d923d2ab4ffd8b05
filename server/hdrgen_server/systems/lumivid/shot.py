"""A shot of any length through windows: what is held at once, where scenes are cut, and how windows are blended.

It owns the order of windows and the blend. It must not know networks, colourspaces, parameters or files: a converter
makes codes of codes. Codes are log codes, so the blend is one of light's logarithm.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from hdrgen_server.systems.lumivid.cuts import segments
from nuke_hdrgen.wire.windows import Windows

Float32 = npt.NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Scene:
    """A run of frames without a cut, converted: codes of the HDR that was found and of the SDR after the VAE alone,
    (F, H, W, 3) each, and the stops by which the light of the first is to be raised.
    """

    hdr: Float32
    round_trip: Float32
    stops: float


@dataclass(eq=False)
class Blended(Generic[T]):
    """One frame: what came with it, its SDR codes (H, W, 3), and the blend of its windows so far."""

    item: T
    codes_hwc: Float32
    hdr_hwc: Float32
    round_trip_hwc: Float32
    stops: float = 0.0

    def add(self, scene: Scene, index: int, weight: float) -> None:
        """Add one window's codes."""
        self.hdr_hwc += np.float32(weight) * scene.hdr[index]
        self.round_trip_hwc += np.float32(weight) * scene.round_trip[index]
        self.stops += weight * scene.stops


Convert = Callable[[int, Sequence[Float32]], Scene]
"""From the index of a scene's first frame and its frames' codes to the scene converted."""


def weights_of(length: int, plan: Windows, *, after: bool, before: bool) -> list[float]:
    """How much each frame of a window of `length` frames counts: less and less where the next one takes over, and more
    and more where the one before gives over; over both windows that is 1.
    """
    rise = [(index + 1) / (plan.overlap + 1) for index in range(plan.overlap)]
    found = [1.0] * length
    if before:
        found[: plan.overlap] = rise[:length]
    if after:
        found[length - plan.overlap :] = [1 - value for value in rise]
    return found


def blended(items: Iterable[tuple[T, Float32]], plan: Windows, convert: Convert) -> Iterator[Blended[T]]:
    """Every frame with the blend of its windows, in order; items are pulled as windows need them.

    Held at once: a window and one frame more. A window with cuts is converted scene by scene; a window's own figures
    depend on its own frames alone.
    """
    source, held, base, start, after = iter(items), deque[Blended[T]](), 0, 0, True
    while after:
        while base + len(held) <= start + plan.size and (following := next(source, None)) is not None:
            item, codes_hwc = following
            held.append(Blended(item, codes_hwc, np.zeros_like(codes_hwc), np.zeros_like(codes_hwc)))
        if not held:
            return
        after = base + len(held) > start + plan.size
        part = [held[index] for index in range(start - base, min(len(held), start - base + plan.size))]
        weights = weights_of(len(part), plan, after=after, before=start > 0)
        for scene in segments([frame.codes_hwc for frame in part]):
            made = convert(start + scene.start, [part[index].codes_hwc for index in scene])
            for index in scene:
                part[index].add(made, index - scene.start, weights[index])
        for _ in range(plan.hop if after else len(part)):
            yield held.popleft()
            base += 1
        start += plan.hop
