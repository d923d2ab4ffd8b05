"""The input of `hdrgen sdr2hdr`: one still, an image sequence or a movie, as plates with frame numbers.

It owns what the input is and how its frames are read one after another. It must not know sockets, packs or results.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hdrgen_server.cli.inputs import Spaces, in_named_space
from hdrgen_server.cli.jobs import Plate
from hdrgen_server.contracts.frame import Frame
from nuke_hdrgen.wire.errors import BadInput

if TYPE_CHECKING:
    from hdrgen_server.image.movie import Movie

MOVIE_SUFFIXES = (".mov", ".mp4", ".m4v", ".mkv", ".avi", ".mxf", ".webm", ".mpg", ".ts", ".m2ts")


class Shot(Protocol):
    """Plates in the order of their numbers."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """The frame numbers, ascending."""
        ...

    @property
    def files(self) -> tuple[Path, ...]:
        """What is read, so that no result replaces it."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know of it, one line each."""
        ...

    @property
    def rate(self) -> Fraction | None:
        """Frames a second, None where nothing says."""
        ...

    def plates(self, numbers: Sequence[int]) -> Iterator[Plate]:
        """The plates of some of its numbers. Raises BadInput naming the file, or the frame, that cannot be read."""
        ...


@dataclass(frozen=True, eq=False)
class Stills:
    """A still, or the files of an image sequence."""

    paths: dict[int, Path]
    spaces: Spaces
    nan_policy: str
    warnings: tuple[str, ...] = ()
    rate: Fraction | None = None

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers in the files' names; 0 for a still."""
        return tuple(self.paths)

    @property
    def files(self) -> tuple[Path, ...]:
        """All files."""
        return tuple(self.paths.values())

    def plates(self, numbers: Sequence[int]) -> Iterator[Plate]:
        """Each file as it is read. Raises BadInput when one cannot be read, or is of another size than the first."""
        from hdrgen_server.colour.sanitise import sanitise
        from hdrgen_server.image.reading import EXR_MAGIC, read_frame

        first: Frame | None = None
        for number in numbers:
            path = self.paths[number]
            frame = replace(_three(in_named_space(read_frame(path), self.spaces)), number=number)
            first = first or frame
            if (frame.width, frame.height) != (first.width, first.height):
                raise BadInput(
                    f"{path} is {frame.width}x{frame.height}, the frames before it are {first.width}x{first.height}; "
                    "a sequence has one size"
                )
            if self.nan_policy == "refuse":
                sanitise(frame, "refuse")
            with path.open("rb") as stream:
                is_exr = stream.read(len(EXR_MAGIC)) == EXR_MAGIC
            yield Plate(frame, str(path), path if is_exr else None)


def _three(frame: Frame) -> Frame:
    """Grey with alpha as RGB with alpha: no message carries two channels."""
    if len(frame.channels) != 2:
        return frame
    return frame.with_pixels(frame.pixels[..., [0, 0, 0, 1]], channels=("R", "G", "B", "A"))


@dataclass(frozen=True, eq=False)
class Footage:
    """A movie, its frames counted from 1."""

    movie: Movie

    @property
    def numbers(self) -> tuple[int, ...]:
        """1 to the number of frames that the file says it has."""
        return tuple(range(1, self.movie.frames + 1))

    @property
    def files(self) -> tuple[Path, ...]:
        """The movie's file."""
        return (self.movie.path,)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What had to be assumed of it."""
        return self.movie.warnings

    @property
    def rate(self) -> Fraction | None:
        """Frames a second."""
        return self.movie.rate

    def plates(self, numbers: Sequence[int]) -> Iterator[Plate]:
        """Frames as codes. Raises BadInput when the movie ends early or is damaged; the frames before it are good."""
        from hdrgen_server.image.movie import read_frames

        wanted = frozenset(numbers)
        for frame in read_frames(self.movie):
            if frame.number in wanted:
                yield Plate(frame, f"{self.movie.path} frame {frame.number}")
            if frame.number == numbers[-1]:
                return


def find(name: str, spaces: Spaces, *, nan_policy: str, matrix: str | None = None, levels: str | None = None) -> Shot:
    """What a name means: a movie by its suffix, a sequence by its pattern, else a still.

    `matrix` and `levels` override what a movie's tags say. Raises BadInput for what cannot be opened or is no SDR
    movie, and for overrides of something that is no movie.
    """
    from hdrgen_server.image.files import readable_file
    from hdrgen_server.image.sequence import find_sequence, is_pattern

    if is_movie(name):
        from hdrgen_server.image.movie import Overrides, open_movie

        return Footage(open_movie(readable_file(name), Overrides(spaces.given, matrix, levels)))
    if matrix is not None or levels is not None:
        raise BadInput(f"{name} is no movie: --matrix and --levels say how a movie's codes are made; leave them out")
    if is_pattern(name) and not Path(name).is_file():
        sequence = find_sequence(name)
        return Stills({number: sequence.path(number) for number in sequence.frames}, spaces, nan_policy)
    return Stills({0: readable_file(name)}, spaces, nan_policy)


def is_movie(name: str | Path) -> bool:
    """Whether a file is a movie, by its suffix."""
    return Path(name).suffix.lower() in MOVIE_SUFFIXES
