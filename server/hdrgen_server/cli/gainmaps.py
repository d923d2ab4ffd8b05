"""`--gainmap` and `--gainmap-jpeg`: the finished result as an 8-bit gain map over an SDR picture of the same moment.

It owns what the SDR picture is: the reference photograph itself where the inputs are encoded, else the result cut to
[0, 1] in sRGB. It must not know options, sockets, nor how maps and files are made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hdrgen_server.cli.inputs import Bracket
from hdrgen_server.contracts.frame import Colourspace

PLATE, RESULT = "reference", "result"


@dataclass(frozen=True)
class GainFiles:
    """Where they go; None for what was not asked for."""

    png: Path | None = None
    jpeg: Path | None = None


def write(files: GainFiles, body: bytes | memoryview, bracket: Bracket, space: Colourspace) -> dict[str, Any]:
    """Write the files of one result, given as its EXR's bytes; returns the record for `--json`, {} for none.

    The record counts what eight bits could not hold: `base_cut` samples of the SDR picture beyond [0, 1], and
    `map_below` and `map_above` samples of the result darker or brighter than any map. Raises BadInput and StorageError.
    """
    if files == GainFiles():
        return {}
    from hdrgen_server.colour.sanitise import sanitise
    from hdrgen_server.image.exr import read_exr_frame
    from hdrgen_server.image.files import write_beside
    from hdrgen_server.image.ultrahdr import encode_ultrahdr, gain_map_png, gain_picture, sdr_codes

    result = replace(read_exr_frame(body, name="the result"), colourspace=space)
    plate = bracket.frames[bracket.reference]
    encoded = plate.colourspace.range == "encoded"
    base, cut = sdr_codes(sanitise(plate)[0] if encoded else result)
    picture = gain_picture(result, base)
    if files.png is not None:
        write_beside(files.png, gain_map_png(picture))
    if files.jpeg is not None:
        write_beside(files.jpeg, encode_ultrahdr(picture))
    return {
        "png": None if files.png is None else str(files.png),
        "jpeg": None if files.jpeg is None else str(files.jpeg),
        "base": PLATE if encoded else RESULT,
        "stops": [picture.gain.low[0], picture.gain.high[0]],
        "counts": {"base_cut": cut, "map_below": picture.counts.below, "map_above": picture.counts.above},
    }


def warnings(record: dict[str, Any]) -> list[str]:
    """What a person should know of it: values that the map could not hold."""
    counts = record.get("counts", {})
    held = counts.get("map_below", 0) + counts.get("map_above", 0)
    if not held:
        return []
    return [f"{held} samples of the result are negative or too bright for a gain map and are held at its ends"]
