"""Writes the smallest TIFF and DNG files that readers accept, with tags that no other writer here sets."""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import Any

import numpy as np

BYTE, ASCII, SHORT, LONG, RATIONAL, SRATIONAL = 1, 2, 3, 4, 5, 10
Entries = dict[int, tuple[int, Any]]
# CIE XYZ (D65) to linear Rec.709: a "camera" whose primaries are Rec.709.
XYZ_TO_REC709 = (3.2406, -1.5372, -0.4986, -0.9689, 1.8758, 0.0415, 0.0557, -0.2040, 1.0570)
EXPOSURE: Entries = {0x829A: (RATIONAL, [0.02]), 0x829D: (RATIONAL, [2.8]), 0x8827: (SHORT, [400])}


def tiff(pixels: np.ndarray, entries: Entries, exif: Entries | None = None) -> bytes:
    """A little-endian TIFF of one strip: pixels, then IFD 0, then the EXIF IFD."""
    data = pixels.tobytes()
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    basic: Entries = {
        256: (LONG, [pixels.shape[1]]), 257: (LONG, [pixels.shape[0]]),
        258: (SHORT, [pixels.dtype.itemsize * 8] * channels), 259: (SHORT, [1]), 262: (SHORT, [2]),
        273: (LONG, [8]), 277: (SHORT, [channels]), 278: (LONG, [pixels.shape[0]]), 279: (LONG, [len(data)]),
        284: (SHORT, [1]),
    }  # fmt: skip
    start = 8 + len(data) + len(data) % 2
    body = data + b"\0" * (len(data) % 2)
    if exif:
        exif_ifd = _ifd(exif, start)
        basic[0x8769] = (LONG, [start])
        body, start = body + exif_ifd, start + len(exif_ifd)
    return struct.pack("<2sHI", b"II", 42, start) + body + _ifd(basic | entries, start)


def dng(raw: np.ndarray, black: int, white: int, neutral: tuple[float, float, float]) -> bytes:
    """A DNG with an RGGB mosaic of uint16 `raw` from a camera with Rec.709 primaries and this neutral."""
    return tiff(
        raw,
        {
            254: (LONG, [0]), 262: (SHORT, [32803]), 271: (ASCII, b"Test\0"), 272: (ASCII, b"Mosaic\0"),
            274: (SHORT, [1]), 33421: (SHORT, [2, 2]), 33422: (BYTE, bytes([0, 1, 1, 2])),
            50706: (BYTE, bytes([1, 4, 0, 0])), 50708: (ASCII, b"Test Mosaic\0"), 50714: (LONG, [black]),
            50717: (LONG, [white]), 50721: (SRATIONAL, XYZ_TO_REC709), 50728: (RATIONAL, neutral),
            50778: (SHORT, [21]),
        },
        EXPOSURE,
    )  # fmt: skip


def _ifd(entries: Entries, start: int) -> bytes:
    head = struct.pack("<H", len(entries))
    extra_at = start + 2 + 12 * len(entries) + 4
    extra = b""
    for tag, (kind, values) in sorted(entries.items()):
        data = _values(kind, values)
        count = len(values)
        if len(data) <= 4:
            field = data.ljust(4, b"\0")
        else:
            field = struct.pack("<I", extra_at + len(extra))
            extra += data + b"\0" * (len(data) % 2)
        head += struct.pack("<HHI", tag, kind, count) + field
    return head + struct.pack("<I", 0) + extra


def _values(kind: int, values: Any) -> bytes:
    if kind in (BYTE, ASCII):
        return bytes(values)
    if kind in (SHORT, LONG):
        return struct.pack(f"<{len(values)}{'H' if kind == SHORT else 'I'}", *values)
    parts = [Fraction(value).limit_denominator(100000) for value in values]
    numbers = [number for part in parts for number in (part.numerator, part.denominator)]
    return struct.pack(f"<{len(numbers)}{'I' if kind == RATIONAL else 'i'}", *numbers)
