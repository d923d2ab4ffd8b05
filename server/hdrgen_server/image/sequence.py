"""Frame sequences by name: which files a pattern means on disk, and which files a result goes to.

It owns the pattern syntax, through fileseq. It must not know what the files hold.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fileseq.constants import PAD_STYLE_HASH1
from fileseq.exceptions import FileSeqException
from fileseq.filesequence import FileSequence

from nuke_hdrgen.wire.errors import BadInput, BadParameter

_TOKEN = re.compile(r"#+|@+|%\d*d")


@dataclass(frozen=True)
class Sequence:
    """A pattern and its frames: `pattern` is normalised (in.####.png), `frames` in ascending order."""

    pattern: str
    frames: tuple[int, ...]

    def path(self, frame: int) -> Path:
        """The file of one frame."""
        return frame_path(self.pattern, frame)


def is_pattern(name: str | Path) -> bool:
    """Whether the file name holds a frame token: `####`, `@@@`, `%04d`, or one of them after a range
    (1-10####).
    """
    return _TOKEN.search(Path(name).name) is not None


def find_sequence(name: str | Path) -> Sequence:
    """The frames of a pattern: the range that it names, or every frame found on disk.

    `#` repeated, `@` repeated and `%0Nd` stand for that many digits; one `#` alone for four, as in
    fileseq's own notation. `in.1-10####.png` names its frames, and all of them must exist. Raises BadInput
    when there is no such file, and BadParameter when the pattern cannot be read.
    """
    found = _parsed(name)
    pattern = _pattern_of(found)
    stated = found.frameSet()
    if stated is not None:
        frames = tuple(sorted({int(frame) for frame in stated}))
        missing = [frame for frame in frames if not frame_path(pattern, frame).is_file()]
        if missing:
            raise BadInput(
                f"{pattern} has no frame {missing[0]} ({len(missing)} of {len(frames)} are missing); "
                "correct the range or add the files"
            )
        return Sequence(pattern, frames)
    try:
        disk = FileSequence.findSequenceOnDisk(_fileseq_name(pattern), strictPadding=True, pad_style=PAD_STYLE_HASH1)
    except (FileSeqException, OSError) as error:
        raise BadInput(f"no file matches {pattern}; check the folder and the number of digits") from error
    return Sequence(pattern, tuple(sorted(int(frame) for frame in disk.frameSet() or ())))


def frame_path(pattern: str | Path, frame: int) -> Path:
    """The file name that a pattern gives to one frame (in.####.png, 7 -> in.0007.png); used for results.

    Raises BadParameter when the pattern has no frame token.
    """
    if not is_pattern(pattern):
        raise BadParameter(f"{pattern} names one file; for a sequence put #### where the frame number goes")
    parsed = _parsed(pattern)
    digits = parsed.zfill()
    number = f"{abs(frame):0{max(1, digits - (frame < 0))}d}"
    sign = "-" if frame < 0 else ""
    return Path(f"{parsed.dirname()}{parsed.basename()}{sign}{number}{parsed.extension()}")


def _parsed(name: str | Path) -> FileSequence:
    text = _fileseq_name(str(name))
    if not is_pattern(text):
        raise BadParameter(f"{name} names one file; for a sequence put #### where the frame number goes")
    try:
        return FileSequence(text, pad_style=PAD_STYLE_HASH1)
    except (FileSeqException, ValueError) as error:
        raise BadParameter(f"cannot read the pattern {name}: {error}; write it as in.####.png") from error


def _fileseq_name(text: str) -> str:
    """A lone `#` becomes four, before fileseq counts one `#` as one digit."""
    return re.sub(r"(?<!#)#(?!#)(?=[^/]*$)", "####", text)


def _pattern_of(parsed: FileSequence) -> str:
    return f"{parsed.dirname()}{parsed.basename()}{'#' * max(1, parsed.zfill())}{parsed.extension()}"
