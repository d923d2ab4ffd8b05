"""Photographs: codes, alpha, orientation, exposure, colour tags, damaged files; dispatch by content."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import OpenImageIO
import pytest
from PIL import Image, ImageCms, TiffImagePlugin
from tiff_files import EXPOSURE, tiff

from hdrgen_server.contracts.frame import Colourspace, Frame
from hdrgen_server.image.exr import read_exr_frame, write_exr
from hdrgen_server.image.photograph import MAX_SIDE, exposure_ev, read_photograph
from hdrgen_server.image.reading import read_frame
from hdrgen_server.image.tags import LIN_REC709_SCENE
from nuke_hdrgen.wire.errors import BadInput, TooLarge


def codes(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def save(path: Path, array: np.ndarray, **attributes: Any) -> Path:
    spec = OpenImageIO.ImageSpec(
        array.shape[1], array.shape[0], array.shape[2], str(array.dtype).replace("float32", "float")
    )
    if array.shape[2] == 2:
        spec.channelnames, spec.alpha_channel = ("Y", "A"), 1
    spec.attribute("oiio:UnassociatedAlpha", 1)
    for name, value in attributes.items():
        spec.attribute(name.replace("__", ":"), value)
    out = OpenImageIO.ImageOutput.create(str(path))
    assert out.open(str(path), spec)
    assert out.write_image(array)
    out.close()
    return path


def exif(time: tuple[int, int] = (1, 50), aperture: tuple[int, int] = (28, 10), iso: int = 400) -> Image.Exif:
    data = Image.Exif()
    data[0x0112] = 1
    directory = data.get_ifd(0x8769)
    directory[0x829A] = TiffImagePlugin.IFDRational(*time)
    directory[0x829D] = TiffImagePlugin.IFDRational(*aperture)
    directory[0x8827] = iso
    return data


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("channels", "names"), [(1, "Y"), (2, "YA"), (3, "RGB"), (4, "RGBA")])
def test_codes_scale_exactly_and_alpha_stays_straight(
    tmp_path: Path, suffix: str, dtype: Any, channels: int, names: str
) -> None:
    array = codes((7, 5, channels), dtype)
    frame = read_photograph(save(tmp_path / f"a.{suffix}", array))
    assert frame.channels == tuple(names)
    assert np.array_equal(frame.pixels, array.astype(np.float32) / np.float32(np.iinfo(dtype).max))
    assert frame.metadata["bits"] == np.dtype(dtype).itemsize * 8
    assert (frame.colourspace.interop_id, frame.colourspace.range) == ("srgb_rec709_scene", "encoded")


def test_one_pixel_and_odd_sizes(tmp_path: Path) -> None:
    for size in ((1, 1), (1, 7), (13, 1)):
        array = codes((*size, 3), np.uint8)
        assert read_photograph(save(tmp_path / "a.png", array)).pixels.shape == (*size, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_matches_pillow(tmp_path: Path, orientation: int) -> None:
    data = Image.Exif()
    data[0x0112] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(codes((5, 3, 3), np.uint8)).save(path, exif=data)
    from PIL import ImageOps

    with Image.open(path) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(np.rint(read_photograph(path).pixels * 255).astype(np.uint8), upright)


def test_exif_exposure_of_a_tiff_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(codes((8, 8, 3), np.uint8), {}, EXPOSURE))
    frame = read_photograph(tmp_path / "a.tif")
    assert exposure_ev(frame) == pytest.approx(math.log2(0.02 * 4 / 2.8**2), abs=1e-5)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_exif_exposure_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(codes((8, 8, 3), np.uint8)).save(path, exif=exif())
    frame = read_photograph(path)
    assert frame.metadata["exposure_time"] == pytest.approx(0.02)
    assert (frame.metadata["aperture"], frame.metadata["iso"]) == (pytest.approx(2.8), 400)
    assert exposure_ev(frame) == pytest.approx(math.log2(0.02 * 4 / 2.8**2), abs=1e-5)


def test_twice_the_time_is_one_more_stop(tmp_path: Path) -> None:
    evs = []
    for index, time in enumerate([(1, 100), (1, 50)]):
        path = tmp_path / f"{index}.jpg"
        Image.fromarray(codes((8, 8, 3), np.uint8)).save(path, exif=exif(time))
        evs.append(exposure_ev(read_photograph(path)))
    assert evs[1] - evs[0] == pytest.approx(1.0, abs=1e-5)


def test_exposure_of_an_exr_and_of_partial_metadata(tmp_path: Path) -> None:
    complete = {"exposure_time": 1.0, "aperture": 2.0, "iso": 100.0}
    frame = Frame(np.ones((1, 1, 3), np.float32), ("R", "G", "B"), LIN_REC709_SCENE, metadata=complete)
    assert exposure_ev(frame) == -2.0
    write_exr(frame, tmp_path / "a.exr")
    assert exposure_ev(read_exr_frame(tmp_path / "a.exr")) == -2.0
    for name in complete:
        for bad in (None, 0.0, -1.0, float("nan"), "x", True):
            changed = Frame(frame.pixels, frame.channels, LIN_REC709_SCENE, metadata=complete | {name: bad})
            assert exposure_ev(changed) is None


def test_an_icc_profile_names_the_colourspace_or_is_noted(tmp_path: Path) -> None:
    image = Image.fromarray(codes((4, 4, 3), np.uint8))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.save(tmp_path / "s.png", icc_profile=srgb)
    frame = read_photograph(tmp_path / "s.png", default=Colourspace("x", "x", None, "encoded"))
    assert (frame.colourspace.interop_id, frame.metadata["colourspace_from"]) == (
        "srgb_rec709_scene",
        "ICC profile",
    )
    p3 = srgb.replace(b"sRGB built-in", b"Display P3   ").replace(
        "sRGB built-in".encode("utf-16-be"), "Display P3   ".encode("utf-16-be")
    )
    image.save(tmp_path / "p.png", icc_profile=p3)
    assert read_photograph(tmp_path / "p.png").colourspace.interop_id == "srgb_p3d65_scene"
    odd = srgb.replace(b"sRGB built-in", b"House profile").replace(
        "sRGB built-in".encode("utf-16-be"), "House profile".encode("utf-16-be")
    )
    image.save(tmp_path / "o.png", icc_profile=odd)
    frame = read_photograph(tmp_path / "o.png")
    assert frame.colourspace.interop_id == "srgb_rec709_scene"
    assert "house profile" in frame.metadata["colourspace_from"]


def test_a_png_that_says_p3_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(codes((4, 4, 3), np.uint8)).save(path)
    data = path.read_bytes()
    chunk = b"cICP" + bytes([12, 13, 0, 1])  # P3-D65 primaries, sRGB transfer, RGB, full range: ITU-T H.273
    chunk = len(chunk[4:]).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    path.write_bytes(data[:33] + chunk + data[33:])
    frame = read_photograph(path)
    assert frame.colourspace.range == "encoded"
    assert "p3d65" in frame.colourspace.interop_id


def test_shutter_and_aperture_in_apex_stand_in(tmp_path: Path) -> None:
    data = Image.Exif()
    data[0x0112] = 1
    directory = data.get_ifd(0x8769)
    directory[0x9201] = TiffImagePlugin.IFDRational(5, 1)
    directory[0x9202] = TiffImagePlugin.IFDRational(4, 1)
    directory[0x8827] = 100
    Image.fromarray(codes((8, 8, 3), np.uint8)).save(tmp_path / "a.jpg", exif=data)
    assert exposure_ev(read_photograph(tmp_path / "a.jpg")) == pytest.approx(-5 - 4, abs=1e-4)


def test_sides_over_the_limit_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.zeros((1, MAX_SIDE + 1, 1), np.uint8))
    with pytest.raises(TooLarge, match="on a side"):
        read_photograph(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_truncation_is_bad_input_in_one_line(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "jpg":
        Image.fromarray(codes((32, 32, 3), np.uint8)).save(path, exif=exif())
    else:
        save(path, codes((32, 32, 3), np.uint16))
    data = path.read_bytes()
    for cut in range(12, int(len(data) * 0.98), max(1, len(data) // 25)):
        path.write_bytes(data[:cut])
        with pytest.raises(BadInput, match=r"a\.") as caught:
            read_frame(path)
        assert "\n" not in caught.value.message


def test_float_samples_are_refused_by_name(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", np.ones((4, 4, 3), np.float32))
    with pytest.raises(BadInput, match="holds float samples"):
        read_photograph(path)


def test_dispatch_goes_by_content_and_refuses_the_rest(tmp_path: Path) -> None:
    disguised = save(tmp_path / "a.png", codes((4, 4, 3), np.uint8)).rename(tmp_path / "a.exr")
    assert read_frame(disguised).metadata["bits"] == 8
    frame = Frame(np.ones((2, 2, 3), np.float32), ("R", "G", "B"), LIN_REC709_SCENE)
    write_exr(frame, tmp_path / "b.jpg")
    assert read_frame(tmp_path / "b.jpg").colourspace.range == "scene_linear"
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty.png").write_bytes(b"")
    cases = {
        "text.png": "is no EXR",
        "empty.png": "is empty",
        "none.png": "does not exist",
        ".": "is a folder",
    }
    for name, what in cases.items():
        with pytest.raises(BadInput, match=what):
            read_frame(tmp_path / name)
    with pytest.raises(BadInput, match="cannot open"):
        read_frame("nul\0byte.png")
    with pytest.raises(BadInput, match="cannot open"):
        read_frame(disguised / "inside.png")
