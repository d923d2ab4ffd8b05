"""EXR files as Nuke's Read and Write nodes treat them.

It owns names of channels and metadata, frames outside a Read's range, and what a Write's knobs mean for the file. It
must not know how the written picture came about.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import OpenEXR

from tests.fakes.nuke.errors import NukeError
from tests.fakes.nuke.expressions import evaluate, parse
from tests.fakes.nuke.pixels import RGBA, Picture, channels, pull
from tests.fakes.nuke.scope import names

if TYPE_CHECKING:
    from tests.fakes.nuke.nodes import Node

SHORT = dict(zip("RGBA", RGBA))
LONG = {channel: letter for letter, channel in SHORT.items()}
COMPRESSIONS = {
    "none": OpenEXR.NO_COMPRESSION,
    "Zip (1 scanline)": OpenEXR.ZIPS_COMPRESSION,
    "Zip (16 scanlines)": OpenEXR.ZIP_COMPRESSION,
}
BITS = {"16 bit half": np.float16, "32 bit float": np.float32}
# Header attributes that say how the file is laid out; a Write never copies them.
LAYOUT = frozenset({
    "channels", "compression", "dataWindow", "displayWindow", "lineOrder", "pixelAspectRatio", "screenWindowCenter",
    "screenWindowWidth", "type", "name", "view", "version", "chunkCount",
})  # fmt: skip
LINEAR = frozenset({"default", "linear", "scene_linear"})


def read(node: Node, frame: int, black: Picture) -> Picture:
    """A Read's picture at a frame. Raises RuntimeError for a missing or broken file where on_error says so.

    A file that was not there stays missing until the Read's `reload` is pressed, as an error does in Nuke.
    """
    at = _file_frame(node, frame)
    if at is None:
        return black
    if not node["raw"].valueAt(frame) and node["colorspace"].value() not in LINEAR:
        raise NukeError(f"{node._path()}: this Nuke converts no colourspace")
    if node["proxy"].value():
        raise NukeError(f"{node._path()}: this Nuke has no proxy files")
    text = node["file"].evaluate(at)
    failed = node._nuke._failed_reads
    try:
        if (node, text) in failed:
            raise RuntimeError(f"{text}: No such file or directory")
        return _opened(node, text, at)
    except (OSError, RuntimeError, ValueError) as error:
        failed.add((node, text))
        policy = node["on_error"].value()
        if policy == "black":
            return black
        if policy != "error":
            raise NukeError(f"{node._path()}.on_error {policy}: this Nuke knows error and black") from None
        raise RuntimeError(f"{node._path()}: {error}") from None


def _file_frame(node: Node, frame: int) -> int | None:
    if node["frame_mode"].value() != "expression":
        raise NukeError(f"{node._path()}.frame_mode: this Nuke knows only expression")
    if node["frame"].value():
        frame = int(evaluate(parse(node["frame"].value()), names(node, frame)))
    first, last = int(node["first"].valueAt(frame)), int(node["last"].valueAt(frame))
    if first <= frame <= last:
        return frame
    outside = node["before" if frame < first else "after"].valueAt(frame)
    if outside == "hold":
        return first if frame < first else last
    if outside == "loop":
        return first + (frame - first) % (last - first + 1)
    if outside == "black":
        return None
    raise NukeError(f"{node._path()}: this Nuke does not {outside}")


def _opened(node: Node, text: str, frame: int) -> Picture:
    path = Path(text)
    if not text or not path.is_file():
        raise RuntimeError(f"{text}: No such file or directory")
    if path.suffix != ".exr":
        raise NukeError(f"{node._path()}: this Nuke reads EXRs, not {text!r}")
    if path.stat().st_size == 0:
        raise RuntimeError(f"{text}: empty file")
    with OpenEXR.File(str(path), separate_channels=True) as file:
        parts = list(file.parts)
        header = dict(parts[0].header)
        planes = {
            SHORT.get(name, name if "." in name else f"other.{name}"): np.array(channel.pixels, np.float32)
            for part in parts
            for name, channel in part.channels.items()
        }
    (left, top), (right, bottom) = header["dataWindow"]
    (_, _), (width, height) = header["displayWindow"]
    box = (int(left), int(top), int(right - left + 1), int(bottom - top + 1))
    for plane in planes.values():
        if plane.shape != (box[3], box[2]):
            raise NukeError(f"{node._path()}: {text} has parts of several sizes")
    if node["auto_alpha"].valueAt(frame) and RGBA[3] not in planes:
        planes[RGBA[3]] = np.ones((box[3], box[2]), np.float32)
    metadata: dict[str, Any] = {
        "input/filename": text,
        "input/filereader": "exr",
        "input/frame": frame,
        "input/width": int(width) + 1,
        "input/height": int(height) + 1,
    }
    metadata.update({f"exr/{name}": _plain(value) for name, value in header.items() if name not in LAYOUT})
    for name in planes:
        layer = name.split(".")[0]
        known = node._nuke._layers.setdefault(layer, [])
        if name not in known:
            known.append(name)
    return Picture(planes, box, (int(width) + 1, int(height) + 1), metadata)


def _plain(value: Any) -> Any:
    if isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (tuple, list, np.ndarray)):
        return [_plain(item) for item in value]
    return value.item() if hasattr(value, "item") else str(value)


def write(node: Node, frame: int, path: Path) -> None:
    """Write what flows into a Write. Raises RuntimeError where the picture cannot be made or the file not written."""
    if not node["raw"].valueAt(frame) and node["colorspace"].value() not in LINEAR:
        raise NukeError(f"{node._path()}: this Nuke converts no colourspace")
    if node["autocrop"].valueAt(frame) or node["transformType"].value() != "colorspace":
        raise NukeError(f"{node._path()}: this Nuke knows neither autocrop nor displays")
    source = node.input(0)
    assert source is not None
    picture = pull(source, frame)
    if node._nuke._root["proxy"].value():
        picture = _halved(picture)
    bits, compression = BITS[node["datatype"].value()], node["compression"].value()
    if compression not in COMPRESSIONS:
        raise NukeError(f"{node._path()}.compression: this Nuke knows {', '.join(COMPRESSIONS)}")
    with np.errstate(over="ignore"):
        planes = {
            LONG.get(name, name): np.ascontiguousarray(picture.plane(name), bits)
            for name in channels(node, "channels", picture)
        }
    if not planes or not picture.box[2] or not picture.box[3]:
        raise RuntimeError(f"{node._path()}: nothing to write")
    x, y, width, height = picture.box
    header = {
        **_kept(node["metadata"].value(), picture.metadata),
        "type": OpenEXR.scanlineimage,
        "compression": COMPRESSIONS[compression],
        "dataWindow": (np.array([x, y], np.int32), np.array([x + width - 1, y + height - 1], np.int32)),
        "displayWindow": (
            np.zeros(2, np.int32), np.array([picture.format[0] - 1, picture.format[1] - 1], np.int32),
        ),
    }  # fmt: skip
    try:
        OpenEXR.File(header, planes).write(str(path))
    except (OSError, RuntimeError) as error:
        raise RuntimeError(f"{node._path()}: {path}: {error}") from None


def _kept(mode: str, metadata: dict[str, Any]) -> dict[str, Any]:
    if mode in {"no metadata", "default metadata"}:
        return {}
    kept: dict[str, Any] = {}
    for full, value in metadata.items():
        key = full.removeprefix("exr/")
        dropped = mode == "default metadata and exr/*" or (mode.endswith("except input/*") and key.startswith("input/"))
        if key == full and dropped:
            continue
        if key not in LAYOUT and isinstance(value, (str, int, float)):
            kept[key] = value
        elif key == "chromaticities":
            kept[key] = tuple(value)
    return kept


def _halved(picture: Picture) -> Picture:
    """What proxy mode leaves of a picture."""
    planes = {name: plane[::2, ::2] for name, plane in picture.planes.items()}
    x, y, width, height = picture.box
    size = (picture.format[0] // 2, picture.format[1] // 2)
    return Picture(planes, (x // 2, y // 2, -(-width // 2), -(-height // 2)), size, picture.metadata)
