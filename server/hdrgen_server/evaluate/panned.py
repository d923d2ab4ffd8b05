"""The test of steadiness: seeded pans over held-out scenes as SDR shots, and whose flicker a result is held against.

It owns the shots and the figures. It must not know packs: a method is a function from a shot's codes to its light.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hdrgen_server.evaluate.flicker import flicker_index
from hdrgen_server.evaluate.protocol import ATTEMPTS, SEED
from hdrgen_server.evaluate.sdr_protocol import codes_of
from hdrgen_server.evaluate.temporal import Against, against
from hdrgen_server.systems.merge.merge import srgb_decode
from hdrgen_server.training.brackets import is_bright
from hdrgen_server.training.scenes import Scene
from hdrgen_server.training.views import View, anchor_exposure, perspective
from nuke_hdrgen.wire.errors import BadInput

Array = npt.NDArray[np.float32]
ShotMethod = Callable[[Sequence[Array]], Iterator[Array]]
"""From a shot's 8-bit sRGB codes, (H, W, 3) in [0, 1], to its frames' scene-linear Rec.709 light."""

HEIGHT, WIDTH = 270, 480
FRAMES, RATE = 24, 24.0
"""How many frames a shot has, and how many of them make a second."""
FIELD, TURN = 60.0, 0.2
"""Degrees: the width of the view, and how far it turns from one frame to the next (1.4 pixels in its middle)."""


@dataclass(frozen=True)
class Steadiness:
    """Flicker indices of one shot (see `flicker`): of its plate's light, and of the result."""

    scene: str
    source: float
    result: float

    @property
    def ratio(self) -> float:
        """The result's index over the plate's."""
        return self.result / self.source


def shot(kind: str, scenes: Sequence[Scene], index: int, frames: int = FRAMES) -> tuple[str, list[Array]]:
    """The scene's name and the codes of the shot of this index under a tone curve, the scenes in turn.

    Raises BadParameter for an unknown curve, BadInput as `true_shot`.
    """
    name, light = true_shot(scenes, index, frames)
    return name, [codes_of(kind, frame_hwc) for frame_hwc in light]


def true_shot(scenes: Sequence[Scene], index: int, frames: int = FRAMES) -> tuple[str, list[Array]]:
    """The scene's name and the light of the shot of this index, the scenes in turn.

    The first frame sets the exposure of all. Raises BadInput for a scene without a bright view.
    """
    scene = scenes[index % len(scenes)]
    for attempt in range(ATTEMPTS):
        rng = np.random.default_rng((SEED, 1, index, attempt))
        start = replace(View.random(rng), roll=0.0, fov=FIELD)
        first = perspective(scene.scene_linear_hwc, start, HEIGHT, WIDTH)
        exposed = anchor_exposure(first)
        if is_bright(exposed):
            gain = np.float32(exposed.sum(dtype=np.float64) / first.sum(dtype=np.float64))
            views = (replace(start, yaw=start.yaw + TURN * number) for number in range(frames))
            return scene.name, [perspective(scene.scene_linear_hwc, view, HEIGHT, WIDTH) * gain for view in views]
    raise BadInput(f"no view of {scene.name} in {ATTEMPTS} has enough light above white; leave this panorama out")


def over_time(
    method: ShotMethod, scenes: Sequence[Scene], kind: str, count: int, frames: int = FRAMES, *, jod: bool = False
) -> list[Against]:
    """A method on the first `count` shots of a kind, its figures over time beside the truth's; JOD takes `cvvdp`."""
    found: list[Against] = []
    for index in range(count):
        name, truth = true_shot(scenes, index, frames)
        codes = [codes_of(kind, frame_hwc) for frame_hwc in truth]
        found.append(against(name, method(codes), truth, codes, RATE if jod else None))
    return found


def steadiness(
    method: ShotMethod, scenes: Sequence[Scene], kind: str, count: int, frames: int = FRAMES
) -> list[Steadiness]:
    """The flicker of the first `count` shots of a kind before and after a method."""
    found: list[Steadiness] = []
    for index in range(count):
        name, codes = shot(kind, scenes, index, frames)
        source = flicker_index(srgb_decode(frame_hwc) for frame_hwc in codes)
        found.append(Steadiness(name, source, flicker_index(method(codes))))
    return found
