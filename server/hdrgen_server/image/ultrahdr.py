"""Ultra HDR JPEGs: an HDR frame becomes an SDR picture with an 8-bit gain map behind it, and comes back.

It owns the SDR base, the map's pixels; the container and its metadata have their own modules. It
must not know operations or options. An Ultra HDR JPEG is for looking at: eight bits a channel, one gain map.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, PngImagePlugin

from hdrgen_server.colour.gainmap import GainCounts
from hdrgen_server.colour.interop import INTEROP, linear_id_of
from hdrgen_server.colour.log_gain import NEUTRAL, LogGain, fitted
from hdrgen_server.colour.ocio import convert
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.image import ultrahdr_metadata
from hdrgen_server.image.files import readable_file
from hdrgen_server.image.jpeg import DAMAGED, decode_jpeg, encode_jpeg
from hdrgen_server.image.photograph import ICC_SPACES, MAX_JPEG_BYTES
from hdrgen_server.image.tags import LIN_REC709_SCENE, SRGB_REC709_SCENE, of_interop_id
from hdrgen_server.image.ultrahdr_container import has_gain_map, pack, unpack
from nuke_hdrgen.wire.errors import BadInput, TooLarge

Float32 = npt.NDArray[np.float32]
Byte = npt.NDArray[np.uint8]

# A step of the map is a ratio in light, so that its errors cost more than those of the base.
BASE_QUALITY, MAP_QUALITY = 95, 98
BAND_ROWS = 128
# A profile holds the time at which it was made; a fixed one keeps equal pictures equal files (ICC.1:2022, 7.2.8).
PROFILE_DATE = slice(24, 36)
FIXED_DATE = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)


@dataclass(frozen=True, eq=False)
class GainPicture:
    """A gain map over `base_hwc`: both (H, W, 3) uint8, the base as sRGB codes; what was held; and the numbers."""

    base_hwc: Byte
    codes_hwc: Byte
    gain: LogGain
    counts: GainCounts


def sdr_codes(frame: Frame) -> tuple[Byte, int]:
    """The frame as 8-bit sRGB Rec.709 codes, (H, W, 3), cut to [0, 1], and how many samples were cut.

    A frame that is in 8-bit sRGB already keeps its codes. Raises BadInput for NaN or Inf and for spaces that cannot
    be converted.
    """
    codes = convert(frame, SRGB_REC709_SCENE).rgb
    cut = int(np.count_nonzero((codes < 0.0) | (codes > 1.0)))
    return np.round(np.clip(codes, 0.0, 1.0) * 255).astype(np.uint8), cut


def gain_picture(hdr: Frame, base_hwc: Byte) -> GainPicture:
    """The map that takes sRGB codes (H, W, 3) to a scene-linear frame of their size, at their exposure.

    The range is fitted to the picture; negative light counts as 0. Raises BadInput for another size, for NaN or Inf,
    and for frames that are not scene-linear.
    """
    if hdr.colourspace.range != "scene_linear":
        raise BadInput(f"a gain map needs a scene-linear frame, this one is {hdr.colourspace.name}; convert it first")
    if (hdr.height, hdr.width, 3) != base_hwc.shape:
        raise BadInput(
            f"the base is {base_hwc.shape[1]}x{base_hwc.shape[0]}, the picture {hdr.width}x{hdr.height}; "
            "a gain map needs one size"
        )
    light = convert(hdr, LIN_REC709_SCENE).rgb
    if not np.isfinite(light).all():
        raise BadInput("the result holds NaN or Inf; a gain map cannot")
    ends = [_ends(stops) for _, stops in _stops(LogGain(NEUTRAL, NEUTRAL), light, base_hwc)]
    gain = fitted(min(low for low, _ in ends), max(high for _, high in ends))
    codes, below, above = np.empty(base_hwc.shape, np.uint8), 0, 0
    for rows, stops in _stops(gain, light, base_hwc):
        codes[rows], counts = gain.encode(stops)
        below, above = below + counts.below, above + counts.above
    below += int(np.count_nonzero(light < 0))
    return GainPicture(base_hwc, codes, gain, GainCounts(below, above, light.size))


def encode_ultrahdr(picture: GainPicture) -> bytes:
    """One Ultra HDR JPEG: base and map at full size and full chroma. Raises BadInput over 65500 pixels on a side."""
    base = encode_jpeg(picture.base_hwc, BASE_QUALITY, icc=srgb_profile())
    return pack(base, encode_jpeg(picture.codes_hwc, MAP_QUALITY), picture.gain)


def gain_map_png(picture: GainPicture) -> bytes:
    """The map alone as an RGB PNG, with the numbers that it needs as XMP (PNG, 11.3.3.4; Adobe XMP, part 3)."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", ultrahdr_metadata.map_xmp(picture.gain).decode())
    stream = io.BytesIO()
    Image.fromarray(picture.codes_hwc).save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


def is_ultrahdr(path: str | Path) -> bool:
    """Whether a file is a JPEG that announces a gain map. Raises BadInput for one that cannot be opened."""
    data = _read(path, most=1 << 20)
    if not data.startswith(b"\xff\xd8"):
        return False
    try:
        return has_gain_map(data, str(path))
    except BadInput:
        return False


def read_ultrahdr(path: str | Path) -> Frame:
    """The HDR picture of an Ultra HDR JPEG file; see `decode_ultrahdr`."""
    return decode_ultrahdr(_read(path, most=MAX_JPEG_BYTES), str(path))


def decode_ultrahdr(data: bytes, name: str = "the picture") -> Frame:
    """The HDR picture with the map applied in full: RGB scene-linear in the base's primaries, 1.0 the base's white.

    As stored: an EXIF orientation is not applied. A base without a known ICC profile counts as sRGB. A smaller map is
    enlarged bilinearly. Raises BadInput (no gain map, damaged, not supported) and TooLarge, naming the file.
    """
    parts = unpack(data, name)
    base = decode_jpeg(parts.base, parts.base_size, name)
    codes = _enlarged(decode_jpeg(parts.gain_map, parts.map_size, f"the gain map of {name}"), parts.base_size)
    interop_id, source = _space_of(parts.icc)
    linear = _linear_of_codes(interop_id)
    pixels = np.empty(base.shape, np.float32)
    for rows in _bands(base.shape[0]):
        pixels[rows] = parts.gain.reconstruct(codes[rows].astype(np.float32), linear[base[rows]])
    if not np.isfinite(pixels).all():
        raise BadInput(f"the gain map of {name} reaches beyond what float32 holds; export it again")
    chromaticities = INTEROP[interop_id].chromaticities or LIN_REC709_SCENE.chromaticities
    linear_id = linear_id_of(chromaticities) if chromaticities else ""
    stated = {"colourspace_from": source, "headroom_stops": parts.gain.headroom_high}
    return Frame(pixels, ("R", "G", "B"), of_interop_id(linear_id), metadata=stated)


def _stops(gain: LogGain, light_hwc: Float32, base_hwc: Byte) -> Iterator[tuple[slice, Float32]]:
    linear = _linear_of_codes(SRGB_REC709_SCENE.interop_id)
    for rows in _bands(len(light_hwc)):
        yield rows, gain.stops(light_hwc[rows], linear[base_hwc[rows]])


def _linear_of_codes(interop_id: str) -> Float32:
    """The linear light of each of the 256 codes."""
    codes = np.arange(256, dtype=np.float32) / np.float32(255)
    transfer = INTEROP[interop_id].transfer
    return codes if transfer is None else transfer.decode(codes)


def _ends(stops_hwc: Float32) -> tuple[float, float]:
    return float(stops_hwc.min()), float(stops_hwc.max())


def _bands(height: int) -> list[slice]:
    return [slice(top, min(top + BAND_ROWS, height)) for top in range(0, height, BAND_ROWS)]


def srgb_profile() -> bytes:
    """The ICC profile of sRGB, the same bytes at any time."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[PROFILE_DATE] = FIXED_DATE
    return bytes(profile)


def _enlarged(codes_hwc: Byte, size: tuple[int, int]) -> Byte | Float32:
    if codes_hwc.shape[:2] == size[::-1]:
        return codes_hwc
    planes = [
        np.asarray(Image.fromarray(codes_hwc[..., c].astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
        for c in range(3)
    ]
    return np.stack(planes, axis=2)


def _space_of(icc: bytes) -> tuple[str, str]:
    """The interop id of the base's space and where it was found."""
    if not icc:
        return "srgb_rec709_scene", "assumed"
    try:
        words = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(icc))).strip().lower()
    except (ImageCms.PyCMSError, *DAMAGED):
        return "srgb_rec709_scene", "assumed; the ICC profile cannot be read"
    found = next((space for word, space in ICC_SPACES if word in words), "")
    return found or "srgb_rec709_scene", "ICC profile" if found else f"assumed; the ICC profile {words!r} is not known"


def _read(path: str | Path, most: int) -> bytes:
    file = readable_file(path)
    if most == MAX_JPEG_BYTES and file.stat().st_size > most:
        raise TooLarge(f"{file} is over {most >> 20} MiB; it is no Ultra HDR JPEG that this program writes")
    with file.open("rb") as stream:
        return stream.read(most)
