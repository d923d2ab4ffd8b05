"""Results on disk: which are there, whether one is the wanted one, and how one gets its name without overwriting.

It owns listing, reading a result's key and linking. It must not know Nuke, knobs or the wire.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from typing import Callable, Container, Iterator, Optional, Sequence, Tuple

from nuke_hdrgen.bake.exr_header import exr_text
from nuke_hdrgen.bake.paths import frames_among
from nuke_hdrgen.wire.errors import StorageError

KEY = "hdrgen/key"
_HEADER_BYTES = 1 << 16
_HEADER_BYTES_MAXIMUM = 1 << 22
_LAG_POLL_S = 2.0


def read_key(path: str) -> Optional[str]:
    """The key in a result's header: "" when it has none or is no whole EXR header, None when there is no file."""
    try:
        with open(path, "rb") as stream:
            size = _HEADER_BYTES
            while True:
                stream.seek(0)
                data = stream.read(size)
                try:
                    return exr_text(data, KEY) or ""
                except ValueError:
                    if len(data) < size or size >= _HEADER_BYTES_MAXIMUM:
                        return ""
                    size *= 8
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{path} cannot be read ({error.strerror}); check its permissions") from error


def baked_frames(pattern: str, views: Sequence[str]) -> Tuple[int, ...]:
    """The frames of a sequence that are there in every view. A folder that is not there has none."""
    return frames_among(_names(os.path.dirname(pattern)), pattern, views)


def wait_for(
    path: str, wait_s: float, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
) -> bool:
    """Whether a file is there within some time: its folder is listed anew, as network file systems lag."""
    ends = clock() + wait_s
    folder, name = os.path.split(path)
    while name not in set(_names(folder)):
        if clock() >= ends:
            return False
        sleep(_LAG_POLL_S)
    return True


def check_writable(folder: str) -> None:
    """Make a folder and write a file in it. Raises StorageError, so that nothing is computed for nothing."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be written ({error.strerror}); check it and its disk, or choose another cache_root"
        ) from error


def adopt(source: str, path: str) -> bool:
    """Have a whole file also under the name of a result, by a link or else a copy; False when the name is taken.

    Raises StorageError when it cannot be had.
    """
    folder, name = os.path.split(path)
    try:
        os.makedirs(folder, exist_ok=True)
        try:
            os.link(source, path)
        except FileExistsError:
            return False
        except OSError:
            return _copy(source, f"{folder}/.{name}.{os.getpid()}.part", path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written ({error.strerror}); choose another cache_root") from error
    return True


def same_elsewhere(path: str, key: str) -> Optional[str]:
    """A file of the same name in a folder beside this one's, with this key: the same result of other days."""
    folder, name = os.path.split(path)
    parent, own = os.path.split(folder)
    for other in sorted(_names(parent)):
        candidate = f"{parent}/{other}/{name}"
        if other != own and read_key(candidate) == key:
            return candidate
    return None


def carry(old_pattern: str, new_pattern: str, but: Container[str]) -> None:
    """Have every result of one sequence in another one too, but those of some names."""
    old, new = os.path.dirname(old_pattern), os.path.dirname(new_pattern)
    for name in _results(old):
        if name not in but:
            adopt(f"{old}/{name}", f"{new}/{name}")


def _results(folder: str) -> Iterator[str]:
    return (name for name in sorted(_names(folder)) if name.startswith("out.") and name.endswith(".exr"))


def _names(folder: str) -> Sequence[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as error:
        raise StorageError(f"{folder} cannot be listed ({error.strerror}); check its permissions") from error


def _copy(source: str, part: str, path: str) -> bool:
    """A copy under a new name, on file systems without links; False when the name is taken."""
    try:
        shutil.copyfile(source, part)
        if os.path.exists(path):
            return False
        os.rename(part, path)
        return True
    finally:
        remove(part)


def remove(path: str) -> None:
    """Remove a file that may have gone already."""
    try:
        os.unlink(path)
    except OSError:
        return
