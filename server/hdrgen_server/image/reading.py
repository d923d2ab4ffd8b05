"""Opens any still image that the project reads, by what the file is rather than by what it is called.

It owns the dispatch only. It must not know pixels; each reader wraps its own failures.
"""

from __future__ import annotations

from pathlib import Path

from hdrgen_server.contracts.frame import Frame
from hdrgen_server.image.exr import read_exr_frame
from hdrgen_server.image.files import readable_file
from hdrgen_server.image.photograph import read_photograph
from hdrgen_server.image.raw import RAW_SUFFIXES, read_raw
from nuke_hdrgen.wire.errors import BadInput

EXR_MAGIC = b"\x76\x2f\x31\x01"
PHOTOGRAPH_MAGICS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_frame(path: str | Path) -> Frame:
    """Read an EXR, a photograph (PNG, JPEG, TIFF) or a camera raw as one frame; see the three readers for
    pixels.

    Raises BadInput, naming the file, when it is missing, a folder, unreadable, empty or of another kind.
    """
    file = readable_file(path)
    with file.open("rb") as stream:
        head = stream.read(8)
    if head.startswith(EXR_MAGIC):
        return read_exr_frame(file)
    if file.suffix.lower() in RAW_SUFFIXES:
        return read_raw(file)
    if head.startswith(PHOTOGRAPH_MAGICS):
        return read_photograph(file)
    what = "is empty" if not head else "is no EXR, PNG, JPEG, TIFF or camera raw"
    raise BadInput(f"{file} {what}; give an image in one of these formats")
