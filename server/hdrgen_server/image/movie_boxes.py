"""Puts light metadata into a finished MP4 or QuickTime movie, whose `moov` box stands last.

It owns the boxes `mdcv` and `clli`, and filling in the content light level message that an encoder left open. It must
not know how a movie is encoded. Sources: ISO/IEC 14496-12 (boxes; `mdcv`, `clli`), 14496-15 (`hvcC`), Rec. ITU-T H.265
D.2.35 (content_light_level_info) and 7.3.1.1 (emulation prevention).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hdrgen_server.image.movie_light import Light, Mastering
from nuke_hdrgen.wire.errors import StorageError

# The encoder writes these for MaxCLL and MaxFALL; no movie has both.
OPEN = Light(65535, 65534)
HVC_SEI = bytes([0x4E, 0x01, 0x90, 0x04])  # NAL type 39, layer 0; payload 144 of 4 bytes
SEI_END = b"\x80"
PATH = (b"trak", b"mdia", b"minf", b"stbl", b"stsd")
STSD_HEADER, ENTRY_HEADER = 8, 78
PARAMETER_SETS_AT_MOST = 1 << 16


@dataclass(frozen=True)
class Box:
    """A box's type, where its header starts, where its contents do, and where it ends."""

    kind: bytes
    start: int
    inside: int
    end: int


def boxes(data: bytes | bytearray, start: int, end: int) -> Iterator[Box]:
    """The boxes between two places. Raises StorageError for sizes that do not fit."""
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        header = 8
        if size == 1:
            (size,), header = struct.unpack_from(">Q", data, start + 8), 16
        size = size or end - start
        if size < header or start + size > end:
            raise StorageError(f"the movie's box {kind!r} has a size that does not fit; write it again")
        yield Box(kind, start, start + header, start + size)
        start += size


def light_boxes(mastering: Mastering, light: Light) -> bytes:
    """The boxes `mdcv` and `clli`."""
    points = [value for point in mastering.points for value in point]
    mdcv = struct.pack(">8H2I", *points, *mastering.luminances)
    clli = struct.pack(">2H", light.max_cll, light.max_fall)
    return b"".join(struct.pack(">I", 8 + len(body)) + kind + body for kind, body in ((b"mdcv", mdcv), (b"clli", clli)))


def with_boxes(moov: bytes, extra: bytes) -> bytes:
    """A `moov` box whose only track's sample description holds `extra`, every size grown. Raises StorageError."""
    data = bytearray(moov)
    grown = [0]
    inside = 8
    end = len(data)
    for kind in PATH:
        found = next((box for box in boxes(data, inside, end) if box.kind == kind), None)
        if found is None:
            raise StorageError(f"the movie has no box {kind!r}; write it again")
        grown.append(found.start)
        inside, end = found.inside, found.end
    entry = inside + STSD_HEADER
    grown.append(entry)
    at = entry + 8 + ENTRY_HEADER
    for start in grown:
        (size,) = struct.unpack_from(">I", data, start)
        struct.pack_into(">I", data, start, size + len(extra))
    return bytes(data[:at]) + extra + bytes(data[at:])


def storable(light: Light) -> Light:
    """The level that fits the 4 bytes of the message: MaxFALL is raised where zeros would need emulation prevention."""
    body = _level(light)
    if _escaped(HVC_SEI + body + SEI_END):
        return storable(Light(max(light.max_cll, 1), light.max_fall + 1))
    return light


def finish(path: Path, mastering: Mastering, light: Light, key_samples: Iterable[tuple[int, int]]) -> None:
    """Write the metadata into a movie file in place.

    `key_samples` are (offset, size) of the samples that may hold an open message: HEVC's key frames. Raises
    StorageError when the file is not as this project writes it.
    """
    with path.open("r+b") as file:
        for offset, size in key_samples:
            file.seek(offset)
            head = file.read(min(size, PARAMETER_SETS_AT_MOST))
            for at in _open_messages(head):
                file.seek(offset + at)
                file.write(_level(light))
        file.seek(0, os.SEEK_END)
        moov = _last_box(file.fileno(), file.tell())
        file.seek(moov.start)
        body = file.read().replace(_message(OPEN), _message(light))
        file.seek(moov.start)
        file.write(with_boxes(body, light_boxes(mastering, light)))


def _open_messages(sample: bytes) -> Iterator[int]:
    """Where the level of an open message stands, in a sample of NAL units with lengths of 4 bytes."""
    at = 0
    while at + 4 <= len(sample):
        (length,) = struct.unpack_from(">I", sample, at)
        if sample[at + 4 : at + 4 + length] == _message(OPEN):
            yield at + 4 + len(HVC_SEI)
        at += 4 + length


def _message(light: Light) -> bytes:
    return HVC_SEI + _level(light) + SEI_END


def _level(light: Light) -> bytes:
    return struct.pack(">2H", light.max_cll, light.max_fall)


def _escaped(nal: bytes) -> bool:
    """Whether two zero bytes are followed by 0 to 3, which H.265 would write otherwise."""
    return any(nal[i : i + 2] == b"\x00\x00" and nal[i + 2] <= 3 for i in range(len(nal) - 2))


def _last_box(file: int, size: int) -> Box:
    start = 0
    while start < size:
        head = os.pread(file, 16, start)
        length, kind = struct.unpack_from(">I4s", head)
        length = struct.unpack_from(">Q", head, 8)[0] if length == 1 else length or size - start
        if kind == b"moov" and start + length == size:
            return Box(kind, start, start + 8, size)
        start += max(length, 8)
    raise StorageError("the movie does not end with its index; write it again")
