"""The fixed test of bracket fusion: seeded views of held-out scenes, photographed and scored the same way every time.

It owns the kinds of bracket, the seeds and the summary of scores. It must not know methods: a method is any function
from a bracket to scene-linear light at the reference's exposure and geometry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from hdrgen_server.evaluate.metrics import Scores, crop, scale_to, score
from hdrgen_server.training.brackets import (
    BORDER,
    CAMERA_S,
    PROTOCOL_MOTION,
    STILL,
    BracketSample,
    Camera,
    Motion,
    is_bright,
    simulate,
)
from hdrgen_server.training.scenes import Scene
from nuke_hdrgen.wire.errors import BadInput, BadParameter

Method = Callable[[BracketSample], npt.NDArray[Any]]
Draw = Callable[[str, Sequence[Scene], int], Iterator[BracketSample]]
"""The first so many samples of a kind."""
SEED = 20_261
SIZE = 256
COUNT = 16
ATTEMPTS = 200
FIGURES = tuple(field.name for field in fields(Scores))


@dataclass(frozen=True)
class Kind:
    """A row of the test: stops between three exposures, what moves, and the camera that took them."""

    spacing: float
    motion: Motion
    camera: Camera


_PLAIN, _UNKNOWN = Camera(), Camera(s=CAMERA_S)

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "static_2": Kind(2, STILL, _PLAIN),
        "static_3": Kind(3, STILL, _PLAIN),
        "dyn_2": Kind(2, PROTOCOL_MOTION, _PLAIN),
        "dyn_3": Kind(3, PROTOCOL_MOTION, _PLAIN),
        "static_2_cam": Kind(2, STILL, _UNKNOWN),
        "dyn_2_cam": Kind(2, PROTOCOL_MOTION, _UNKNOWN),
    }
)


@dataclass(frozen=True)
class Summary:
    """Mean and standard error of each figure over the images of one kind that have it; `scores` image by image."""

    mean: Mapping[str, float]
    error: Mapping[str, float]
    scores: tuple[Scores, ...]


def samples(kind: str, scenes: Sequence[Scene], count: int = COUNT) -> Iterator[BracketSample]:
    """The first `count` brackets of a kind, the scenes in turn.

    A view counts when it `is_bright`: others would score how well a method does nothing. Raises BadParameter for an
    unknown kind, BadInput for a scene without such a view.
    """
    if kind not in KINDS:
        raise BadParameter(f"there is no kind of bracket {kind!r}; there are: {', '.join(KINDS)}")
    for index in range(count):
        how = KINDS[kind]
        evs = (-how.spacing, 0.0, how.spacing)
        yield bright_sample(scenes[index % len(scenes)], index, evs, 1, camera=how.camera, motion=how.motion)


def bright_sample(
    scene: Scene, index: int, evs: Sequence[float], reference: int, *, camera: Camera = _PLAIN, motion: Motion = STILL
) -> BracketSample:
    """The first of the scene's seeded views that `is_bright`. Raises BadInput for a scene without one."""
    for attempt in range(ATTEMPTS):
        rng = np.random.default_rng((SEED, index, attempt))
        sample = simulate(rng, [scene], (SIZE, SIZE), evs, reference, camera=camera, motion=motion)
        if is_bright(sample.scene_linear_hwc):
            return sample
    raise BadInput(f"no view of {scene.name} in {ATTEMPTS} has enough light above white; leave this panorama out")


def run_protocol(
    method: Method,
    scenes: Sequence[Scene],
    kinds: Sequence[str] = tuple(KINDS),
    count: int = COUNT,
    *,
    draw: Draw = samples,
    jod: bool = False,
) -> dict[str, Summary]:
    """Score one method on `count` samples of each kind; `scenes` are the held-out ones. JOD takes `cvvdp` and time."""
    return compare({"": method}, scenes, kinds, count, draw=draw, jod=jod)[""]


def compare(
    methods: Mapping[str, Method],
    scenes: Sequence[Scene],
    kinds: Sequence[str] = tuple(KINDS),
    count: int = COUNT,
    *,
    draw: Draw = samples,
    jod: bool = False,
) -> dict[str, dict[str, Summary]]:
    """The same for several methods on the same samples, each simulated once: method to kind to summary."""
    found: dict[str, dict[str, Summary]] = {name: {} for name in methods}
    for kind in kinds:
        scores: dict[str, list[Scores]] = {name: [] for name in methods}
        for sample in draw(kind, scenes, count):
            for name, method in methods.items():
                scores[name].append(score_sample(method(sample), sample, jod=jod))
        for name, row in found.items():
            row[kind] = summarise(scores[name])
    return found


def score_sample(scene_linear_hwc: npt.NDArray[Any], sample: BracketSample, *, jod: bool = False) -> Scores:
    """All figures of one result. The border counts in no kind, so that still and moving brackets compare."""
    codes = sample.codes_nhwc[sample.reference]
    scores = score(scene_linear_hwc, sample.scene_linear_hwc, codes, border=BORDER)
    if not jod:
        return scores
    from hdrgen_server.evaluate.jod import jod as judge

    image, truth, codes = (crop(x, BORDER) for x in (scene_linear_hwc, sample.scene_linear_hwc, codes))
    return replace(scores, jod=judge(image * scale_to(image, truth, codes), truth))


def summarise(scores: Sequence[Scores]) -> Summary:
    """Means and standard errors; an image without a figure (NaN) does not count for it."""
    mean: dict[str, float] = {}
    error: dict[str, float] = {}
    for name in FIGURES:
        values = np.array([getattr(one, name) for one in scores], np.float64)
        values = values[~np.isnan(values)]
        mean[name] = float(values.mean()) if len(values) else float("nan")
        error[name] = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
    return Summary(MappingProxyType(mean), MappingProxyType(error), tuple(scores))
