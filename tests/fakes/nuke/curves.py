"""Animation curves and their script text: `curve K x1001 1 x1011 0`.

It owns keys and interpolation: K holds a key's value up to the next key; without a letter, or with L, values between
keys are linear (Nuke's own default is smooth; nothing here may depend on it). It must not know knobs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.fakes.nuke.errors import NukeError

NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def number_text(value: float) -> str:
    """A number as scripts write it: whole numbers without a point."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


@dataclass(frozen=True)
class Curve:
    """Keys (frame, value, step) by rising frame."""

    keys: tuple[tuple[float, float, bool], ...]

    def at(self, frame: float) -> float:
        """The value at a frame; before the first and after the last key theirs holds."""
        if not self.keys or frame <= self.keys[0][0]:
            return self.keys[0][1] if self.keys else 0.0
        before = [key for key in self.keys if key[0] <= frame][-1]
        after = next((key for key in self.keys if key[0] > frame), None)
        if after is None or before[2]:
            return before[1]
        share = (frame - before[0]) / (after[0] - before[0])
        return before[1] + share * (after[1] - before[1])

    def with_key(self, frame: float, value: float) -> Curve:
        """The curve with one key more, of the kind of the key before it; a key at the same frame is replaced."""
        kept = [key for key in self.keys if key[0] != frame]
        step = next((key[2] for key in reversed(self.keys) if key[0] <= frame), bool(self.keys) and self.keys[0][2])
        return Curve(tuple(sorted([*kept, (frame, value, step)])))

    def script(self) -> str:
        """The curve as scripts write it."""
        words = ["curve"]
        letter = False
        for frame, value, step in self.keys:
            if step != letter:
                words.append("K" if step else "L")
                letter = step
            words += [f"x{number_text(frame)}", number_text(value)]
        return " ".join(words)


def parse_curve(text: str) -> Curve:
    """Read `curve …`. Raises NukeError for tangents and interpolations that this Nuke does not know."""
    keys: list[tuple[float, float, bool]] = []
    step, frame = False, 1.0
    for word in text.split()[1:]:
        if word in {"K", "L"}:
            step = word == "K"
        elif word[0] == "x" and NUMBER.fullmatch(word[1:]):
            frame = float(word[1:])
        elif NUMBER.fullmatch(word):
            keys.append((frame, float(word), step))
            frame += 1.0
        else:
            raise NukeError(f"{text!r}: this Nuke does not know {word!r} in a curve")
    if [key[0] for key in keys] != sorted({key[0] for key in keys}):
        raise NukeError(f"{text!r}: frames must rise")
    return Curve(tuple(keys))
