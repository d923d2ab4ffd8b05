"""The movie that `hdrgen sdr2hdr` writes: its options, and the end of the line that encodes results.

It owns which options go together. It must not know sockets, nor how a movie is encoded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hdrgen_server.cli import outputs
from nuke_hdrgen.wire.errors import BadParameter

if TYPE_CHECKING:
    from hdrgen_server.contracts.frame import Frame
    from hdrgen_server.image.movie_write import Form, MovieWriter

MOVIE_SPACE = "lin_rec2020_scene"
DEFAULT_RATE = Fraction(24)
CODECS = {".mov": "prores", ".mp4": "hevc"}
HIGHEST_NITS = 10000.0


@dataclass(frozen=True)
class Asked:
    """The options of a movie, None for what is not given."""

    transfer: str | None = None
    codec: str | None = None
    white_nits: float | None = None
    mastering_nits: float | None = None


def form(output: str, asked: Asked) -> Form | None:
    """What kind of movie a name and its options ask for, None for an EXR.

    Raises BadParameter for options of a movie beside the name of an EXR, and for those that no movie can have.
    """
    suffix = Path(output).suffix.lower()
    if suffix not in CODECS:
        if asked != Asked():
            raise BadParameter(f"--transfer, --codec and --…-nits are for movies (.mov, .mp4), and {output} is none")
        return None
    from hdrgen_server.image.movie_write import Form

    codec, transfer = asked.codec or CODECS[suffix], asked.transfer or "pq"
    if codec not in CODECS.values() or transfer not in {"pq", "hlg"}:
        raise BadParameter(f"a movie is hevc or prores, and pq or hlg, not {codec} and {transfer}")
    if codec == "prores" and suffix != ".mov":
        raise BadParameter(f"ProRes goes into .mov, not {suffix}; name {Path(output).with_suffix('.mov')}")
    white = 100.0 if asked.white_nits is None else asked.white_nits
    peak = 1000.0 if asked.mastering_nits is None else asked.mastering_nits
    for name, nits in (("--white-nits", white), ("--mastering-nits", peak)):
        if not (math.isfinite(nits) and 0 < nits <= HIGHEST_NITS):
            raise BadParameter(f"{name} must be above 0 and at most {HIGHEST_NITS:g} cd/m2, got {nits:g}")
    return Form(codec, transfer, white, peak)


class MovieEnd:
    """Encodes results as they come; the first one opens the movie."""

    encoding = "raw"

    def __init__(self, path: Path, form: Form, rate: Fraction | None) -> None:
        self.path = path
        self._form, self._rate = form, rate or DEFAULT_RATE
        self._writer: MovieWriter | None = None

    def take(self, frame: Frame) -> None:
        """Encode one frame, linear Rec.2020. Raises BadInput and StorageError."""
        from hdrgen_server.image.movie_write import MovieWriter

        if self._writer is None:
            self._writer = MovieWriter(self.path, self._form, (frame.width, frame.height), self._rate)
        self._writer.add(frame)

    def close(self) -> dict[str, Any]:
        """Finish what was encoded and put it in its place; returns its record, {} when there is no frame."""
        return {} if self._writer is None else self._writer.close()

    @staticmethod
    def check(name: str) -> Path:
        """The path, when it can be written. Raises StorageError."""
        outputs.check_writable(Path(name))
        return Path(name)
