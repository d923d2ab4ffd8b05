"""Reads photographs, 8- and 16-bit PNG, JPEG and TIFF, into frames through OpenImageIO, with their EXIF
exposure.

It owns code scaling, orientation and exposure. It must not decode curves: pixels stay encoded, as the file
has them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import OpenImageIO

from hdrgen_server.contracts.frame import Colourspace, Frame
from hdrgen_server.image.files import readable_file
from hdrgen_server.image.jpeg import decode_jpeg
from hdrgen_server.image.tags import SRGB_REC709_SCENE, UNTAGGED_IDS, of_interop_id
from hdrgen_server.image.ultrahdr_container import unpack_base
from nuke_hdrgen.wire.errors import BadInput, TooLarge

MAX_SIDE = 32768
MAX_JPEG_BYTES = 1 << 30
FULL_SCALE = {"uint8": 255.0, "uint16": 65535.0}
# A word of an ICC profile's description, and the interop id of its space.
ICC_SPACES = (
    ("display p3", "srgb_p3d65_scene"),
    ("adobe rgb", "g22_adobergb_scene"),
    ("srgb", "srgb_rec709_scene"),
)
# EXIF orientation 2..8 (CIPA DC-008, tag 274) as (transpose first, flip rows, flip columns).
ORIENTATIONS: Mapping[int, tuple[bool, bool, bool]] = {
    2: (False, False, True), 3: (False, True, True), 4: (False, True, False), 5: (True, False, False),
    6: (True, False, True), 7: (True, True, True), 8: (True, True, False),
}  # fmt: skip


def read_photograph(path: str | Path, default: Colourspace = SRGB_REC709_SCENE) -> Frame:
    """Read a PNG, JPEG or TIFF as encoded float32 codes in 0..1 (code / 255 or / 65535), upright, alpha
    straight.

    Channels are RGB, RGBA, Y or YA; of an Ultra HDR JPEG its SDR base. The colourspace is what an ICC profile or the
    file's colour chunk names, else `default`. Metadata: `bits`, and `exposure_time` (seconds), `aperture` (f-number),
    `iso` where EXIF has them. Raises BadInput naming the file when it is missing, truncated, or of another sample type,
    TooLarge over MAX_SIDE.
    """
    file = readable_file(path)
    hints = OpenImageIO.ImageSpec()
    hints.attribute("oiio:UnassociatedAlpha", 1)
    reader: Any = OpenImageIO.ImageInput.open(str(file), hints)
    if reader is None:
        raise BadInput(f"cannot read {file}: {_one_line(OpenImageIO.geterror())}; export it again")
    try:
        spec = reader.spec()
        if max(spec.width, spec.height) > MAX_SIDE:
            raise TooLarge(f"{file} is {spec.width}x{spec.height} pixels, over {MAX_SIDE} on a side")
        sample, names, alpha = str(spec.format), tuple(spec.channelnames), int(spec.alpha_channel)
        base = _ultrahdr_base(file) if sample == "half" and reader.format_name() == "jpeg" else None
        if base is not None:
            sample, names, alpha = "uint8", ("R", "G", "B"), -1
        if sample not in FULL_SCALE or spec.depth > 1 or spec.deep:
            raise BadInput(f"{file} holds {sample} samples; export it as 8- or 16-bit, or as EXR")
        codes: Any = reader.read_image(0, 0, 0, spec.nchannels, spec.format) if base is None else base
        problem = str(reader.geterror())
    finally:
        reader.close()
    if codes is None or problem:
        raise BadInput(f"{file} is truncated or damaged: {_one_line(problem)}; export it again")
    attributes = {str(item.name): item.value for item in spec.extra_attribs}
    channels, kept = _channels(names, alpha, file)
    upright = _upright(codes[..., kept], attributes.get("Orientation", 1))
    pixels = np.ascontiguousarray(upright, dtype=np.float32)
    pixels /= np.float32(FULL_SCALE[sample])
    metadata = {"bits": int(attributes.get("oiio:BitsPerSample", np.dtype(sample).itemsize * 8))}
    colourspace, source = _colourspace(attributes, default)
    return Frame(
        pixels,
        channels,
        colourspace,
        metadata=metadata | {"colourspace_from": source} | _exposure(attributes),
    )


def _ultrahdr_base(file: Path) -> npt.NDArray[np.uint8]:
    """The SDR codes of a JPEG that OpenImageIO would hand out with its gain map applied."""
    if file.stat().st_size > MAX_JPEG_BYTES:
        raise TooLarge(f"{file} is over {MAX_JPEG_BYTES >> 20} MiB; export it smaller")
    return decode_jpeg(*unpack_base(file.read_bytes(), str(file)), str(file))


def exposure_ev(frame: Frame) -> float | None:
    """The absolute exposure of a frame in stops, log2(time x ISO / 100 / aperture^2): one more is twice the
    light.

    Reads EXIF (`exposure_time`, `aperture`, `iso`) or the EXR standard attributes (`expTime`, `aperture`,
    `isoSpeed`). None unless all three are there and above zero, so that a set of frames never mixes
    complete and partial figures.
    """
    metadata = frame.metadata
    time = _positive(metadata.get("exposure_time", metadata.get("expTime")))
    aperture = _positive(metadata.get("aperture"))
    iso = _positive(metadata.get("iso", metadata.get("isoSpeed")))
    if time is None or aperture is None or iso is None:
        return None
    return math.log2(time * (iso / 100.0) / aperture**2)


def _positive(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value > 0 else None


def _exposure(attributes: Mapping[str, Any]) -> dict[str, float]:
    """EXIF exposure under plain names; APEX values stand in where the plain tags are missing (CIPA
    DC-008).
    """
    time = _positive(attributes.get("ExposureTime"))
    shutter = attributes.get("Exif:ShutterSpeedValue")
    if time is None and isinstance(shutter, int | float) and abs(shutter) < 64:
        time = 2.0**-shutter
    aperture = _positive(attributes.get("FNumber"))
    apex = attributes.get("Exif:ApertureValue")
    if aperture is None and isinstance(apex, int | float) and 0 < apex < 32:
        aperture = 2.0 ** (apex / 2)
    sensitivity = attributes.get("Exif:PhotographicSensitivity", attributes.get("Exif:ISOSpeedRatings"))
    if isinstance(sensitivity, tuple) and sensitivity:  # a TIFF's comes as a list of one
        sensitivity = sensitivity[0]
    iso = _positive(sensitivity)
    found = {"exposure_time": time, "aperture": aperture, "iso": iso}
    return {name: value for name, value in found.items() if value is not None}


def _colourspace(attributes: Mapping[str, Any], default: Colourspace) -> tuple[Colourspace, str]:
    profile = str(attributes.get("ICCProfile:profile_description", "")).lower()
    interop_id, source = "", "assumed"
    if profile:
        interop_id = next((space for word, space in ICC_SPACES if word in profile), "")
        source = "ICC profile" if interop_id else f"assumed; the ICC profile {profile!r} is not known"
    elif "CICP" in attributes or "oiio:Gamma" in attributes:
        interop_id, source = str(attributes.get("oiio:ColorSpace", "")), "file"
    if interop_id in UNTAGGED_IDS or interop_id == default.interop_id:
        return default, source
    return of_interop_id(interop_id), source


def _channels(names: tuple[str, ...], alpha: int, file: Path) -> tuple[tuple[str, ...], list[int]]:
    """Channel names of the frame, and which of the file's channels they are."""
    colour = [index for index in range(len(names)) if index != alpha]
    if len(colour) not in (1, 3):
        raise BadInput(f"{file} has the channels {', '.join(names)}; export it as RGB or grey")
    kept = [*colour, alpha] if alpha >= 0 else colour
    plain = ("R", "G", "B") if len(colour) == 3 else ("Y",)
    return (*plain, "A") if alpha >= 0 else plain, kept


def _upright(codes_hwc: npt.NDArray[Any], orientation: object) -> npt.NDArray[Any]:
    transpose, rows, columns = (
        ORIENTATIONS.get(orientation, (False, False, False)) if isinstance(orientation, int) else (False,) * 3
    )
    turned = codes_hwc.transpose(1, 0, 2) if transpose else codes_hwc
    return turned[:: -1 if rows else 1, :: -1 if columns else 1]


def _one_line(text: str) -> str:
    return (" ".join(str(text).split()) or "no reason given")[:160]
