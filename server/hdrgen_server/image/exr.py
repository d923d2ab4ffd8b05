"""Reads EXR files into frames and writes frames as EXR files, through OpenEXR.

It owns decoding, encoding and the wrapping of OpenEXR's failures; the plan of what to read is `exr_parts`,
the colour tag `tags`. It must not know OCIO, sockets or what an operation is.
"""

from __future__ import annotations

import io
from collections.abc import Generator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import OpenEXR

from hdrgen_server.contracts.frame import Box, Colourspace, Frame
from hdrgen_server.image.alpha import premultiply, straighten
from hdrgen_server.image.exr_parts import Limits, PartPlan, ViewPlan, plan_parts
from hdrgen_server.image.files import readable_file, write_beside
from hdrgen_server.image.tags import LIN_REC709_SCENE, read_tag, write_tag
from nuke_hdrgen.wire.errors import BadInput, BadParameter, StorageError

Source = str | Path | bytes | bytearray | memoryview
Attribute = str | int | float

HALF_MAX = 65504.0
COMPRESSIONS: Mapping[str, Any] = {
    "none": OpenEXR.NO_COMPRESSION,
    "zips": OpenEXR.ZIPS_COMPRESSION,
    "zip": OpenEXR.ZIP_COMPRESSION,
    "piz": OpenEXR.PIZ_COMPRESSION,
    "dwab": OpenEXR.DWAB_COMPRESSION,
}
# What OpenEXR's Python raises for broken files; UnicodeDecodeError is a ValueError.
OPENEXR_FAILURES = (ValueError, RuntimeError, MemoryError)
CHANNEL_DTYPES = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.uint32))
# Attributes that describe the file's own layout: they are read from fields of the frame, never from its
# metadata.
LAYOUT_ATTRIBUTES = frozenset({
    "channels", "chromaticities", "colorInteropID", "compression", "dataWindow",
    "displayWindow", "lineOrder", "multiView", "name", "pixelAspectRatio",
    "screenWindowCenter", "screenWindowWidth", "type", "version", "view",
    "chunkCount", "tiles", "preview", "maxSamplesPerPixel", "dwaCompressionLevel",
})  # fmt: skip
# What reading notes down about a file: true of that file only, so never written into another.
NOTES = frozenset({"bits", "colourspace_from", "part", "parts_left_out", "clip_level", "black_level", "white_level"})
# Attribute types that OpenEXR both reads and writes; others (previews, opaque ones) are not carried on.
CARRIED_TYPES = (str, int, float, list, Fraction, np.ndarray, OpenEXR.TimeCode, OpenEXR.KeyCode)
# What photographs call their exposure, and the EXR standard attribute for it.
EXPOSURE_ATTRIBUTES = {"exposure_time": "expTime", "aperture": "aperture", "iso": "isoSpeed"}


def read_exr(
    source: Source, limits: Limits | None = None, default: Colourspace = LIN_REC709_SCENE, name: str = ""
) -> list[Frame]:
    """Read every part and view of an EXR, in file order.

    `source` is a path, or the bytes of a file; `name` is what errors call those bytes. Pixels come back
    straight (colour divided by alpha), float32 (H, W, C) in the file's own colourspace, with the channels
    that are not RGB(A) or Y(A) in `layers` in the file's own type. A part without colour gives its first
    channel as `data`, with all of its channels in `layers`. An untagged part gets `default`;
    `metadata["colourspace_from"]` says which it was. Attributes of the header (`expTime`, `isoSpeed`,
    `hdrgen/key` …) are in `metadata` under their own names.

    Raises BadInput (unreadable, deep, subsampled) or TooLarge, before decoding where the header tells.
    """
    label = _label(source, name)
    with _broken_is_bad_input(label):
        plans = plan_parts([part.header for part in _open(source, header_only=True)], limits or Limits(), label)
        parts = _open(source, header_only=False)
        if len(parts) != len(plans):
            raise BadInput(f"{label} is truncated or damaged; export it again")
        read = [(plan, _planes(plan, part, label)) for plan, part in zip(plans, parts, strict=True)]
    return [_frame(plan, view, planes, default) for plan, planes in read for view in plan.views]


def read_exr_frame(
    source: Source,
    limits: Limits | None = None,
    default: Colourspace = LIN_REC709_SCENE,
    name: str = "",
    view: str | None = None,
) -> Frame:
    """Read the colour of an EXR as one frame: the first part with RGB or Y, of `view` when one is named.

    Channels of other parts of the same view and data window join its layers, as `part.channel` where the
    plain name is taken; parts with another window are named in `metadata["parts_left_out"]`. Raises what
    `read_exr` raises, and BadInput when no part has colour or the view does not exist.
    """
    frames = read_exr(source, limits, default, name)
    label = _label(source, name)
    views = sorted({str(frame.metadata["view"]) for frame in frames if frame.metadata.get("view")})
    if view is not None and view not in views:
        raise BadInput(f"{label} has no view {view!r}; it has: {', '.join(views) or 'one unnamed view'}")
    chosen = next((f for f in frames if _has_colour(f) and view in (None, f.metadata.get("view"))), None)
    if chosen is None:
        found = sorted({channel for frame in frames for channel in frame.layers})
        raise BadInput(f"{label} has neither RGB nor Y channels; it has: {', '.join(found[:12])}")
    layers = dict(chosen.layers)
    left_out: list[str] = []
    for frame in frames:
        if frame is chosen or frame.metadata.get("view") != chosen.metadata.get("view"):
            continue
        part = str(frame.metadata.get("part", "part"))
        if frame.data_window != chosen.data_window:
            left_out.append(part)
            continue
        for channel, plane in _all_planes(frame).items():
            taken = channel in layers or channel in chosen.channels
            layers[f"{part}.{channel}" if taken else channel] = plane
    metadata = dict(chosen.metadata)
    if left_out:
        metadata["parts_left_out"] = ", ".join(left_out)
    return replace(chosen, layers=layers, metadata=metadata)


def read_exr_header(source: Source, name: str = "") -> Mapping[str, Any]:
    """The attributes of an EXR's first part, its pixels left unread. Raises what `read_exr` raises before decoding."""
    label = _label(source, name)
    with _broken_is_bad_input(label):
        return dict(plan_parts([part.header for part in _open(source, header_only=True)], Limits(), label)[0].header)


def encode_exr(
    frame: Frame,
    compression: str = "zip",
    half: bool | None = None,
    attributes: Mapping[str, Attribute] | None = None,
) -> bytes:
    """The bytes of a one-part scanline EXR holding the frame.

    Colour is multiplied by alpha; layers are written in their own type. `half=None` writes half floats
    unless a finite colour value exceeds 65504, then floats; alpha is written as float where half would
    change it. `attributes` are added to (and win over) the frame's metadata; `hdrgen/*` attributes come
    from `attributes` alone, so that a result never carries its source's record. DWAB is lossy for colour.

    Raises BadParameter for an unknown compression, or `half=True` with values that half cannot hold;
    BadInput for layers of the wrong type or size, contradictory colour tags and integers beyond 32 bits.
    """
    if compression not in COMPRESSIONS:
        raise BadParameter(f"unknown EXR compression {compression!r}; use one of: {', '.join(COMPRESSIONS)}")
    window = frame.data_window or Box.of_size(frame.width, frame.height)
    display = frame.display_window or window
    header: dict[str, Any] = _carried(frame.metadata)
    header |= dict(attributes or {})
    for name, value in header.items():
        if isinstance(value, int) and not -(2**31) <= value < 2**31:  # OpenEXR would write 0
            raise BadInput(f"attribute {name} = {value} does not fit an EXR integer; give it as text")
    header |= {
        "type": OpenEXR.scanlineimage,
        "compression": COMPRESSIONS[compression],
        "dataWindow": _corners(window),
        "displayWindow": _corners(display),
        "pixelAspectRatio": float(frame.pixel_aspect),
    } | write_tag(frame.colourspace)
    stream = io.BytesIO()
    try:
        OpenEXR.File(header, _file_planes(frame, half)).write(stream)
    except OPENEXR_FAILURES as error:
        raise StorageError(f"OpenEXR could not encode the frame: {_one_line(error)}") from error
    return stream.getvalue()


def write_exr(
    frame: Frame,
    path: str | Path,
    compression: str = "zip",
    half: bool | None = None,
    attributes: Mapping[str, Attribute] | None = None,
) -> None:
    """Write the frame as an EXR beside `path` and rename it into place; see `encode_exr` for the arguments.

    Raises StorageError when the folder is missing, read-only or full (no partial file stays), and what
    `encode_exr` raises.
    """
    write_beside(path, encode_exr(frame, compression, half, attributes))


def _label(source: Source, name: str) -> str:
    return name or (str(source) if isinstance(source, str | Path) else "EXR data")


def _open(source: Source, *, header_only: bool) -> list[Any]:
    """The parts of a file; errors are OpenEXR's own, but for a path that cannot be opened."""
    in_memory = isinstance(source, bytes | bytearray | memoryview)
    stream: Any = io.BytesIO(source) if in_memory else str(readable_file(source))
    with redirect_stdout(io.StringIO()):  # OpenEXR prints a warning there for every part that it drops
        return list(OpenEXR.File(stream, separate_channels=True, header_only=header_only).parts)


@contextmanager
def _broken_is_bad_input(label: str) -> Generator[None]:
    """OpenEXR fails where it is opened and, for names that are no text, wherever its objects are looked
    at.
    """
    try:
        yield
    except OPENEXR_FAILURES as error:
        raise BadInput(f"cannot read {label} as EXR: {_one_line(error)}; export it again") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _planes(plan: PartPlan, part: Any, label: str) -> dict[str, npt.NDArray[Any]]:
    """The decoded planes of a part, checked against the header's promise."""
    shape = (plan.data_window.height, plan.data_window.width)
    planes: dict[str, npt.NDArray[Any]] = {}
    for name, channel in part.channels.items():
        pixels = channel.pixels
        if not isinstance(pixels, np.ndarray) or pixels.shape != shape or pixels.dtype not in CHANNEL_DTYPES:
            raise BadInput(f"{label} has no usable pixels in channel {name}; export it again")
        planes[str(name)] = pixels
    wanted = {channel for view in plan.views for channel in (*view.colour.values(), *view.layers.values())}
    if missing := sorted(wanted - planes.keys()):
        raise BadInput(f"{label} is missing channel {missing[0]} that its header lists; export it again")
    for name in (channel for view in plan.views for channel in view.colour.values()):
        if planes[name].dtype == np.uint32:
            raise BadInput(f"{label} holds integers in channel {name}; export colour as half or float")
    return planes


def _frame(plan: PartPlan, view: ViewPlan, planes: Mapping[str, npt.NDArray[Any]], default: Colourspace) -> Frame:
    layers = {name: planes[channel] for name, channel in view.layers.items()}
    metadata = {key: value for key, value in plan.header.items() if key not in LAYOUT_ATTRIBUTES}
    metadata |= {key: value for key, value in (("part", plan.name), ("view", view.view)) if value}
    if view.colour:
        colourspace, metadata["colourspace_from"] = read_tag(plan.header, default)
        channels = tuple(view.colour)
        pixels = np.empty((plan.data_window.height, plan.data_window.width, len(channels)), np.float32)
        for index, name in enumerate(channels):
            pixels[..., index] = planes[view.colour[name]]
        if "A" in channels and colourspace.range != "data":
            pixels = straighten(pixels, channels.index("A"))
    else:
        colourspace = Colourspace("data", "data", None, "data")
        channels = (next(iter(layers)),)
        pixels = layers[channels[0]].astype(np.float32)[..., None]
    return Frame(
        pixels=np.ascontiguousarray(pixels),
        channels=channels,
        colourspace=colourspace,
        data_window=plan.data_window,
        display_window=plan.display_window,
        pixel_aspect=plan.pixel_aspect,
        metadata=metadata,
        layers=layers,
    )


def _has_colour(frame: Frame) -> bool:
    return not set(frame.channels) <= set(frame.layers)


def _all_planes(frame: Frame) -> dict[str, npt.NDArray[Any]]:
    colour = {name: frame.pixels[..., index] for index, name in enumerate(frame.channels)}
    return {name: np.ascontiguousarray(plane) for name, plane in (colour | dict(frame.layers)).items()}


def _carried(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata that goes into a file: plain values, exposure under its EXR names, no foreign `hdrgen/`
    record.
    """
    carried: dict[str, Any] = {}
    for key, value in metadata.items():
        name = EXPOSURE_ATTRIBUTES.get(key, key)
        if name in LAYOUT_ATTRIBUTES | NOTES or name.startswith("hdrgen/") or isinstance(value, bool):
            continue
        if isinstance(value, CARRIED_TYPES):
            carried[name] = float(value) if name in EXPOSURE_ATTRIBUTES.values() else value
    return carried


def _corners(box: Box) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    return np.array([box.x_min, box.y_min], np.int32), np.array([box.x_max, box.y_max], np.int32)


def _file_planes(frame: Frame, half: bool | None) -> dict[str, npt.NDArray[Any]]:
    """Every channel of the file as a contiguous plane in the type that it is written in."""
    pixels = frame.pixels
    has_alpha = "A" in frame.channels and frame.colourspace.range != "data"
    if has_alpha:
        pixels = premultiply(pixels, frame.channels.index("A"))
    colour = [index for index, name in enumerate(frame.channels) if not (has_alpha and name == "A")]
    fits = all(_fits_half(pixels[..., index]) for index in colour)
    if half and not fits:
        raise BadParameter("the frame holds values above 65504, which half floats cannot; write it as float")
    colour_type = np.float16 if (fits if half is None else half) else np.float32
    planes: dict[str, npt.NDArray[Any]] = {}
    for index, name in enumerate(frame.channels):
        plane = pixels[..., index]
        kind = colour_type if index in colour else _alpha_type(plane)
        planes[name] = np.ascontiguousarray(plane, dtype=kind)
    for name, layer in frame.layers.items():
        if layer.shape != (frame.height, frame.width) or layer.dtype not in CHANNEL_DTYPES:
            raise BadInput(
                f"layer {name} is {layer.dtype} {layer.shape}; give half, float or uint32 of the frame's size"
            )
        planes[name] = np.ascontiguousarray(layer)
    return planes


def _fits_half(plane: npt.NDArray[np.float32]) -> bool:
    """True when no finite value is beyond the largest half float; infinities stay infinities in half."""
    high, low = float(plane.max()), float(plane.min())
    if np.isfinite(high) and np.isfinite(low):
        return max(high, -low) <= HALF_MAX
    finite = plane[np.isfinite(plane)]
    return finite.size == 0 or float(np.abs(finite).max()) <= HALF_MAX


def _alpha_type(alpha: npt.NDArray[np.float32]) -> type[np.float16] | type[np.float32]:
    with np.errstate(over="ignore"):
        exact = np.array_equal(alpha.astype(np.float16).astype(np.float32), alpha, equal_nan=True)
    return np.float16 if exact else np.float32
