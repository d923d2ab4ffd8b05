"""Ultra HDR JPEGs: there and back, against another library both ways, and whatever damage can do."""

from __future__ import annotations

import importlib.util
import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import OpenImageIO
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from hdrgen_server.colour.curves import CURVES
from hdrgen_server.colour.log_gain import LogGain
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.image import ultrahdr, ultrahdr_container, ultrahdr_metadata
from hdrgen_server.image.jpeg import decode_jpeg, encode_jpeg
from hdrgen_server.image.reading import read_frame
from hdrgen_server.image.tags import LIN_REC709_SCENE, SRGB_REC709_SCENE
from hdrgen_server.image.ultrahdr import decode_ultrahdr, encode_ultrahdr, gain_picture, sdr_codes
from nuke_hdrgen.wire.errors import BadInput, HDRGenError, TooLarge

# libultrahdr cuts what it hands out at 10000 nits over a white of 203.
THEIR_BRIGHTEST = 48.0


def scene(height: int = 96, width: int = 128, brightest: float = 5.0) -> Frame:
    """Smooth light from 2^-6 to 2^brightest with a little colour and a small sun."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    stops = -6 + (brightest + 4) * x[..., None] + np.array([0.2, 0.0, -0.3]) * np.sin(6 * y)[..., None]
    light = np.exp2(stops).astype(np.float32)
    light[10:20, 10:20] = np.float32(2.0**brightest)
    return linear(light)


def linear(light_hwc: np.ndarray) -> Frame:
    return Frame(np.ascontiguousarray(light_hwc, np.float32), ("R", "G", "B"), LIN_REC709_SCENE)


def written(frame: Frame) -> bytes:
    return encode_ultrahdr(gain_picture(frame, sdr_codes(frame)[0]))


def stops_apart(first: np.ndarray, second: np.ndarray, where: np.ndarray) -> np.ndarray:
    return np.abs(np.log2(np.maximum(first[where], 1e-6) / second[where]))


def by_another_library(data: bytes, folder: Path) -> np.ndarray:
    (folder / "u.jpg").write_bytes(data)
    buffer = OpenImageIO.ImageBuf(str(folder / "u.jpg"))
    assert not buffer.has_error, buffer.geterror()
    assert str(buffer.spec().format) == "half"
    return buffer.get_pixels(OpenImageIO.FLOAT)[..., :3]


@pytest.mark.parametrize("brightest", [2.0, 5.0, 12.0])
def test_there_and_back(brightest: float) -> None:
    frame = scene(brightest=brightest)
    back = decode_ultrahdr(written(frame))
    assert back.colourspace.interop_id == "lin_rec709_scene"
    step = (brightest + 0.2) / 255
    for darkest, median, most in ((2.0**-5, 0.01 + step / 2, 0.12), (1.0, 0.005 + step / 2, 0.06 + 2 * step)):
        error = stops_apart(back.pixels, frame.pixels, frame.pixels > darkest)
        assert np.median(error) < median
        assert np.percentile(error, 99) < most
    assert back.metadata["headroom_stops"] == pytest.approx(brightest, abs=0.1)


def test_pixels_that_equal_the_base_have_no_gain() -> None:
    """What JPEG leaves of it: where a plate is kept, the map is one whole code."""
    frame = scene()
    base, cut = sdr_codes(frame)
    assert cut == int((frame.pixels > 1).sum())
    plate = CURVES["srgb"].decode(base.astype(np.float32) / np.float32(255))
    picture = gain_picture(
        Frame(np.where(frame.pixels < 1, plate, frame.pixels), frame.channels, LIN_REC709_SCENE), base
    )
    kept = picture.codes_hwc[(frame.pixels < 1) & (base < 255)]
    assert len(np.unique(kept)) == 1
    zero = picture.gain.reconstruct(np.full((1, 1, 3), kept[0], np.float32), np.full((1, 1, 3), 0.5, np.float32))
    assert np.abs(zero - 0.5).max() < 1e-6


def test_another_library_reads_the_same_light(tmp_path: Path) -> None:
    data = written(scene())
    ours, theirs = decode_ultrahdr(data).pixels, by_another_library(data, tmp_path)
    where = (theirs < THEIR_BRIGHTEST) & (theirs > 0.03)
    assert stops_apart(ours, theirs, where).max() < 0.05


@pytest.mark.parametrize("dropped", ["xmp", "iso"])
def test_each_of_the_two_metadata_is_enough(tmp_path: Path, dropped: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left out is put in as a comment segment's text, so that no length changes."""
    data = written(scene())
    if dropped == "xmp":
        data = data.replace(b"hdr-gain-map/1.0/", b"hdr-gain-mop/1.0/")
    else:
        data = data.replace(b"urn:iso:std:iso:ts:21496", b"urn:iso:std:iso:ts:21495")
    ours, theirs = decode_ultrahdr(data).pixels, by_another_library(data, tmp_path)
    assert np.array_equal(ours, decode_ultrahdr(written(scene())).pixels)
    where = (theirs < THEIR_BRIGHTEST) & (theirs > 0.03)
    assert stops_apart(ours, theirs, where).max() < 0.05


def test_another_library_writes_what_we_read(tmp_path: Path) -> None:
    light = scene().pixels
    spec = OpenImageIO.ImageSpec(light.shape[1], light.shape[0], 3, OpenImageIO.HALF)
    spec.attribute("jpeg:ultrahdr", 1)
    spec.attribute("oiio:ColorSpace", "lin_rec709_scene")
    path = tmp_path / "theirs.jpg"
    output = OpenImageIO.ImageOutput.create(str(path))
    assert output.open(str(path), spec)
    assert output.write_image(light)
    output.close()
    data = path.read_bytes()
    assert b"21496" in data
    assert ultrahdr_container.has_gain_map(data, "theirs")
    ours, theirs = decode_ultrahdr(data).pixels, by_another_library(data, tmp_path)
    where = (theirs < THEIR_BRIGHTEST) & (theirs > 0.03)
    assert np.percentile(stops_apart(ours, theirs, where), 99) < 0.1
    assert np.median(stops_apart(ours, light, light > 0.03)) < 0.1


def test_a_phones_bracket_is_read_as_photographs(tmp_path: Path) -> None:
    """OpenImageIO hands such files out with the map applied, as half floats."""
    frame = scene()
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769).update({0x829A: IFDRational(1, 50), 0x829D: IFDRational(4, 1), 0x8827: 100})
    stream = io.BytesIO()
    Image.fromarray(sdr_codes(frame)[0]).save(stream, "JPEG", quality=98, subsampling=0, exif=exif)
    plain = stream.getvalue()
    (tmp_path / "plain.jpg").write_bytes(plain)
    picture = gain_picture(frame, sdr_codes(frame)[0])
    gain_map = io.BytesIO()
    Image.fromarray(picture.codes_hwc).save(gain_map, "JPEG", quality=98)
    (tmp_path / "phone.jpg").write_bytes(ultrahdr_container.pack(plain, gain_map.getvalue(), picture.gain))
    assert ultrahdr.is_ultrahdr(tmp_path / "phone.jpg")
    assert not ultrahdr.is_ultrahdr(tmp_path / "plain.jpg")
    second = read_frame(tmp_path / "plain.jpg")
    unindexed = (tmp_path / "phone.jpg").read_bytes().replace(b"MPF\0", b"MQF\0")
    (tmp_path / "unindexed.jpg").write_bytes(unindexed)
    assert np.abs(read_frame(tmp_path / "unindexed.jpg").pixels - second.pixels).max() <= 2 / 255
    first = read_frame(tmp_path / "phone.jpg")
    assert first.pixels.shape == (128, 96, 3)
    assert np.abs(first.pixels - second.pixels).max() <= 2 / 255
    assert first.colourspace == second.colourspace == SRGB_REC709_SCENE
    assert {name: first.metadata[name] for name in ("bits", "exposure_time", "aperture", "iso")} == pytest.approx(
        {"bits": 8, "exposure_time": 0.02, "aperture": 4.0, "iso": 100}
    )


def test_pillow_finds_both_pictures_in_the_index() -> None:
    data = written(scene())
    with Image.open(io.BytesIO(data)) as opened:
        index = opened._getmp()  # type: ignore[attr-defined]
        assert (opened.size, index[0xB001]) == ((128, 96), 2)
        first, second = index[0xB002]
        assert first["Attribute"]["MPType"] == "Baseline MP Primary Image"
        start = opened.info["mpoffset"] + second["DataOffset"]
    assert (first["Size"], start, start + second["Size"]) == (start, start, len(data))
    with Image.open(io.BytesIO(data[start:])) as gain_map:
        assert gain_map.size == (128, 96)


def test_pictures_beyond_what_a_decoder_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(TooLarge, match="32x24 pixels, too many"):
        decode_ultrahdr(SMALL, "x.jpg")
    with pytest.raises(BadInput, match="changes within it"):
        decode_jpeg(encode_jpeg(np.zeros((3, 4, 3), np.uint8), 90), (4, 4), "x.jpg")


def test_a_smaller_grey_map_in_display_p3() -> None:
    codes = np.full((64, 64, 3), 188, np.uint8)
    gain = LogGain((0.0,) * 3, (4.0,) * 3, headroom_high=4.0)
    stream = io.BytesIO()
    ramp = np.repeat(np.linspace(0, 255, 16)[None], 16, axis=0).astype(np.uint8)
    Image.fromarray(ramp).save(stream, "JPEG", quality=100)
    profile = named_profile("Display P3")
    data = ultrahdr_container.pack(encode_jpeg(codes, 100, icc=profile), stream.getvalue(), gain)
    frame = decode_ultrahdr(data)
    assert frame.colourspace.interop_id == "lin_p3d65_scene"
    assert frame.metadata["colourspace_from"] == "ICC profile"
    linear = ((188 / 255 + 0.055) / 1.055) ** 2.4
    row = np.log2((frame.pixels[32, :, 1] + 1 / 64) / (linear + 1 / 64))
    assert row[0] == pytest.approx(0, abs=0.05)
    assert row[-1] == pytest.approx(4, abs=0.05)
    assert np.all(np.diff(row) >= -0.02)
    odd = ultrahdr_container.pack(encode_jpeg(codes, 100, icc=named_profile("Odd")), stream.getvalue(), gain)
    assert "'odd' is not known" in decode_ultrahdr(odd).metadata["colourspace_from"]


def named_profile(name: str) -> bytes:
    """The built-in sRGB profile under a name of the same room (ICC.1:2022, 10.15)."""
    profile = ultrahdr.srgb_profile()
    old = "sRGB built-in".encode("utf-16-be")
    assert old in profile
    return profile.replace(old, name.ljust(len("sRGB built-in"), "\0").encode("utf-16-be"))


def test_the_map_alone_says_what_it_is() -> None:
    picture = gain_picture(scene(), sdr_codes(scene())[0])
    with Image.open(io.BytesIO(ultrahdr.gain_map_png(picture))) as png:
        assert (png.mode, png.size) == ("RGB", (128, 96))
        assert np.array_equal(np.asarray(png), picture.codes_hwc)
        said = ultrahdr_metadata.read_xmp(png.info["XML:com.adobe.xmp"].encode(), "the map")
    assert said == picture.gain


def test_equal_pictures_are_equal_files() -> None:
    assert written(scene()) == written(scene())


def test_what_a_map_cannot_hold_is_counted() -> None:
    light = scene().pixels.copy()
    light[0, :5] = -1
    light[1, :4] = 1e12
    picture = gain_picture(linear(light), np.full(light.shape, 128, np.uint8))
    assert (picture.counts.below, picture.counts.above) == (15, 12)


def test_an_extreme_is_refused_or_whole() -> None:
    black = np.zeros((16, 16, 3), np.uint8)
    assert np.abs(decode_ultrahdr(written(linear(black))).pixels).max() < 1e-3
    with pytest.raises(BadInput, match="NaN"):
        gain_picture(linear(np.full((16, 16, 3), np.nan)), black)
    with pytest.raises(BadInput, match="one size"):
        gain_picture(linear(black[:8]), black)
    with pytest.raises(BadInput, match="scene-linear"):
        gain_picture(Frame(linear(black).pixels, ("R", "G", "B"), SRGB_REC709_SCENE), black)
    wide = np.zeros((1, 65501, 3), np.uint8)
    with pytest.raises(BadInput, match="65500"):
        encode_ultrahdr(gain_picture(linear(wide), wide))


SMALL = written(scene(24, 32))
XMP_AT = SMALL.rindex(b"<x:xmpmeta")


def edited(old: bytes, new: bytes) -> bytes:
    assert old in SMALL[XMP_AT:]
    data = SMALL.replace(b"urn:iso:std:iso:ts:21496", b"urn:iso:std:iso:ts:21495")
    at = data.index(old, XMP_AT)
    return data[:at] + new.ljust(len(old)) + data[at + len(old) :]


def with_size(width: int, height: int) -> bytes:
    at = SMALL.index(b"\xff\xc0") + 5
    return SMALL[:at] + struct.pack(">HH", height, width) + SMALL[at + 4 :]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: b"", "is no JPEG"),
        (lambda: b"\x89PNG\r\n\x1a\n" + SMALL, "is no JPEG"),
        (lambda: SMALL[: len(SMALL) // 2], "cut or edited"),
        (lambda: SMALL[:300], "truncated or damaged"),
        (lambda: SMALL.replace(b"MPF\0", b"MQF\0"), "no second picture"),
        (lambda: SMALL.replace(b"MM\0*", b"MM\0+"), "index of x.jpg is damaged"),
        (lambda: SMALL.replace(b"21496", b"21495").replace(b"hdrgm:GainMapMax", b"hdrgm:GainMapMix"), "no gain map"),
        (lambda: edited(b'Version="1.0"', b'Version="9.0"'), "version"),
        (lambda: edited(b'BaseRenditionIsHDR="False"', b'BaseRenditionIsHDR="True"'), "HDR: True"),
        (lambda: edited(b'Gamma="1.0"', b'Gamma="no!"'), "is no number"),
        (lambda: edited(b'Gamma="1.0"', b'Gamma="nan"'), "gamma must be within"),
        (lambda: edited(b'Gamma="1.0"', b'Gamma="0.0"'), "gamma must be within"),
        (lambda: edited(b"hdrgm:HDRCapacityMax", b"hdrgm:HDRCapacityMix"), "no hdrgm:HDRCapacityMax"),
        (lambda: edited(b"<x:xmpmeta", b"<!DOCTYPE a"[:10]), "document type"),
        (lambda: edited(b"</rdf:RDF>", b"</rdf:RDG>"), "is no XML"),
        (lambda: with_size(32000, 32000), "claims 32000x32000"),
        (lambda: with_size(0, 24), "0x24"),
        (lambda: with_size(16, 24), "larger than its base"),
        (lambda: SMALL.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc3\0\x11\x08"), "compressed in a way"),
    ],
)
def test_each_damage_has_its_sentence(make: Callable[[], bytes], words: str) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        decode_ultrahdr(make(), "x.jpg")
    assert "\n" not in caught.value.message
    assert "x.jpg" in caught.value.message


def test_a_side_beyond_the_limit() -> None:
    with pytest.raises(TooLarge, match="32769"):
        decode_ultrahdr(with_size(32769, 24), "x.jpg")


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_binary_metadata_in_every_form(shared: bool, channels: int) -> None:
    numbers = [(-1, 2, 1, 1, 2), (0, 3, 2, 1, 1), (1, 5, 3, 0, 0)][:channels]
    flags = 0x40 | (0x80 if channels == 3 else 0) | (0x08 if shared else 0)
    body = b"\0\0\0\0" + bytes([flags]) + (struct.pack(">I", 4) if shared else b"")

    def fraction(value: int) -> bytes:
        return struct.pack(">i", value * 4) if shared else struct.pack(">iI", value * 3, 3)

    body += fraction(0) + fraction(6)
    for row in numbers:
        body += b"".join(map(fraction, row))
    found = ultrahdr_metadata.read_iso(body, "x")
    assert found is not None
    gain, base_space = found
    assert base_space
    assert (gain.headroom_low, gain.headroom_high) == (0, 6)
    assert gain.low == tuple(float(row[0]) for row in (numbers * 3)[:3])
    assert gain.hdr_offset == tuple(float(row[4]) for row in (numbers * 3)[:3])
    assert ultrahdr_metadata.read_iso(body[:4], "x") is None
    for cut in [2, 3, *range(5, len(body))]:
        with pytest.raises(BadInput, match="truncated"):
            ultrahdr_metadata.read_iso(body[:cut], "x")
    for wrong, words in ((b"\0\1\0\0", "newer"), (b"\0\0\0\0" + bytes([flags | 4]), "HDR picture")):
        with pytest.raises(BadInput, match=words):
            ultrahdr_metadata.read_iso(wrong + body[len(wrong) :], "x")
    with pytest.raises(BadInput, match="divide by zero"):
        ultrahdr_metadata.read_iso(body[:5] + bytes(len(body) - 5), "x")


def test_three_channels_of_their_own_survive_both_spellings() -> None:
    gain = LogGain((-1.0, 0.0, 0.25), (2.0, 3.0, 4.5), (1.0, 0.5, 2.0), (0.0, 0.25, 1.0), (0.5, 0.25, 1.0), 0.5, 4.5)
    assert ultrahdr_metadata.read_xmp(ultrahdr_metadata.map_xmp(gain), "x") == gain
    assert ultrahdr_metadata.read_iso(ultrahdr_metadata.iso_bytes(gain), "x") == (gain, True)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_cut_or_flip_is_an_error_or_a_picture(data: st.DataObject) -> None:
    mangled = bytearray(SMALL)
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(
            st.one_of(st.integers(0, len(SMALL) - 1), st.integers(XMP_AT, XMP_AT + 900), st.integers(0, 900))
        )
        mangled[at] ^= 1 << data.draw(st.integers(0, 7))
    cut = data.draw(st.one_of(st.just(len(SMALL)), st.integers(0, len(SMALL))))
    try:
        frame = decode_ultrahdr(bytes(mangled[:cut]), "x.jpg")
    except HDRGenError:
        return
    assert np.isfinite(frame.pixels).all()
    assert frame.pixels.size <= 64 * 8 * 3 * len(SMALL)


@given(st.binary(max_size=400))
def test_noise_behind_a_start_is_refused(noise: bytes) -> None:
    with pytest.raises(BadInput):
        decode_ultrahdr(b"\xff\xd8" + noise, "x.jpg")


@pytest.mark.skipif(
    importlib.util.find_spec("viser") is None, reason="pip install --no-deps viser==1.1.1 has such files"
)
def test_public_files(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("viser")
    assert spec is not None
    assert spec.origin is not None
    files = sorted((Path(spec.origin).parent / "_assets" / "hdri").glob("*.jpg"))
    assert len(files) == 10
    for file in files:
        ours, theirs = decode_ultrahdr(file.read_bytes(), file.name), by_another_library(file.read_bytes(), tmp_path)
        assert ours.pixels.shape == (512, 1024, 3)
        where = (theirs < THEIR_BRIGHTEST) & (theirs > 0.02)
        apart = stops_apart(ours.pixels, theirs, where)
        assert np.median(apart) < 0.02
        assert np.percentile(apart, 99) < 0.2
