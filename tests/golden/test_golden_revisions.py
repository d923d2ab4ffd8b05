"""The same inputs must give the same pixels as long as a system's revision stands.

Each embedded pack of an operation has a stored result of the example bracket, of its middle exposure or of a prompt,
reduced to 54 x 36 means in log2. When
the pixels change on purpose, raise `revision` in `packs/systems/NAME.toml`, run `UPDATE_GOLDEN=1 pytest tests/golden`
and look at what changed.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hdrgen_server.cli.direct import load_operator, run_operator
from hdrgen_server.image.reading import read_frame
from hdrgen_server.packs.manifest import Pack
from hdrgen_server.packs.registry import load_registry
from hdrgen_server.settings import load_settings

HERE = Path(__file__).parent
BRACKET = HERE.parents[1] / "examples" / "bracket"
EVS = {"1_under": -2.0, "2_middle": 0.0, "3_over": 2.0}
ROWS, COLUMNS = 36, 54
TOLERANCE_STOPS = 2e-3


INPUTS = {
    "hdrfuse": (tuple(EVS), {"reference": 1}),
    "sdr2hdr": (("2_middle",), {}),
    "txt2hdr": ((), {"prompt": "a room with a window", "width": 432, "height": 288}),
}


def operation_of(pack: Pack) -> str:
    return next((name for name in INPUTS if name in pack.descriptor.operations), "")


def packs() -> list[str]:
    found = load_registry(load_settings()).packs.values()
    return sorted(p.name for p in found if operation_of(p) and "embedded" in p.path.parts)


def result_of(name: str) -> np.ndarray:
    pack = load_registry(load_settings()).get(name)
    stems, parameters = INPUTS[operation_of(pack)]
    frames = [replace(read_frame(BRACKET / f"{stem}.jpg"), ev=EVS[stem]) for stem in stems]
    operator = load_operator(pack, "cpu")
    scene_linear_hwc = run_operator(operator, operation_of(pack), frames, parameters)[0].rgb
    height, width = (n // k * k for n, k in zip(scene_linear_hwc.shape, (ROWS, COLUMNS), strict=False))
    cells = scene_linear_hwc[:height, :width].reshape(ROWS, height // ROWS, COLUMNS, width // COLUMNS, 3)
    return np.log2(np.maximum(cells.mean(axis=(1, 3)), 2.0**-14)).astype(np.float32)


@pytest.mark.parametrize("name", packs())
def test_pixels_change_only_with_the_revision(name: str) -> None:
    pack = load_registry(load_settings()).get(name)
    stated = {"revision": pack.revision, "digest": pack.digest}
    found = result_of(name)
    note, picture = HERE / f"{name}.json", HERE / f"{name}.npy"
    if os.environ.get("UPDATE_GOLDEN"):
        note.write_text(json.dumps(stated, indent=1) + "\n", encoding="utf-8")
        np.save(picture, found)
    kept = json.loads(note.read_text(encoding="utf-8"))
    assert kept == stated, f"{name} changed its revision or weights: run UPDATE_GOLDEN=1 and look at the difference"
    difference = np.abs(found - np.load(picture))
    assert difference.max() <= TOLERANCE_STOPS, (
        f"{name} gives other pixels (up to {difference.max():.4f} stops) at revision {pack.revision}: raise it"
    )
