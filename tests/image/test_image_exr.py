"""EXR frames: round trips bit for bit, windows, layers, parts, views, refusals and broken files."""

from __future__ import annotations

import io
import os
import resource
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
import OpenImageIO
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdrgen_server.contracts.frame import Box, Colourspace, Frame
from hdrgen_server.image.exr import COMPRESSIONS, encode_exr, read_exr, read_exr_frame, write_exr
from hdrgen_server.image.exr_parts import Limits
from hdrgen_server.image.tags import LIN_REC709_SCENE
from nuke_hdrgen.wire.errors import BadInput, BadParameter, HDRGenError, StorageError, TooLarge

ACESCG = Colourspace("ACEScg", "lin_ap1_scene")


def half_pixels(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(0.5, 2.0, (height, width, channels))
    return values.astype(np.float16).astype(np.float32)


def encode(header: dict[str, Any], channels: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    OpenEXR.File({"type": OpenEXR.scanlineimage, "compression": OpenEXR.ZIP_COMPRESSION} | header, channels).write(
        stream
    )
    return stream.getvalue()


@pytest.mark.parametrize("size", [(1, 1), (1, 13), (13, 1), (7, 13), (31, 17)])
@pytest.mark.parametrize("compression", [name for name in COMPRESSIONS if name != "dwab"])
def test_half_values_come_back_bit_for_bit(size: tuple[int, int], compression: str) -> None:
    frame = Frame(half_pixels(*size, 3), ("R", "G", "B"), ACESCG)
    back = read_exr_frame(encode_exr(frame, compression))
    assert np.array_equal(back.pixels, frame.pixels)
    assert back.channels == ("R", "G", "B")


def test_dwab_is_close_and_smaller_than_raw() -> None:
    ramp = np.linspace(0.1, 4.0, 128 * 128 * 3, dtype=np.float32).reshape(128, 128, 3)
    data = encode_exr(Frame(ramp, ("R", "G", "B"), ACESCG), "dwab")
    assert len(data) < 128 * 128 * 6 / 2
    np.testing.assert_allclose(read_exr_frame(data).pixels, ramp, rtol=0.05)


def test_values_above_half_are_written_as_float_and_never_clipped() -> None:
    pixels = np.full((2, 3, 3), 65504.0, np.float32)
    small = Frame(pixels, ("R", "G", "B"), ACESCG)
    assert channel_type(encode_exr(small), "R") == np.float16
    large = small.with_pixels(pixels * np.float32(1.5))
    assert channel_type(encode_exr(large), "R") == np.float32
    assert np.array_equal(read_exr_frame(encode_exr(large)).pixels, large.pixels)
    with pytest.raises(BadParameter, match="65504"):
        encode_exr(large, half=True)


def test_a_negative_value_below_half_is_written_as_float_too() -> None:
    frame = Frame(np.full((2, 2, 3), -1e6, np.float32), ("R", "G", "B"), ACESCG)
    assert np.array_equal(read_exr_frame(encode_exr(frame)).pixels, frame.pixels)


def test_nan_and_infinity_stay_what_they_are_in_half() -> None:
    pixels = np.array([[[np.nan, np.inf, -np.inf], [1, 2, 3]]], np.float32)
    data = encode_exr(Frame(pixels, ("R", "G", "B"), ACESCG))
    assert channel_type(data, "R") == np.float16
    np.testing.assert_array_equal(read_exr_frame(data).pixels, pixels)
    only_bad = Frame(np.full((1, 1, 3), np.nan, np.float32), ("R", "G", "B"), ACESCG)
    assert channel_type(encode_exr(only_bad), "R") == np.float16


def channel_type(data: bytes, name: str) -> np.dtype[Any]:
    part = OpenEXR.File(io.BytesIO(data), separate_channels=True).parts[0]
    return part.channels[name].pixels.dtype


def test_float_is_written_when_asked() -> None:
    frame = Frame(np.full((2, 2, 3), 0.1, np.float32), ("R", "G", "B"), ACESCG)
    data = encode_exr(frame, half=False)
    assert channel_type(data, "G") == np.float32
    assert np.array_equal(read_exr_frame(data).pixels, frame.pixels)


def test_windows_and_aspect_survive_with_a_negative_origin(tmp_path: Path) -> None:
    frame = Frame(
        half_pixels(5, 7, 3), ("R", "G", "B"), ACESCG,
        data_window=Box(-3, -2, 3, 2), display_window=Box(0, 0, 19, 9), pixel_aspect=2.0,
    )  # fmt: skip
    write_exr(frame, tmp_path / "a.exr")
    back = read_exr_frame(tmp_path / "a.exr")
    assert (back.data_window, back.display_window, back.pixel_aspect) == (
        frame.data_window, frame.display_window, 2.0,
    )  # fmt: skip
    assert np.array_equal(back.pixels, frame.pixels)


def test_alpha_is_multiplied_in_the_file_and_straight_in_the_frame() -> None:
    alpha = np.array([[0.0, 0.25, 1.0, 2.0]], np.float32)
    straight = np.dstack([np.full((1, 4), 0.5, np.float32)] * 3 + [alpha])
    data = encode_exr(Frame(straight, ("R", "G", "B", "A"), ACESCG))
    planes = OpenEXR.File(io.BytesIO(data), separate_channels=True).parts[0].channels
    np.testing.assert_array_equal(planes["R"].pixels, np.array([[0.5, 0.125, 0.5, 1.0]], np.float16))
    back = read_exr_frame(data)
    assert np.array_equal(back.pixels, straight)
    assert back.channels == ("R", "G", "B", "A")


def test_light_without_coverage_passes_unchanged() -> None:
    planes = {name: np.full((2, 2), 3.0, np.float16) for name in "RGB"} | {"A": np.zeros((2, 2), np.float16)}
    frame = read_exr_frame(encode({}, planes))
    assert np.array_equal(frame.pixels[..., :3], np.full((2, 2, 3), 3.0, np.float32))
    again = OpenEXR.File(io.BytesIO(encode_exr(frame)), separate_channels=True).parts[0].channels
    assert np.array_equal(again["R"].pixels, np.full((2, 2), 3.0, np.float16))


def test_float_alpha_keeps_every_bit_beside_half_colour() -> None:
    alpha = np.random.default_rng(3).random((4, 5), np.float32)
    frame = Frame(np.dstack([half_pixels(4, 5, 3), alpha]), ("R", "G", "B", "A"), ACESCG)
    data = encode_exr(frame)
    assert (channel_type(data, "R"), channel_type(data, "A")) == (np.float16, np.float32)
    assert np.array_equal(read_exr_frame(data).pixels[..., 3], alpha)


def test_layers_of_every_type_come_back_bit_for_bit() -> None:
    rng = np.random.default_rng(1)
    layers = {
        "depth.Z": rng.random((3, 5), np.float32) * np.float32(1e9),
        "id": rng.integers(0, 2**32, (3, 5), dtype=np.uint32),
        "beauty.R": rng.normal(size=(3, 5)).astype(np.float16),
    }
    frame = Frame(half_pixels(3, 5, 3), ("R", "G", "B"), ACESCG, layers=layers)
    back = read_exr_frame(encode_exr(frame))
    assert back.layers.keys() == layers.keys()
    for name, plane in layers.items():
        assert back.layers[name].dtype == plane.dtype
        assert back.layers[name].tobytes() == plane.tobytes()


@pytest.mark.parametrize("layer", [np.zeros((3, 5)), np.zeros((2, 5), np.float32), np.zeros((3, 5), np.uint8)])
def test_a_layer_that_exr_cannot_hold_is_refused(layer: np.ndarray) -> None:
    frame = Frame(half_pixels(3, 5, 3), ("R", "G", "B"), ACESCG, layers={"x": layer})
    with pytest.raises(BadInput, match="layer x"):
        encode_exr(frame)


def test_grey_reads_as_one_channel() -> None:
    plane = half_pixels(3, 4, 1)[..., 0].astype(np.float16)
    frame = read_exr_frame(encode({}, {"Y": plane}))
    assert frame.channels == ("Y",)
    assert np.array_equal(frame.rgb[..., 2], plane.astype(np.float32))


def test_tag_goes_out_and_comes_back() -> None:
    data = encode_exr(Frame(half_pixels(2, 2, 3), ("R", "G", "B"), ACESCG))
    header = OpenEXR.File(io.BytesIO(data), header_only=True).parts[0].header
    assert header["colorInteropID"] == "lin_ap1_scene"
    np.testing.assert_allclose(header["chromaticities"][:2], (0.713, 0.293), atol=1e-6)
    assert int(OpenEXR.checkColorMetadata(header)) == 0
    back = read_exr_frame(data)
    assert (back.colourspace.interop_id, back.colourspace.range) == ("lin_ap1_scene", "scene_linear")
    assert back.metadata["colourspace_from"] == "colorInteropID"


def test_chromaticities_alone_name_a_known_space() -> None:
    chromaticities = tuple(OpenEXR.colorInteropIDToChromaticities("lin_rec2020_scene"))
    plane = np.zeros((2, 2), np.float16)
    frame = read_exr_frame(encode({"chromaticities": chromaticities}, {"R": plane, "G": plane, "B": plane}))
    assert frame.colourspace.interop_id == "lin_rec2020_scene"
    assert frame.metadata["colourspace_from"] == "chromaticities"
    odd = (0.7, 0.3, 0.2, 0.7, 0.1, 0.05, 0.33, 0.34)
    frame = read_exr_frame(encode({"chromaticities": odd}, {"R": plane, "G": plane, "B": plane}))
    assert frame.colourspace.interop_id == ""
    assert frame.colourspace.chromaticities == pytest.approx(odd, abs=1e-5)


def test_untagged_takes_the_default_and_says_so() -> None:
    plane = np.zeros((2, 2), np.float16)
    data = encode({}, {"R": plane, "G": plane, "B": plane})
    assert read_exr_frame(data).colourspace == LIN_REC709_SCENE
    assert read_exr_frame(data, default=ACESCG).colourspace == ACESCG
    assert read_exr_frame(data).metadata["colourspace_from"] == "assumed"


def test_a_tag_that_contradicts_itself_is_refused() -> None:
    wrong = Colourspace("x", "lin_ap1_scene", LIN_REC709_SCENE.chromaticities)
    with pytest.raises(BadInput, match="other chromaticities"):
        encode_exr(Frame(half_pixels(2, 2, 3), ("R", "G", "B"), wrong))


def test_attributes_metadata_and_exposure() -> None:
    exposure = {"exposure_time": 0.5, "aperture": 4, "iso": 200.0}
    metadata = exposure | {"bits": 8, "hdrgen/key": "old", "shot": "b1"}
    source = Frame(half_pixels(2, 2, 3), ("R", "G", "B"), ACESCG, metadata=metadata)
    data = encode_exr(source, attributes={"hdrgen/prompt": "Straße \u20ac", "hdrgen/seed": "7"})
    metadata = read_exr_frame(data).metadata
    assert metadata["hdrgen/prompt"] == "Straße \u20ac"
    assert (metadata["expTime"], metadata["aperture"], metadata["isoSpeed"]) == (0.5, 4.0, 200.0)
    assert metadata["shot"] == "b1"
    assert "hdrgen/key" not in metadata
    assert "bits" not in metadata


def test_attributes_that_exr_cannot_hold_are_refused() -> None:
    frame = Frame(half_pixels(2, 2, 3), ("R", "G", "B"), ACESCG)
    with pytest.raises(BadInput, match="hdrgen/seed = 4294967296 does not fit"):
        encode_exr(frame, attributes={"hdrgen/seed": 2**32})
    wrong: Any = {"hdrgen/seed": b"7"}
    with pytest.raises(StorageError, match="could not encode"):
        encode_exr(frame, attributes=wrong)


def test_time_codes_rates_and_matrices_are_carried() -> None:
    carried = {
        "timeCode": OpenEXR.TimeCode(1, 2, 3, 4, *(0,) * 14),
        "framesPerSecond": Fraction(24000, 1001),
        "worldToCamera": np.arange(16, dtype=np.float32).reshape(4, 4),
        "names": ["a", "b"],
    }
    plane = np.zeros((2, 2), np.float16)
    frame = read_exr_frame(encode(dict(carried), {"R": plane, "G": plane, "B": plane}))
    metadata = read_exr_frame(encode_exr(frame)).metadata
    for name, value in carried.items():
        assert str(metadata[name]) == str(value), name


def test_parts_of_one_view_join_and_other_windows_are_named() -> None:
    plane, depth = np.ones((3, 4), np.float16), np.full((3, 4), 7.0, np.float32)
    display = (np.array([0, 0], np.int32), np.array([5, 2], np.int32))
    wide = {"dataWindow": display}
    kind = {"type": OpenEXR.scanlineimage, "displayWindow": display}
    stream = io.BytesIO()
    OpenEXR.File(
        [
            OpenEXR.Part(dict(kind), {"Z": depth}, "depth"),
            OpenEXR.Part(dict(kind), {"R": plane, "G": plane, "B": plane}, "rgba"),
            OpenEXR.Part(dict(kind), {"R": plane * 2, "G": plane, "B": plane}, "spec"),
            OpenEXR.Part(kind | wide, {"id": np.zeros((3, 6), np.uint32)}, "ids"),
        ]
    ).write(stream)
    parts = read_exr(stream.getvalue())
    assert [part.metadata["part"] for part in parts] == ["depth", "rgba", "spec", "ids"]
    assert parts[0].colourspace.range == "data"
    frame = read_exr_frame(stream.getvalue())
    assert np.array_equal(frame.layers["Z"], depth)
    assert float(frame.layers["spec.R"][0, 0]) == 2.0
    assert frame.metadata["parts_left_out"] == "ids"
    assert float(frame.pixels[0, 0, 0]) == 1.0


def test_views_in_one_part_and_in_several() -> None:
    left, right = np.full((2, 3), 1.0, np.float16), np.full((2, 3), 2.0, np.float16)
    channels = dict.fromkeys("RGB", left) | {f"right.{name}": right for name in "RGB"}
    channels |= {"depth.right.Z": right}
    data = encode({"multiView": ["left", "right"]}, channels)
    frames = read_exr(data)
    assert [frame.metadata["view"] for frame in frames] == ["left", "right"]
    chosen = read_exr_frame(data, view="right")
    assert float(chosen.pixels.max()) == 2.0
    assert list(chosen.layers) == ["depth.Z"]
    with pytest.raises(BadInput, match="no view 'up'; it has: left, right"):
        read_exr_frame(data, view="up")
    stream = io.BytesIO()
    OpenEXR.File(
        [
            OpenEXR.Part({"type": OpenEXR.scanlineimage, "view": "left"}, dict.fromkeys("RGB", left), "l"),
            OpenEXR.Part({"type": OpenEXR.scanlineimage, "view": "right"}, dict.fromkeys("RGB", right), "r"),
        ]
    ).write(stream)
    assert float(read_exr_frame(stream.getvalue(), view="right").pixels.max()) == 2.0
    assert read_exr_frame(stream.getvalue()).layers == {}


def test_tiled_mip_mapped_files_give_the_full_level(tmp_path: Path) -> None:
    path = str(tmp_path / "mip.exr")
    source = OpenImageIO.ImageBuf(OpenImageIO.ImageSpec(37, 23, 3, OpenImageIO.HALF))
    OpenImageIO.ImageBufAlgo.fill(source, (0.5, 0.25, 0.125))
    assert OpenImageIO.ImageBufAlgo.make_texture(OpenImageIO.MakeTxTexture, source, path)
    assert read_exr_frame(path).pixels.shape == (23, 37, 3)


def test_deep_is_refused_by_name(tmp_path: Path) -> None:
    path = str(tmp_path / "deep.exr")
    spec = OpenImageIO.ImageSpec(4, 3, 2, OpenImageIO.FLOAT)
    spec.deep, spec.channelnames = True, ("R", "Z")
    deep = OpenImageIO.DeepData()
    deep.init(12, 2, (OpenImageIO.TypeFloat, OpenImageIO.TypeFloat), ("R", "Z"))
    out = OpenImageIO.ImageOutput.create(path)
    assert out.open(path, spec)
    assert out.write_deep_image(deep)
    out.close()
    with pytest.raises(BadInput, match="deep data"):
        read_exr(path)


def test_colour_that_cannot_be_used_is_refused_by_name() -> None:
    integer = {name: np.zeros((2, 2), np.uint32) for name in "RGB"}
    with pytest.raises(BadInput, match="integers in channel R"):
        read_exr(encode({}, integer))
    with pytest.raises(BadInput, match="neither RGB nor Y channels; it has: Z"):
        read_exr_frame(encode({}, {"Z": np.zeros((2, 2), np.float32)}))
    subsampled = encode(
        {"dataWindow": (np.array([0, 0], np.int32), np.array([3, 3], np.int32))},
        {"Y": OpenEXR.Channel("Y", np.zeros((2, 2), np.float32), 2, 2)},
    )
    with pytest.raises(BadInput, match="subsampled channel Y"):
        read_exr(subsampled)


@pytest.mark.parametrize(
    ("limits", "what"),
    [
        (Limits(side=7), "8x8 pixels, over 7"),
        (Limits(channels=2), "3 channels"),
        (Limits(parts=0), "1 parts"),
        (Limits(decoded_bytes=8 * 8 * 12 - 1), "MiB decoded"),
    ],
)
def test_limits_refuse_from_the_header(limits: Limits, what: str) -> None:
    data = encode_exr(Frame(half_pixels(8, 8, 3), ("R", "G", "B"), ACESCG))
    # Nothing but the header is left, so a decode would fail as BadInput instead.
    with pytest.raises(TooLarge, match=what):
        read_exr(data[: len(data) - 100], limits=limits)


def test_a_header_that_promises_terabytes_is_refused_without_decoding() -> None:
    data = bytearray(encode_exr(Frame(half_pixels(4, 4, 3), ("R", "G", "B"), ACESCG)))
    at = data.index(b"dataWindow\0box2i\0") + len(b"dataWindow\0box2i\0") + 4
    data[at : at + 16] = np.array([0, 0, 2**30, 2**30], "<i4").tobytes()
    with pytest.raises((TooLarge, BadInput)):
        read_exr(bytes(data))


def test_every_truncation_is_bad_input_and_names_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    frame = Frame(half_pixels(9, 7, 4), ("R", "G", "B", "A"), ACESCG, layers={"id": np.ones((9, 7), np.uint32)})
    data = encode_exr(frame, "zip", attributes={"hdrgen/key": "k"})
    for cut in range(len(data)):
        with pytest.raises(BadInput, match="plate 7") as caught:
            read_exr(data[:cut], name="plate 7")
        assert "\n" not in caught.value.message
    assert capsys.readouterr().out == ""


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_flipped_bytes_give_a_frame_or_a_typed_error(seed: int, flips: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(BASE)
    for _ in range(flips):
        data[int(rng.integers(4, len(data)))] = int(rng.integers(256))
    try:
        frames = read_exr(bytes(data), limits=Limits(side=4096, decoded_bytes=1 << 26))
    except HDRGenError as error:
        assert "\n" not in error.message  # noqa: PT017 (either outcome is right)
    else:
        assert all(frame.pixels.dtype == np.float32 for frame in frames)


BASE = encode_exr(
    Frame(half_pixels(9, 7, 3), ("R", "G", "B"), ACESCG, data_window=Box(-2, -3, 4, 5)),
    attributes={"hdrgen/prompt": "a prompt of some length", "hdrgen/key": "0123"},
)


def test_memory_views_are_read() -> None:
    assert np.array_equal(read_exr_frame(memoryview(BASE)).pixels, read_exr_frame(BASE).pixels)


def test_unknown_compression_and_missing_folder(tmp_path: Path) -> None:
    frame = Frame(half_pixels(2, 2, 3), ("R", "G", "B"), ACESCG)
    with pytest.raises(BadParameter, match="use one of: none"):
        encode_exr(frame, "lzw")
    with pytest.raises(StorageError, match="No such file"):
        write_exr(frame, tmp_path / "no" / "a.exr")
    with pytest.raises(StorageError, match="is a folder"):
        write_exr(frame, tmp_path)


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "a.exr"
    target.write_bytes(b"old")
    frame = Frame(half_pixels(256, 256, 3), ("R", "G", "B"), ACESCG)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(StorageError, match="cannot write"):
            write_exr(frame, target, "none")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.exr"]


def test_written_files_get_the_permissions_of_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_exr(Frame(half_pixels(2, 2, 3), ("R", "G", "B"), ACESCG), tmp_path / "a.exr")
    finally:
        os.umask(old)
    assert (tmp_path / "a.exr").stat().st_mode & 0o777 == 0o640
