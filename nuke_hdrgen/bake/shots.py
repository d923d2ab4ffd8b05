"""A shot for packs that look at several frames together: which frames a result is made from, and which jobs make some.

It owns that plan, in frame numbers of the node's declared shot, and what makes one impossible. It must not know Nuke,
files or sockets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Iterable, List, Mapping, Sequence, Tuple

from nuke_hdrgen.bake.frames import format_frames
from nuke_hdrgen.bake.plan import Value
from nuke_hdrgen.wire.errors import BadParameter
from nuke_hdrgen.wire.messages import PackInfo
from nuke_hdrgen.wire.windows import Windows

SHOT_START, FPS, WINDOW, OVERLAP = "shot_start", "fps", "window", "overlap"


@dataclass(frozen=True)
class Shot:
    """A node's declared shot: every frame from `first` to `last`, at `fps` frames a second.

    `moving` names the knobs whose values change on the way.
    """

    first: int
    last: int
    fps: float
    moving: Tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many frames it has."""
        return self.last - self.first + 1

    @property
    def text(self) -> str:
        """Its frames as artists write them."""
        return format_frames(range(self.first, self.last + 1))


@dataclass(frozen=True)
class ShotJob:
    """One job: the frames that are sent, and those among them whose results are kept."""

    frames: range
    wanted: Tuple[int, ...]


@dataclass(frozen=True)
class ShotPlan:
    """A shot in windows, which lie on a grid from its first frame, whatever part of it is baked."""

    shot: Shot
    windows: Windows

    def inputs(self, frame: int) -> range:
        """The frames that a frame's result is made from."""
        return self._frames(self.windows.numbers(frame - self.shot.first, self.shot.count))

    def jobs(self, wanted: Iterable[int]) -> Tuple[ShotJob, ...]:
        """The jobs that make the results of these frames, in order: of the windows that these lie in, and no others.

        Frames share a job where their windows are the same or follow each other.
        """
        found: List[Tuple[range, Tuple[int, ...]]] = []
        for frame in sorted(set(wanted)):
            numbers = self.windows.numbers(frame - self.shot.first, self.shot.count)
            if found and numbers.start <= found[-1][0].stop:
                before, frames = found.pop()
                found.append((range(before.start, numbers.stop), (*frames, frame)))
            else:
                found.append((numbers, (frame,)))
        return tuple(ShotJob(self._frames(numbers), frames) for numbers, frames in found)

    def parameters(self, given: Mapping[str, Value]) -> Dict[str, Value]:
        """The parameters of the shot's jobs: where it begins and how fast it is, and those that were given."""
        return {SHOT_START: self.shot.first, FPS: self.shot.fps, **given}

    def _frames(self, numbers: range) -> range:
        span = self.windows.span(numbers, self.shot.count)
        return range(self.shot.first + span.start, self.shot.first + span.stop)


def plan_shot(shot: Shot, pack: PackInfo, given: Mapping[str, Value], frames: Sequence[int], name: str) -> ShotPlan:
    """The plan for a pack, by the windows that `given` parameters ask for, else by the pack's own.

    `frames` are those to bake, `name` the node's, for errors. Raises BadParameter for frames outside the shot, a shot
    that begins before frame 0, knobs that move, and windows that cannot be.
    """
    outside = [frame for frame in frames if not shot.first <= frame <= shot.last]
    if outside:
        raise BadParameter(
            f"{format_frames(outside)} lies outside the shot {shot.text} of {name}, and {pack.name} looks at frames "
            "together; widen `range`, which says what the shot is"
        )
    if shot.first < 0:
        raise BadParameter(
            f"the shot {shot.text} of {name} begins before frame 0, which {pack.name} cannot count from; move it "
            "with a TimeOffset"
        )
    if shot.moving:
        raise BadParameter(
            f"{', '.join(shot.moving)} of {name} changes over the shot, and {pack.name} looks at {pack.window} frames "
            "together; give it one value, or choose frame by frame"
        )
    return ShotPlan(shot, Windows(_whole(given, WINDOW, pack.window), _whole(given, OVERLAP, pack.overlap)))


def _whole(given: Mapping[str, Value], name: str, otherwise: int) -> int:
    value = given.get(name, otherwise)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadParameter(f"{name} in `parameters` must be a whole number of frames, got {value!r}")
    return value
