"""Develops camera raw files into linear frames through rawpy (LibRaw), an optional extra loaded on first use.

It owns the development settings and the clip point. It must not know OCIO or brackets.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from hdrgen_server.contracts.frame import Frame
from hdrgen_server.image.files import readable_file
from hdrgen_server.image.tags import LIN_REC709_SCENE
from nuke_hdrgen.wire.errors import BadInput

RAW_SUFFIXES = frozenset(
    {".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".fff", ".iiq", ".mef", ".mos", ".mrw"}
    | {".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"}
)


def read_raw(path: str | Path) -> Frame:
    """Develop a camera raw: linear Rec.709, camera white balance, no automatic brightness, sensor white at
    1.0.

    16-bit output of LibRaw as float32 (H, W, 3). Metadata: `bits` 16; `black_level` and `white_level` of
    the sensor, which are used as they stand (LibRaw's guess of another white level from the picture is
    off); `clip_level` 1.0, where a neutral pixel clips: after white balance every channel is cut at the
    value that the least sensitive one has at the white level. A saturated colour can have lost one channel
    a little below that. Exposure as for photographs, where the file tells it. Raises BadInput when rawpy is
    not installed or the file cannot be developed.
    """
    file = readable_file(path)
    try:
        rawpy: Any = importlib.import_module("rawpy")
    except ImportError as error:
        raise BadInput(f"{file} is a camera raw; install the extra for it: pip install 'nuke-hdrgen[raw]'") from error
    try:
        with rawpy.imread(str(file)) as raw:
            codes = raw.postprocess(
                gamma=(1, 1),
                no_auto_bright=True,
                adjust_maximum_thr=0.0,
                use_camera_wb=True,
                output_bps=16,
                output_color=rawpy.ColorSpace.sRGB,
                highlight_mode=rawpy.HighlightMode.Clip,
            )
            black, white = [int(level) for level in raw.black_level_per_channel], int(raw.white_level)
            exposure = _exposure(raw)
    except (rawpy.LibRawError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise BadInput(f"cannot develop {file}: {reason}; export it as DNG or EXR") from error
    if codes.ndim != 3 or codes.shape[2] != 3:
        raise BadInput(f"{file} has {codes.shape[-1]} colour channels; export it as EXR")
    pixels = codes.astype(np.float32)
    pixels /= np.float32(65535.0)
    metadata = {
        "bits": 16,
        "black_level": max(black, default=0),
        "white_level": white,
        "clip_level": 1.0,
    } | exposure
    return Frame(pixels, ("R", "G", "B"), LIN_REC709_SCENE, metadata=metadata | {"colourspace_from": "developed"})


def _exposure(raw: Any) -> dict[str, float]:
    """Exposure of a raw file under the names that photographs use, where the file tells it."""
    other = raw.other
    found = {"exposure_time": other.shutter_speed, "aperture": other.aperture, "iso": other.iso_speed}
    return {name: float(value) for name, value in found.items() if value and float(value) > 0}
