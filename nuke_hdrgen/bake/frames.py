"""Frame ranges as artists and render managers write them, and the expression by which a node knows its baked frames.

It owns that notation in both directions. It must not know Nuke, files or bakes.
"""

from __future__ import annotations

import re
from typing import Iterable, List, Tuple

from nuke_hdrgen.wire.errors import BadParameter

FRAMES_MAXIMUM = 100_000
_PART = re.compile(r"(-?\d{1,9})(?:-(-?\d{1,9})(?:x(\d{1,6}))?)?")


def parse_frames(text: str) -> Tuple[int, ...]:
    """The frames of `1001-1010`, `1-9x2`, `5`, or several of these apart by commas or spaces: sorted, each once.

    Raises BadParameter for anything else, for a range that runs backwards, and beyond 100,000 frames.
    """
    frames: List[int] = []
    for part in text.replace(",", " ").split():
        match = _PART.fullmatch(part)
        if match is None:
            raise BadParameter(f"{part[:40]!r} is no frame range; write 1001-1010, 1001-1010x2 or 1001,1005")
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        step = int(match[3] or 1)
        if last < first or step < 1:
            raise BadParameter(f"the frame range {part!r} runs backwards; write the first frame first")
        if (last - first) // step + len(frames) >= FRAMES_MAXIMUM:
            raise BadParameter(f"{part!r} is more than {FRAMES_MAXIMUM} frames; name fewer")
        frames.extend(range(first, last + 1, step))
    if not frames:
        raise BadParameter("no frame is named; write a range such as 1001-1010")
    return tuple(sorted(set(frames)))


def format_frames(frames: Iterable[int]) -> str:
    """The shortest text of steps of one that `parse_frames` reads back: `1001-1010 1015`."""
    return " ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in runs(frames))


def runs(frames: Iterable[int]) -> Tuple[Tuple[int, int], ...]:
    """(first, last) of each stretch of consecutive frames."""
    found: List[Tuple[int, int]] = []
    for frame in sorted(set(frames)):
        if found and found[-1][1] == frame - 1:
            found[-1] = (found[-1][0], frame)
        else:
            found.append((frame, frame))
    return tuple(found)


def baked_expression(frames: Iterable[int]) -> str:
    """A Nuke expression that is 1 on these frames and 0 on others."""
    terms = [f"frame=={first}" if first == last else f"(frame>={first}&&frame<={last})" for first, last in runs(frames)]
    return "||".join(terms) or "0"
