"""Checks files before they are read, and writes files whole: beside the target, then renamed.

It owns the temporary name, the clean-up and the wording of storage failures. It must not know what the
bytes mean.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from nuke_hdrgen.wire.errors import BadInput, StorageError


def readable_file(path: str | Path) -> Path:
    """The path, when it is a file that can be opened; else BadInput says what it is instead."""
    file = Path(path)
    try:
        if file.is_dir():
            raise BadInput(f"{file} is a folder; name a file, or a sequence such as in.####.exr")
        with file.open("rb"):
            return file
    except FileNotFoundError as error:
        raise BadInput(f"{file} does not exist; check the name") from error
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot open {file}: {getattr(error, 'strerror', None) or error}") from error


def write_beside(path: str | Path, data: bytes | memoryview) -> None:
    """Write `data` to a temporary file in the folder of `path`, then rename it onto `path`.

    The file gets the permissions that the umask allows. Raises StorageError naming the path when the folder
    is missing, read-only or full; the temporary file is removed then and an older file at `path` stays as
    it was.
    """
    target = Path(path)
    if target.is_dir():
        raise StorageError(f"cannot write {target}: it is a folder; give a file name")
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name[:100]}.", suffix=".part", dir=target.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), 0o666 & ~_umask())
        Path(temporary).replace(target)
    except OSError as error:
        if temporary:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
        reason = error.strerror or str(error)
        raise StorageError(f"cannot write {target}: {reason}; choose another folder or free space") from error


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
