"""The Ultra HDR container: a JPEG, a second JPEG behind it that is its gain map, and the index that joins them.

It owns segments, the multi-picture index and what goes where. It must not know pixels; nothing is decoded here, every
length is checked against the bytes that are there. Sources: ITU-T T.81, annex B (segments); CIPA DC-007 (the index);
Android, "Ultra HDR Image Format v1.1"; ISO 21496-1:2025, annex C (APP2 segments); ICC.1:2022, annex B.4.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from hdrgen_server.colour.log_gain import LogGain
from hdrgen_server.image import ultrahdr_metadata as metadata
from nuke_hdrgen.wire.errors import BadInput, TooLarge

SOI = b"\xff\xd8"
APP0, APP1, APP2, APP14, APP15, SOS, EOI = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF, 0xDA, 0xD9
FRAMES = (0xC0, 0xC1, 0xC2)  # Huffman-coded DCT: baseline, extended, progressive
OTHER_FRAMES = frozenset(range(0xC3, 0xD0)) - {0xC4, 0xC8, 0xCC}
XMP = b"http://ns.adobe.com/xap/1.0/\0"
ISO = b"urn:iso:std:iso:ts:21496:-1\0"
MPF = b"MPF\0"
ICC = b"ICC_PROFILE\0"
MOST_SEGMENTS = 512
MOST_PICTURES = 16
MOST_SIDE = 32768
# An 8x8 block of one component takes a bit at the least.
PIXELS_A_BYTE = 64 * 8
PRIMARY_TYPE = 0x030000


@dataclass(frozen=True)
class Parts:
    """An Ultra HDR file taken apart: two JPEGs without their metadata, and what the metadata said.

    Sizes are (width, height); `icc` is the base's profile, b"" for none. `base` and `gain_map` hold nothing but what a
    decoder needs.
    """

    base: bytes
    base_size: tuple[int, int]
    gain_map: bytes
    map_size: tuple[int, int]
    gain: LogGain
    icc: bytes


@dataclass(frozen=True)
class _Segment:
    """A marker segment: its marker, where it starts, and its payload behind the length."""

    marker: int
    start: int
    payload: bytes


def pack(base: bytes, gain_map: bytes, gain: LogGain) -> bytes:
    """One file of two JPEGs: the metadata as XMP and as ISO 21496-1, and the index. Raises BadInput for no JPEG."""
    second = _with_segments(gain_map, [(APP1, XMP + metadata.map_xmp(gain)), (APP2, ISO + metadata.iso_bytes(gain))])
    first = [(APP1, XMP + metadata.primary_xmp(len(second))), (APP2, ISO + metadata.ISO_VERSIONS)]
    index_bytes = len(MPF) + len(_index(0, 0, 0))
    total = len(_with_segments(base, [*first, (APP2, bytes(index_bytes))]))
    # Offsets count from behind `MPF\0`; the index is the last of the segments that are put in.
    head = _behind_app0(base) + sum(4 + len(payload) for _, payload in first) + 4 + len(MPF)
    return _with_segments(base, [*first, (APP2, MPF + _index(total, len(second), total - head))]) + second


def has_gain_map(data: bytes, name: str) -> bool:
    """Whether a JPEG's own metadata announce a gain map behind it. Raises BadInput when its segments are damaged."""
    kinds = {"index": False, "gain": False}
    for segment in _segments(data, name):
        kinds["index"] |= segment.marker == APP2 and segment.payload.startswith(MPF)
        kinds["gain"] |= segment.marker == APP2 and segment.payload.startswith(ISO)
        kinds["gain"] |= (
            segment.marker == APP1 and segment.payload.startswith(XMP) and metadata.HDRGM.encode() in segment.payload
        )
    return all(kinds.values())


def unpack_base(data: bytes, name: str) -> tuple[bytes, tuple[int, int]]:
    """The base alone, without metadata, and its (width, height); what lies behind it is left to the decoder, which
    stops at its end. Raises BadInput and TooLarge.
    """
    return _bare(data, name), _size(data, name)


def unpack(data: bytes, name: str) -> Parts:
    """Take a file apart; `name` is for messages. Raises BadInput naming what is missing, damaged or not supported."""
    base, icc, spans = _read_primary(data, name)
    for start, length in spans:
        where = f"the gain map of {name}"
        gain_map = data[start : start + length]
        if start + length > len(data) or not gain_map.startswith(SOI):
            raise BadInput(f"{name} has no picture where its index says one is; it was cut or edited: export it again")
        gain, own_icc = _read_gain(gain_map, where)
        if gain is None:
            continue
        if own_icc is not None and own_icc != icc:
            raise BadInput(f"{where} is applied in other primaries than the base's; export it in the base's")
        sizes = _size(base, name), _size(gain_map, where)
        if sizes[1][0] > sizes[0][0] or sizes[1][1] > sizes[0][1]:
            raise BadInput(f"{where} is larger than its base; export it again")
        return Parts(_bare(base, name), sizes[0], _bare(gain_map, where), sizes[1], gain, icc)
    raise BadInput(f"{name} holds no gain map; give an Ultra HDR JPEG")


def _read_primary(data: bytes, name: str) -> tuple[bytes, bytes, tuple[tuple[int, int], ...]]:
    """The primary JPEG, its ICC profile, and (start, length) of the pictures behind it."""
    profile: dict[int, bytes] = {}
    spans: tuple[tuple[int, int], ...] = ()
    for segment in _segments(data, name):
        if segment.marker != APP2:
            continue
        if segment.payload.startswith(ICC) and len(segment.payload) > len(ICC) + 2:
            profile[segment.payload[len(ICC)]] = segment.payload[len(ICC) + 2 :]
        if segment.payload.startswith(MPF) and not spans:
            origin = segment.start + 4 + len(MPF)
            spans = tuple((origin + at, length) for at, length in _read_index(segment.payload[len(MPF) :], name))
    if not spans:
        raise BadInput(f"{name} has no second picture (no multi-picture index); give an Ultra HDR JPEG")
    return data[: min(start for start, _ in spans)], b"".join(profile[k] for k in sorted(profile)), spans


def _read_gain(gain_map: bytes, where: str) -> tuple[LogGain | None, bytes | None]:
    """The gain by ISO 21496-1, else by XMP; and the map's own ICC profile where it is applied in that space."""
    by_xmp: LogGain | None = None
    by_iso: tuple[LogGain, bool] | None = None
    icc = b""
    for segment in _segments(gain_map, where):
        if segment.marker == APP1 and segment.payload.startswith(XMP):
            by_xmp = by_xmp or metadata.read_xmp(segment.payload[len(XMP) :], where)
        elif segment.marker == APP2 and segment.payload.startswith(ISO):
            by_iso = by_iso or metadata.read_iso(segment.payload[len(ISO) :], where)
        elif segment.marker == APP2 and segment.payload.startswith(ICC):
            icc += segment.payload[len(ICC) + 2 :]
    if by_iso is not None:
        return by_iso[0], None if by_iso[1] else icc
    return by_xmp, None


def _segments(data: bytes, name: str) -> Iterator[_Segment]:
    """The marker segments up to the start of the scan. Raises BadInput when one is damaged or the data end."""
    if not data.startswith(SOI):
        raise BadInput(f"{name} is no JPEG; give an Ultra HDR JPEG")
    at = len(SOI)
    for _ in range(MOST_SEGMENTS):
        while data[at : at + 2] == b"\xff\xff":  # fill bytes
            at += 1
        if len(data) < at + 4 or data[at] != 0xFF or data[at + 1] in {0x00, 0x01, EOI, *range(0xD0, 0xD9)}:
            break
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2 or at + 2 + length > len(data):
            break
        yield _Segment(marker, at, data[at + 4 : at + 2 + length])
        if marker == SOS:
            return
        at += 2 + length
    raise BadInput(f"{name} is truncated or damaged before its picture starts; export it again")


def _size(data: bytes, name: str) -> tuple[int, int]:
    """(width, height) of the frame header, where the data can hold as much. Raises BadInput and TooLarge."""
    for segment in _segments(data, name):
        if segment.marker in OTHER_FRAMES:
            raise BadInput(f"{name} is compressed in a way that only few programs read; export it as a baseline JPEG")
        if segment.marker in FRAMES and len(segment.payload) >= 6:
            bits, height, width, components = struct.unpack_from(">BHHB", segment.payload)
            if bits != 8 or components not in {1, 3} or not width or not height:
                raise BadInput(
                    f"{name} is {width}x{height} with {components} channels of {bits} bits; export it as RGB"
                )
            if max(width, height) > MOST_SIDE:
                raise TooLarge(f"{name} is {width}x{height} pixels, over {MOST_SIDE} on a side")
            if width * height > PIXELS_A_BYTE * len(data):
                raise BadInput(f"{name} claims {width}x{height} pixels in {len(data)} bytes; it is damaged")
            return width, height
    raise BadInput(f"{name} has no frame header; export it again")


def _bare(data: bytes, name: str) -> bytes:
    """The JPEG with nothing that a decoder does not need, so that no other parser sees foreign metadata."""
    kept, end = [SOI], len(SOI)
    for segment in _segments(data, name):
        end = segment.start + 4 + len(segment.payload)
        if segment.marker in {APP0, APP14} or not APP0 <= segment.marker <= APP15:
            kept.append(data[segment.start : end])
    return b"".join([*kept, data[end:]])


def _behind_app0(data: bytes) -> int:
    for segment in _segments(data, "the picture"):
        return segment.start + 4 + len(segment.payload) if segment.marker == APP0 else len(SOI)
    return len(SOI)


def _with_segments(data: bytes, segments: list[tuple[int, bytes]]) -> bytes:
    at = _behind_app0(data)
    added = b"".join(struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload for marker, payload in segments)
    return data[:at] + added + data[at:]


def _index(first_bytes: int, second_bytes: int, second_offset: int) -> bytes:
    """The multi-picture index of two pictures, big-endian (CIPA DC-007, 5.2)."""
    entries = struct.pack(">IIIHH", PRIMARY_TYPE, first_bytes, 0, 0, 0)
    entries += struct.pack(">IIIHH", 0, second_bytes, second_offset, 0, 0)
    fields = struct.pack(">HHI4s", 0xB000, 7, 4, b"0100") + struct.pack(">HHII", 0xB001, 4, 1, 2)
    behind = 8 + 2 + 3 * 12 + 4
    fields += struct.pack(">HHII", 0xB002, 7, len(entries), behind)
    return b"MM\0*" + struct.pack(">IH", 8, 3) + fields + struct.pack(">I", 0) + entries


def _read_index(index: bytes, name: str) -> list[tuple[int, int]]:
    """(offset, length) of every picture but the first. Raises BadInput when the index is damaged."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(index[:4])
    try:
        if order is None:
            raise ValueError
        (at,) = struct.unpack_from(f"{order}I", index, 4)
        (count,) = struct.unpack_from(f"{order}H", index, at)
        for entry in range(count):
            tag, kind, size, where = struct.unpack_from(f"{order}HHII", index, at + 2 + 12 * entry)
            if (tag, kind) == (0xB002, 7):
                if size % 16 or not 0 < size <= 16 * MOST_PICTURES:
                    raise ValueError
                entries = [struct.unpack_from(f"{order}IIIHH", index, where + 16 * i) for i in range(size // 16)]
                return [(offset, length) for _, length, offset, _, _ in entries[1:]]
    except (struct.error, ValueError) as error:
        raise BadInput(f"the multi-picture index of {name} is damaged; export it again") from error
    return []
