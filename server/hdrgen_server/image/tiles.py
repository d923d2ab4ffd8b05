"""Cuts a frame into overlapping tiles, runs a function on each and blends the results without seams.

It owns the plan, the padding and the blending windows, in float32. It must not know what the function does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nuke_hdrgen.wire.errors import BadParameter

Float32 = npt.NDArray[np.float32]
TileFunction = Callable[[Float32], Float32]


@dataclass(frozen=True, eq=False)
class Span:
    """One tile along one axis: pixels start..stop of the frame, and the weight (stop - start,) of each in
    the blend.

    At every pixel the weights of all spans of an axis add up to 1.
    """

    start: int
    stop: int
    weights: Float32

    @property
    def length(self) -> int:
        """Number of pixels."""
        return self.stop - self.start


@dataclass(frozen=True, eq=False)
class Tile:
    """One tile: its rows and columns in the frame, and the size that it is padded to before the function
    sees it.
    """

    rows: Span
    columns: Span
    padded_height: int
    padded_width: int


def plan_tiles(height: int, width: int, tile: int, overlap: int, multiple: int = 1) -> list[Tile]:
    """Cover height x width with tiles of at most `tile` pixels a side, neighbours sharing at least
    `overlap` pixels.

    Every tile is padded up to a multiple of `multiple`, and starts at one where the overlap leaves room for
    that, so that a network's strides fall on the same pixels as untiled. `tile` 0 means one tile. All tiles
    of a frame that needs more than one are padded to the same size, so that a compiled function sees one
    shape. Row-major. Raises
    BadParameter for a size below 1, an overlap that leaves no room, or a tile that is no multiple.
    """
    if min(height, width, multiple) < 1 or overlap < 0 or tile < 0:
        raise BadParameter(f"cannot tile {width}x{height} with tile {tile}, overlap {overlap}, multiple {multiple}")
    if tile and (tile % multiple or overlap * 2 > tile):
        raise BadParameter(f"tile {tile} must be a multiple of {multiple} and at least twice the overlap of {overlap}")
    row_spans, column_spans = _spans(height, tile, overlap, multiple), _spans(width, tile, overlap, multiple)
    return [
        Tile(rows, columns, _round_up(rows.length, multiple), _round_up(columns.length, multiple))
        for rows in row_spans
        for columns in column_spans
    ]


def pad_to(array_hwc: Float32, height: int, width: int) -> Float32:
    """Grow (H, W, C) at the bottom and right to height x width by reflection, by the edge where that is too
    short.
    """
    padded = array_hwc
    for axis, target in ((0, height), (1, width)):
        while padded.shape[axis] < target:
            missing = target - padded.shape[axis]
            room = padded.shape[axis] - 1
            widths = [(0, 0)] * padded.ndim
            widths[axis] = (0, min(missing, room) if room else missing)
            padded = np.pad(padded, widths, mode="reflect" if room else "edge")
    return np.ascontiguousarray(padded)


def run_tiled(
    function: TileFunction,
    array_hwc: Float32,
    tile: int,
    overlap: int,
    multiple: int = 1,
    *,
    on_tile: Callable[[int, int], None] | None = None,
) -> Float32:
    """Run `function`, (h, w, C) -> (h, w, C2), over the tiles of a float32 (H, W, C) array and blend to (H,
    W, C2).

    One tile is held at a time beside the output. `on_tile(done, total)` is called after each; what it
    raises (cancel) ends the run. Raises BadParameter as `plan_tiles`, and ValueError when the function
    changes a tile's size.
    """
    height, width = array_hwc.shape[:2]
    tiles = plan_tiles(height, width, tile, overlap, multiple)
    output: Float32 | None = None
    for index, item in enumerate(tiles):
        rows, columns = item.rows, item.columns
        part = array_hwc[rows.start : rows.stop, columns.start : columns.stop]
        result = function(pad_to(part, item.padded_height, item.padded_width))
        if result.shape[:2] != (item.padded_height, item.padded_width):
            raise ValueError(f"a tile of {item.padded_height}x{item.padded_width} came back as {result.shape}")
        if output is None:
            output = np.zeros((height, width, result.shape[2]), np.float32)
        weight = rows.weights[:, None, None] * columns.weights[None, :, None]
        cropped = result[: rows.length, : columns.length]
        output[rows.start : rows.stop, columns.start : columns.stop] += cropped * weight
        if on_tile is not None:
            on_tile(index + 1, len(tiles))
    assert output is not None
    return output


def _spans(length: int, tile: int, overlap: int, multiple: int) -> list[Span]:
    """Evenly spread spans of one axis, with smooth ramps over what neighbours share, normalised to add up
    to 1.
    """
    if tile == 0 or length <= tile:
        return [Span(0, length, np.ones(length, np.float32))]
    grid = multiple if tile - overlap >= multiple else 1
    room = (tile - overlap) // grid * grid
    count = -(-(length - tile) // room) + 1
    starts = [_round_up(-(-index * (length - tile) // (count - 1)), grid) for index in range(count)]
    stops = [min(start + tile, length) for start in starts]
    total = np.zeros(length, np.float32)
    shapes: list[Float32] = []
    for index, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        before = stops[index - 1] - start if index else 0
        after = stop - starts[index + 1] if index + 1 < count else 0
        shapes.append(np.minimum(_ramp(stop - start, before), _ramp(stop - start, after)[::-1]))
        total[start:stop] += shapes[-1]
    return [
        Span(start, stop, (shape / total[start:stop]).astype(np.float32))
        for start, stop, shape in zip(starts, stops, shapes, strict=True)
    ]


def _ramp(length: int, shared: int) -> Float32:
    """Weights that rise over the first `shared` pixels as 6 x^5 - 15 x^4 + 10 x^3, never 0, and stay at 1.

    They are near 0 where a tile knows least, at its edge: a straight ramp let ten times as much of a network's edge
    error through (measured).
    """
    x = np.minimum(np.arange(1, length + 1) / (shared + 1), 1.0)
    return (x**3 * (x * (6 * x - 15) + 10)).astype(np.float32)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
