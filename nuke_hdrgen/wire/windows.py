"""Windows over a shot: which frames a temporal system looks at together, and which a frame's result is made from.

It owns the plan that client and worker share, by frame indices from the shot's declared start. It must not know pixels,
packs, sockets or files. Windows lie on a fixed grid, so that part of a shot is made of the same ones as all of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from nuke_hdrgen.wire.errors import BadParameter


@dataclass(frozen=True)
class Windows:
    """Windows of `size` frames, of which neighbours share `overlap`; a frame lies in one window or in two."""

    size: int
    overlap: int

    def __post_init__(self) -> None:
        """Raises BadParameter for an overlap of more than half a window."""
        if self.size < 1 or not 0 <= 2 * self.overlap <= self.size:
            raise BadParameter(
                f"windows of {self.size} frames cannot share {self.overlap}: the overlap is at most half a window"
            )

    @property
    def hop(self) -> int:
        """Frames from one window's start to the next one's."""
        return self.size - self.overlap

    def start(self, index: int) -> int:
        """The first frame of the earliest window that frame `index` lies in, and so of its result's inputs."""
        return max(0, (index - self.size) // self.hop + 1) * self.hop

    def exists(self, number: int, count: int) -> bool:
        """Whether window `number` of a shot of `count` frames has a frame that the one before has not."""
        return number == 0 or count > number * self.hop + self.overlap

    def numbers(self, index: int, count: int) -> range:
        """The windows that frame `index` of a shot of `count` frames lies in: one or two."""
        last = index // self.hop
        last -= not self.exists(last, count)
        return range(self.start(index) // self.hop, last + 1)

    def span(self, numbers: range, count: int) -> range:
        """The frames of these windows, which follow each other, in a shot of `count` frames."""
        return range(numbers.start * self.hop, min(count, (numbers.stop - 1) * self.hop + self.size))

    def inputs(self, index: int, count: int) -> range:
        """The frames that the result of frame `index` is made from, in a shot of `count` frames."""
        return self.span(self.numbers(index, count), count)

    def needed(self, first: int, last: int, count: int) -> range:
        """The frames to look at for the results of frames `first` to `last`, both among them."""
        return range(self.start(first), self.inputs(last, count).stop)
