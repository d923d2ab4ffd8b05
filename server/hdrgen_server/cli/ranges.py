"""Which frames of a shot `--frames` asks for.

It owns the option's text and its checks. It must not know files, packs or windows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from nuke_hdrgen.wire.errors import BadParameter

_RANGE = re.compile(r"(-?[0-9]{1,9})(?:-(-?[0-9]{1,9}))?", re.ASCII)


def parse_range(text: str) -> tuple[int, int]:
    """First and last frame of `A-B` or `A`; both may be negative. Raises BadParameter.

    One unbroken range, not fileseq's steps and lists: a window looks at the frames between those that are asked for
    anyhow, a movie that leaves some out would run too fast, and fileseq lists every frame before any can be checked.
    """
    text = text.strip()
    found = _RANGE.fullmatch(text)
    if found is None:
        raise BadParameter(f"--frames {text!r} is no range of frames; write A-B, both included, or one number")
    first = int(found[1])
    last = first if found[2] is None else int(found[2])
    if last < first:
        raise BadParameter(f"--frames {text} runs backwards; write {last}-{first}")
    return first, last


def chosen(text: str, numbers: Sequence[int], name: str) -> tuple[int, ...]:
    """Those of a shot's ascending numbers that a range holds. Raises BadParameter for a range that begins or ends where
    the shot, `name`, has no frame.
    """
    first, last = parse_range(text)
    for end in (first, last):
        if end not in numbers:
            has = f"frame {numbers[0]} alone" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
            gaps = numbers[-1] - numbers[0] + 1 - len(numbers)
            missing = f", {gaps} of them missing" if gaps else ""
            raise BadParameter(f"--frames {text.strip()}: {name} has no frame {end}; it has {has}{missing}")
    return tuple(number for number in numbers if first <= number <= last)
