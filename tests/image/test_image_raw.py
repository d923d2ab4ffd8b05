"""Camera raws: a mosaic with known light develops to that light, with the sensor's levels beside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiff_files import dng

from hdrgen_server.image.photograph import exposure_ev
from hdrgen_server.image.reading import read_frame
from nuke_hdrgen.wire.errors import BadInput

BLACK, WHITE = 512, 15360
NEUTRAL = (0.5, 1.0, 0.625)


def mosaic(light: float, size: int = 64) -> np.ndarray:
    """RGGB codes of a grey surface of this linear light, 1.0 being where green clips."""
    camera = np.minimum(np.array(NEUTRAL) * light, 1.0)
    codes = np.rint(BLACK + camera * (WHITE - BLACK)).astype(np.uint16)
    raw = np.empty((size, size), np.uint16)
    raw[0::2, 0::2], raw[0::2, 1::2], raw[1::2, 0::2], raw[1::2, 1::2] = (
        codes[0],
        codes[1],
        codes[1],
        codes[2],
    )
    return raw


@pytest.mark.parametrize("light", [0.0, 0.05, 0.18, 0.5, 0.9])
def test_grey_develops_to_its_light(tmp_path: Path, light: float) -> None:
    path = tmp_path / "a.dng"
    path.write_bytes(dng(mosaic(light), BLACK, WHITE, NEUTRAL))
    frame = read_frame(path)
    assert frame.pixels.shape == (64, 64, 3)
    np.testing.assert_allclose(frame.pixels[8:-8, 8:-8], light, atol=4e-3)
    assert (frame.colourspace.interop_id, frame.colourspace.range) == ("lin_rec709_scene", "scene_linear")
    assert (frame.metadata["black_level"], frame.metadata["white_level"]) == (BLACK, WHITE)


def test_sensor_white_is_the_clip_level(tmp_path: Path) -> None:
    path = tmp_path / "a.dng"
    path.write_bytes(dng(mosaic(4.0), BLACK, WHITE, NEUTRAL))
    frame = read_frame(path)
    assert frame.metadata["clip_level"] == 1.0
    np.testing.assert_allclose(frame.pixels[8:-8, 8:-8], 1.0, atol=2e-3)


def test_exposure_comes_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.dng"
    path.write_bytes(dng(mosaic(0.5), BLACK, WHITE, NEUTRAL))
    assert exposure_ev(read_frame(path)) == pytest.approx(np.log2(0.02 * 4 / 2.8**2), abs=1e-3)


def test_damaged_raws_are_bad_input(tmp_path: Path) -> None:
    path = tmp_path / "a.dng"
    data = dng(mosaic(0.5), BLACK, WHITE, NEUTRAL)
    for cut in (0, 7, 100, len(data) // 2, len(data) - 200):
        path.write_bytes(data[:cut])
        with pytest.raises(BadInput, match=r"a\.dng") as caught:
            read_frame(path)
        assert "\n" not in caught.value.message


def test_without_rawpy_the_extra_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.dng"
    path.write_bytes(dng(mosaic(0.5), BLACK, WHITE, NEUTRAL))
    code = (
        "import sys; sys.modules['rawpy'] = None\n"
        "from hdrgen_server.image.reading import read_frame\n"
        "from nuke_hdrgen.wire.errors import BadInput\n"
        "try:\n    read_frame(sys.argv[1])\n"
        "except BadInput as error:\n    print(error)\n"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, env=environment, check=True
    )
    assert "nuke-hdrgen[raw]" in done.stdout
