"""Pictures for people: an exposure ladder and a false-colour map of a scene-linear frame, as 8-bit sRGB
arrays.

It owns layout, labels and palettes. It must not know metrics or operations; files go through `save_png`
alone.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from hdrgen_server.colour.curves import CURVES
from hdrgen_server.colour.primaries import luminance_weights, rgb_to_rgb
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.image.files import write_beside
from nuke_hdrgen.wire.errors import BadInput

Float32 = npt.NDArray[np.float32]
Byte = npt.NDArray[np.uint8]

LADDER_EVS = (-4.0, -2.0, 0.0, 2.0)
MID_GREY = 0.18
GAP = 6
LABEL_HEIGHT = 22
BACKGROUND = (24, 24, 24)
TEXT = (230, 230, 230)
NOT_FINITE = (255, 0, 255)
# False colour: each band's lower edge in stops from mid-grey (0.18), and its sRGB colour. 2.47 stops is
# 1.0, diffuse white: cold below mid-grey, green at it, warm above, white and violet beyond diffuse white.
BANDS: tuple[tuple[float, tuple[int, int, int]], ...] = (
    (-np.inf, (10, 10, 16)), (-8.0, (40, 24, 90)), (-6.0, (44, 60, 160)), (-4.0, (40, 120, 190)),
    (-2.0, (70, 165, 170)), (-0.5, (70, 160, 70)), (0.5, (150, 190, 60)), (1.5, (225, 205, 60)),
    (2.47, (235, 150, 40)), (4.0, (215, 70, 40)), (6.0, (150, 20, 60)), (8.0, (225, 130, 190)),
    (10.0, (255, 255, 255)),
)  # fmt: skip


def exposure_ladder(frame: Frame, evs: Sequence[float] = LADDER_EVS, tile_width: int = 480, columns: int = 2) -> Byte:
    """A contact sheet of the frame at several exposures: (H, W, 3) uint8 sRGB, one labelled tile for each EV.

    Each tile is the linear frame times 2^EV in Rec.709, area-averaged to at most `tile_width` (never
    enlarged), clipped to 0..1 and sRGB-encoded: what stopping it down shows. NaN and Inf pixels are
    magenta. Raises BadInput unless the frame is scene-linear.
    """
    return tile_sheet(exposure_tiles(frame, evs, tile_width), columns)


def exposure_tiles(frame: Frame, evs: Sequence[float], tile_width: int) -> list[tuple[str, Byte]]:
    """The labelled tiles of `exposure_ladder`, for sheets of several frames. Raises BadInput as it does."""
    linear, broken = _small_rec709(frame, tile_width)
    return [(f"EV {ev:+g}" if ev else "EV 0", _encoded(linear * np.float32(2.0**ev), broken)) for ev in evs]


def false_colour(frame: Frame, width: int = 960) -> Byte:
    """Luminance in stops from mid-grey 0.18 as coloured bands with a legend below: (H, W, 3) uint8 sRGB.

    Zero and negative luminance fall in the lowest band; NaN and Inf are magenta. Raises BadInput unless
    scene-linear.
    """
    linear, broken = _small_rec709(frame, width)
    luminance = linear @ luminance_weights("rec709").astype(np.float32)
    stops = np.log2(np.maximum(luminance, np.float32(1e-30)) / np.float32(MID_GREY))
    edges = np.array([edge for edge, _ in BANDS[1:]], np.float32)
    picture = np.array([colour for _, colour in BANDS], np.uint8)[np.digitize(stops, edges)]
    picture[broken] = NOT_FINITE
    return np.ascontiguousarray(np.concatenate([picture, _legend(picture.shape[1])], axis=0))


def tile_sheet(tiles: Sequence[tuple[str, Byte]], columns: int = 2) -> Byte:
    """Lay out labelled (H, W, 3) uint8 tiles, row by row, on a dark background; every label stands above
    its tile.
    """
    columns = max(1, min(columns, len(tiles)))
    rows = -(-len(tiles) // columns)
    cell_h = max(tile.shape[0] for _, tile in tiles) + LABEL_HEIGHT + GAP
    cell_w = max(max(tile.shape[1], _text_width(label)) for label, tile in tiles) + GAP
    sheet = Image.new("RGB", (columns * cell_w + GAP, rows * cell_h + GAP), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for index, (label, tile) in enumerate(tiles):
        x, y = GAP + (index % columns) * cell_w, GAP + (index // columns) * cell_h
        draw.text((x, y + 2), label, fill=TEXT, font=ImageFont.load_default(14))
        sheet.paste(Image.fromarray(tile), (x, y + LABEL_HEIGHT))
    return np.asarray(sheet, np.uint8)


def save_png(picture: Byte, path: str | Path) -> None:
    """Write an (H, W, 3) uint8 picture as PNG beside `path` and rename it. Raises StorageError."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    write_beside(path, stream.getvalue())


def area_downscale(linear_hwc: Float32, height: int, width: int) -> Float32:
    """Average (H, W, C) over the exact area of each output pixel; linear light in, linear light out."""
    rows = _area_weights(linear_hwc.shape[0], height)
    columns = _area_weights(linear_hwc.shape[1], width)
    narrow = np.einsum("ow,hwc->hoc", columns, linear_hwc, optimize=True)
    return np.einsum("oh,hwc->owc", rows, narrow, optimize=True).astype(np.float32)


def _area_weights(source: int, target: int) -> Float32:
    """(target, source) weights: the share of each output pixel's span that each input pixel covers; rows
    sum to 1.
    """
    edges = np.linspace(0.0, source, target + 1)
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(source)[None, :]
    cover = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0.0, None)
    return (cover / (high - low)).astype(np.float32)


def _small_rec709(frame: Frame, width: int) -> tuple[Float32, npt.NDArray[np.bool_]]:
    """The frame's rgb in linear Rec.709 at most `width` wide, and which of its pixels hold a NaN or Inf."""
    if frame.colourspace.range != "scene_linear":
        raise BadInput(f"a preview needs a scene-linear frame, this one is {frame.colourspace.name}; convert it first")
    rgb = frame.rgb
    bad: npt.NDArray[np.bool_] = np.logical_not(np.isfinite(rgb).all(axis=2))
    linear = np.where(bad[..., None], np.float32(0.0), rgb)
    target_w = min(width, frame.width)
    target_h = max(1, round(frame.height * target_w / frame.width))
    small = area_downscale(linear, target_h, target_w)
    broken = area_downscale(bad[..., None].astype(np.float32), target_h, target_w)[..., 0] > 0.0
    if frame.colourspace.chromaticities is not None:
        small = small @ rgb_to_rgb(frame.colourspace.chromaticities, "rec709").T.astype(np.float32)
    return small, broken


def _encoded(linear_rec709: Float32, broken: npt.NDArray[np.bool_]) -> Byte:
    codes = CURVES["srgb"].encode(np.clip(linear_rec709, 0.0, 1.0))
    picture = np.round(np.clip(codes, 0.0, 1.0) * 255.0).astype(np.uint8)
    picture[broken] = NOT_FINITE
    return picture


def _legend(width: int) -> Byte:
    """A strip of the bands with the lower edge of each, in as many rows as the width needs."""
    labels = [f"< {BANDS[1][0]:g}", *(f"{edge:+g}" for edge, _ in BANDS[1:])]
    cell = 22 + max(_text_width(label) for label in labels)
    per_row = max(1, (width - GAP) // cell)
    rows = -(-len(labels) // per_row)
    strip = Image.new("RGB", (width, rows * LABEL_HEIGHT + GAP), BACKGROUND)
    draw = ImageDraw.Draw(strip)
    for index, (label, (_, colour)) in enumerate(zip(labels, BANDS, strict=True)):
        x, y = GAP + (index % per_row) * cell, GAP + (index // per_row) * LABEL_HEIGHT
        draw.rectangle((x, y, x + 13, y + 13), fill=colour, outline=(90, 90, 90))
        draw.text((x + 17, y - 1), label, fill=TEXT, font=ImageFont.load_default(12))
    return np.asarray(strip, np.uint8)


def _text_width(text: str) -> int:
    return int(ImageFont.load_default(14).getlength(text)) + 2
