"""The test of pictures from prompts: whether words choose, how bright lights are, what is remembered, and seams.

It owns the prompts and figures. It must not know packs: a method is a function from prompt, seed and projection to
light, (H, W, 3) linear Rec.709 with mid-grey at 0.18.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from hdrgen_server.evaluate.metrics import luminance
from hdrgen_server.evaluate.words import FLOOR, PROMPTS, SEED, held_out_words, references
from hdrgen_server.systems.sdr2hdr import MID_GREY
from hdrgen_server.training.captioned import photographed
from hdrgen_server.training.scenes import Scene

Array = npt.NDArray[np.float32]
Draw = Callable[[str, int, bool], Array]
"""From a prompt, a seed and whether it goes all around, to light."""
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Bound:
    """What the brightest value of a picture must be: above `above`, or below `below`."""

    prompts: tuple[str, ...]
    above: float = 0.0
    below: float = float("inf")

    def met(self, peak: float) -> bool:
        """Whether a picture with this brightest value is as it must be."""
        return self.above < peak < self.below


BOUNDS: Mapping[str, Bound] = MappingProxyType({
    "sun": Bound(("the sun setting on the horizon, a clear sky", "the sun at noon, a clear sky"), above=100.0),
    "lamps": Bound(("a dark night, lit by warm lamps", "an interior, lit by white lamps"), above=20 * MID_GREY),
    "overcast": Bound(("an overcast sky", "a dull overcast day over grass"), below=8 * MID_GREY),
})  # fmt: skip
PANORAMA_PROMPTS = ("a sunset over grass", "a forest", "an interior", "a city street")
CELLS, YAWS = 32, 5
"""Pictures are compared as so many means by as many, in stops."""


@dataclass(frozen=True, eq=False)
class Trained:
    """What a method was trained on: square views, (side, side, 3), and the panoramas that some of them show."""

    views: Iterable[Array]
    scenes: Sequence[Scene]
    side: int


@dataclass(frozen=True)
class Chosen:
    """Of `pictures` of a word, `hits` were nearest to it; `taken_for` is how often to each other word."""

    hits: int
    pictures: int
    taken_for: Mapping[str, int]


@dataclass(frozen=True)
class Peaks:
    """The brightest values of the pictures of one bound, sorted, and the share of them that met it."""

    values: tuple[float, ...]
    met: float


@dataclass(frozen=True)
class Memory:
    """Distances in stops RMS: of pictures to the nearest of `known` training pictures (least and median), and of each
    training panorama from one yaw to the nearest of others of its own (median).
    """

    least: float
    median: float
    own_yaws: float
    known: int


@dataclass(frozen=True)
class Seams:
    """The step across a panorama's edge over the median step between its columns, and its rank among them, 0 to 1."""

    ratio: float
    rank: float


@dataclass(frozen=True, eq=False)
class Prompted:
    """All figures of one method. `sure` is the classifier's own hit rate on other held-out references."""

    words: Mapping[str, Chosen]
    sure: float
    peaks: Mapping[str, Peaks]
    memory: Memory
    seams: tuple[Seams, ...]

    @property
    def hits(self) -> tuple[int, int]:
        """Of how many pictures the word was told."""
        return sum(c.hits for c in self.words.values()), sum(c.pictures for c in self.words.values())


def run_prompts(
    draw: Draw, scenes: Sequence[Scene], trained: Trained, count: int, side: int, report: Report
) -> Prompted:
    """`count` pictures a word, half as many a prompt of each bound, one panorama a prompt.

    `scenes` are held out. `side` is the size that references are drawn at, the pictures' own.
    """
    words = held_out_words(scenes, side)
    checks = [(word, one) for word, ones in references(scenes, side, SEED + 1).items() for one in ones]
    sure = float(np.mean([words.word_of(one) == word for word, one in checks]))
    half = max(1, count // 2)
    bounded = [(name, prompt) for name, bound in BOUNDS.items() for prompt in bound.prompts]
    total = count * len(PROMPTS) + half * len(bounded) + len(PANORAMA_PROMPTS)
    made = 0

    def one(prompt: str, seed: int, panorama: bool = False) -> Array:
        nonlocal made
        report(made, total)
        made += 1
        return draw(prompt, seed, panorama)

    pictures = {word: [one(prompt, seed) for seed in range(count)] for word, prompt in PROMPTS.items()}
    told = {word: [words.word_of(picture) for picture in ones] for word, ones in pictures.items()}
    chosen = {
        word: Chosen(named.count(word), count, {w: named.count(w) for w in dict.fromkeys(named) if w != word})
        for word, named in told.items()
    }
    values: dict[str, list[float]] = {name: [] for name in BOUNDS}
    for name, prompt in bounded:
        values[name] += [float(one(prompt, seed).max()) for seed in range(half)]
    peaks = {n: Peaks(tuple(sorted(v)), float(np.mean([BOUNDS[n].met(p) for p in v]))) for n, v in values.items()}
    seams = tuple(seam_of(one(prompt, 0, True)) for prompt in PANORAMA_PROMPTS)
    memory = memory_of([p for ones in pictures.values() for p in ones], trained)
    return Prompted(chosen, sure, peaks, memory, seams)


def cells_of(scene_linear_hwc: Array) -> Array:
    """A picture's luminance in stops as CELLS x CELLS means, flat. Its sides are multiples of CELLS."""
    level = np.log2(np.maximum(luminance(scene_linear_hwc), FLOOR))
    height, width = level.shape
    means = level.reshape(CELLS, height // CELLS, CELLS, width // CELLS).mean(axis=(1, 3))
    return means.astype(np.float32).ravel()


def memory_of(pictures: Sequence[Array], trained: Trained) -> Memory:
    """How near pictures are to what was trained on, beside how near training panoramas are to themselves turned."""
    known = np.stack([cells_of(light_hwc) for light_hwc in trained.views])
    nearest = [_nearest(cells_of(picture), known) for picture in pictures]
    rng = np.random.default_rng(SEED)
    own: list[float] = []
    for scene in trained.scenes:
        yaws = [cells_of(photographed(rng, scene, trained.side, panorama=False)[0]) for _ in range(YAWS)]
        own.append(_nearest(yaws[0], np.stack(yaws[1:])))
    return Memory(min(nearest), float(np.median(nearest)), float(np.median(own)), len(known))


def _nearest(one: Array, others: Array) -> float:
    return float(np.sqrt(np.mean((others - one) ** 2, axis=1)).min())


def seam_of(panorama_hwc: Array) -> Seams:
    """The seam of a panorama, in mean steps of log luminance between neighbouring columns."""
    level = np.log2(np.maximum(luminance(panorama_hwc), FLOOR))
    steps = np.abs(np.diff(np.concatenate([level, level[:, :1]], axis=1), axis=1)).mean(axis=0)
    inner, seam = steps[:-1], float(steps[-1])
    return Seams(seam / max(float(np.median(inner)), 1e-9), float(np.mean(inner < seam)))
