"""HDR sources: every kind of file as light, and corpora by the names of their folders."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hdrgen_server.colour.curves import CURVES
from hdrgen_server.colour.interop import colourspace
from hdrgen_server.colour.primaries import rgb_to_rgb
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.image.exr import write_exr
from hdrgen_server.image.movie_write import Form, MovieWriter
from hdrgen_server.training.hdr_sources import hdr_files, read_pictures, shots
from nuke_hdrgen.wire.errors import BadInput, BadParameter
from tests.image.movie_files import ramp, write_movie

LIGHT = np.full((16, 32, 3), (4.0, 1.0, 0.25), np.float32)  # Rec.709, far inside Rec.2020


def write_png(path: Path, codes: np.ndarray) -> Path:
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.rint(codes[..., ::-1] * 65535).astype(np.uint16))
    return path


def pq_codes() -> np.ndarray:
    return CURVES["pq"].encode(LIGHT.astype(np.float64) @ rgb_to_rgb("rec709", "rec2020").T)


def test_stills_and_shots(tmp_path: Path) -> None:
    for shot, number in (("a", 1), ("a", 2), ("b", 1)):
        (tmp_path / shot).mkdir(exist_ok=True)
        frame = Frame(LIGHT * number, ("R", "G", "B"), colourspace("lin_rec709_scene"))
        write_exr(frame, tmp_path / shot / f"{number:04d}.exr", half=False)
    files = hdr_files(tmp_path, "shots")
    assert {folder.name: len(found) for folder, found in shots(files).items()} == {"a": 2, "b": 1}
    (picture,) = read_pictures(files[1])
    np.testing.assert_allclose(picture.scene_linear_hwc, 2 * LIGHT)
    assert picture.name == "0002.exr"
    write_png(tmp_path / "c" / "pq.png", pq_codes())
    (picture,) = read_pictures(hdr_files(tmp_path / "c", "stills")[0])
    np.testing.assert_allclose(picture.scene_linear_hwc, LIGHT, rtol=2e-3)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "c" / "pq.png")
    with pytest.raises(BadInput, match=r"pq\.png has 8 bits and so is no HDR"):
        list(read_pictures(hdr_files(tmp_path / "c", "stills")[0]))


@pytest.mark.parametrize("transfer", ["pq", "hlg"])
def test_movies(tmp_path: Path, transfer: str) -> None:
    light = (LIGHT @ rgb_to_rgb("rec709", "rec2020").T).astype(np.float32)
    writer = MovieWriter(tmp_path / "a.mov", Form("prores", transfer), (32, 16), Fraction(24))
    for number in range(1, 5):
        writer.add(Frame(light * number / 2, ("R", "G", "B"), colourspace("lin_rec2020_scene")))
    writer.close()
    (file,) = hdr_files(tmp_path, "chug")
    pictures = list(read_pictures(file, stride=2))
    assert [p.name for p in pictures] == ["a.mov:0", "a.mov:2"]
    np.testing.assert_allclose(pictures[1].scene_linear_hwc, 1.5 * LIGHT, rtol=0.06, atol=0.02)
    write_movie(tmp_path / "a.mov", [ramp()])
    with pytest.raises(BadInput, match=r"a\.mov is not tagged PQ or HLG in BT\.2020"):
        list(read_pictures(file))


def test_corpora_by_name(tmp_path: Path) -> None:
    for number in ("001", "002"):
        write_png(tmp_path / "train_hdr" / f"{number}.png", pq_codes())
        write_png(tmp_path / "HDR" / f"{number}.png", pq_codes())
    for folder in ("train_sdr", "OCIO2", "2446c+GM"):
        write_png(tmp_path / folder / "001.png", pq_codes())
    one, two = hdr_files(tmp_path, "hdrtv1k")
    assert (one.path.name, list(one.sdr), two.sdr) == ("001.png", ["train_sdr"], {})
    (picture,) = read_pictures(one)
    np.testing.assert_allclose(picture.scene_linear_hwc, LIGHT, rtol=2e-3)
    assert list(hdr_files(tmp_path, "hdrtv4k")[0].sdr) == ["OCIO2", "2446c+GM"]
    with pytest.raises(BadInput, match=r"has no HDR files as movies has them"):
        hdr_files(tmp_path, "movies")
    with pytest.raises(BadParameter, match=r"no layout 'x'; there are: stills, shots"):
        hdr_files(tmp_path, "x")
