"""The standard library's look at an EXR header, against OpenEXR's own files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import OpenEXR
import pytest

from nuke_hdrgen.bake.exr_header import exr_shape, exr_text
from nuke_hdrgen.wire.errors import BadInput


@pytest.fixture
def exr(tmp_path: Path) -> bytes:
    """A 5 x 7 file with an alpha and a layer, whose data window does not start at 0."""
    plane = np.ones((5, 7), np.float32)
    window = (np.array([-3, 2], np.int32), np.array([3, 6], np.int32))
    header = {"type": OpenEXR.scanlineimage, "compression": OpenEXR.NO_COMPRESSION, "dataWindow": window}
    path = tmp_path / "a.exr"
    OpenEXR.File(header, dict.fromkeys(("A", "B", "G", "R", "depth.Z"), plane)).write(str(path))
    return path.read_bytes()


def test_shape_and_channels_of_the_data_window(exr: bytes) -> None:
    assert exr_shape(exr, "a.exr") == ((5, 7, 5), ("A", "B", "G", "R", "depth.Z"))


def test_every_cut_of_the_header_is_refused(exr: bytes) -> None:
    body = len(exr) - 5 * (8 + 7 * 4 * 5) - 5 * 8  # before chunks of one row each and their offsets
    assert exr_shape(exr[:body], "a.exr")[0] == (5, 7, 5)
    for length in range(body):
        with pytest.raises(BadInput, match=r"^(a\.exr is no EXR file|the header of a\.exr is damaged)"):
            exr_shape(exr[:length], "a.exr")


@pytest.mark.parametrize("flag", [0x0800, 0x1000])
def test_deep_and_multi_part_files_are_refused(exr: bytes, flag: int) -> None:
    flags = int.from_bytes(exr[4:8], "little") | flag
    with pytest.raises(BadInput, match="multi-part or deep"):
        exr_shape(exr[:4] + flags.to_bytes(4, "little") + exr[8:], "a.exr")


def test_a_text_attribute_of_a_whole_header(tmp_path: Path) -> None:
    path = tmp_path / "b.exr"
    header = {"type": OpenEXR.scanlineimage, "hdrgen/key": "ab\u00fc", "owner": "x" * 500}
    OpenEXR.File(header, {"R": np.ones((2, 2), np.float32)}).write(str(path))
    data = path.read_bytes()
    assert exr_text(data, "hdrgen/key") == "ab\u00fc"
    assert exr_text(data, "hdrgen/seed") is None
    for length in range(0, 600, 7):
        with pytest.raises(ValueError, match=r"."):
            exr_text(data[:length], "hdrgen/key")
