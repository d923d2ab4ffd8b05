"""JPEG pictures in memory: 8-bit RGB codes to bytes and back, through Pillow.

It owns the coding and what counts as damage. It must not know containers, metadata or colour.
"""

from __future__ import annotations

import io
import struct

import numpy as np
import numpy.typing as npt
from PIL import Image

from nuke_hdrgen.wire.errors import BadInput, TooLarge

Byte = npt.NDArray[np.uint8]

LARGEST_SIDE = 65500
# What Pillow raises for damaged files of its own formats.
DAMAGED = (OSError, SyntaxError, ValueError, struct.error, IndexError, TypeError)


def encode_jpeg(codes_hwc: Byte, quality: int, icc: bytes = b"") -> bytes:
    """(H, W, 3) uint8 as a baseline JPEG with full chroma. Raises BadInput over 65500 pixels on a side."""
    height, width = codes_hwc.shape[:2]
    if max(height, width) > LARGEST_SIDE:
        raise BadInput(f"{width}x{height} is too large for a JPEG, which ends at {LARGEST_SIDE} pixels on a side")
    stream = io.BytesIO()
    Image.fromarray(codes_hwc).save(stream, "JPEG", quality=quality, subsampling=0, icc_profile=icc or None)
    return stream.getvalue()


def decode_jpeg(data: bytes, size: tuple[int, int], name: str) -> Byte:
    """The pixels of a JPEG, (H, W, 3) uint8, grey as three equal channels; `size` is the (width, height) it claims.

    Raises BadInput when it is damaged or of another size, TooLarge beyond what Pillow decodes.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as opened:
            pixels = np.asarray(opened.convert("RGB"), np.uint8)
    except Image.DecompressionBombError as error:
        raise TooLarge(f"{name} is {size[0]}x{size[1]} pixels, too many to decode; scale it down") from error
    except DAMAGED as error:
        raise BadInput(f"{name} is truncated or damaged; export it again") from error
    if pixels.shape != (size[1], size[0], 3):
        raise BadInput(f"{name} is damaged: its size changes within it; export it again")
    return pixels
