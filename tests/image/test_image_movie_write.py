"""Movies out: codes, tags and light metadata, read back from the file; and everything that a movie cannot hold."""

from __future__ import annotations

import struct
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.sidedata.sidedata import Type

from hdrgen_server.colour.curves import CURVES, pq
from hdrgen_server.colour.hlg_display import HlgDisplay
from hdrgen_server.colour.interop import colourspace
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.image.movie import codes_of
from hdrgen_server.image.movie_boxes import boxes, storable
from hdrgen_server.image.movie_light import Light
from hdrgen_server.image.movie_tags import Coding
from hdrgen_server.image.movie_write import Form, MovieWriter
from nuke_hdrgen.wire.errors import BadInput, StorageError

REC2020 = colourspace("lin_rec2020_scene")
RATE = Fraction(24000, 1001)
FORMS = [
    ("a.mp4", Form("hevc", "pq")),
    ("a.mov", Form("hevc", "hlg")),
    ("b.mov", Form("prores", "pq")),
    ("c.mov", Form("prores", "hlg")),
    ("d.mp4", Form("hevc", "pq", white_nits=203.0, mastering_nits=4000.0)),
]


def frame_of(pixels: np.ndarray, number: int = 1) -> Frame:
    channels = ("R", "G", "B", "A")[: pixels.shape[2]]
    return Frame(np.ascontiguousarray(pixels, np.float32), channels, REC2020, number=number)


def scene(number: int, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    width, height = size
    pixels = np.full((height, width, 3), 0.18, np.float32)
    pixels[8:24, 8:24] = 2.0 + number
    pixels[30:44, 8:40] = (0.5, 0.2, 0.1)
    return pixels


def write(path: Path, form: Form, frames: list[np.ndarray]) -> dict[str, object]:
    writer = MovieWriter(path, form, (frames[0].shape[1], frames[0].shape[0]), RATE)
    for number, pixels in enumerate(frames, 1):
        writer.add(frame_of(pixels, number))
    return writer.close()


def mastering(data: bytes) -> tuple[np.ndarray, float, float]:
    """AVMasteringDisplayMetadata: rationals of R, G, B and white, the lowest and the highest luminance."""
    numbers = struct.unpack("<20i", data[:80])
    values = [a / b for a, b in zip(numbers[::2], numbers[1::2], strict=True)]
    return np.array(values[:8]), values[8], values[9]


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_a_movie_reads_back_as_it_was_written(tmp_path: Path, name: str, form: Form) -> None:
    frames = [scene(number) for number in range(6)]
    record = write(tmp_path / name, form, frames)
    nits = [np.minimum(pixels, form.peak_nits / form.white_nits) * form.white_nits for pixels in frames]
    wanted_cll = np.ceil(max(n.max() for n in nits) - 1e-2)
    wanted_fall = np.ceil(max(n.max(axis=2).mean() for n in nits) - 1e-2)
    assert (record["max_cll"], record["max_fall"], record["frames"]) == (wanted_cll, wanted_fall, 6)
    transfer = pq(form.white_nits) if form.transfer == "pq" else HlgDisplay(form.white_nits)
    with av.open(str(tmp_path / name)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        tags = (context.color_primaries, context.color_trc, context.colorspace, context.color_range)
        assert tuple(map(int, tags)) == (9, 16 if form.transfer == "pq" else 18, 9, 1)
        assert (stream.average_rate, stream.frames) == (RATE, 6)
        assert context.name == form.codec
        assert context.pix_fmt == ("yuv420p10le" if form.codec == "hevc" else "yuv422p10le")
        for pixels, decoded in zip(frames, container.decode(stream), strict=True):
            side = {data.type: bytes(data) for data in decoded.side_data}
            xy, low, high = mastering(side[Type.MASTERING_DISPLAY_METADATA])
            np.testing.assert_allclose(xy, REC2020.chromaticities or (), atol=2e-5)
            assert (low, high) == (pytest.approx(0.005), form.mastering_nits)
            assert struct.unpack("<2I", side[Type.CONTENT_LIGHT_LEVEL]) == (wanted_cll, wanted_fall)
            codes = codes_of(decoded, Coding(9, False, ""))
            np.testing.assert_allclose(codes[12:20, 12:20], transfer.encode(pixels)[12:20, 12:20], atol=4e-3)
            np.testing.assert_allclose(codes[34:40, 14:34], transfer.encode(pixels)[34:40, 14:34], atol=8e-3)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_every_key_frame_states_the_light(tmp_path: Path) -> None:
    """Cut at a later key frame, the stream alone still says it: no message was left open."""
    frames = [np.full((16, 16, 3), 0.1 * n, np.float32) for n in range(270)]
    record = write(tmp_path / "a.mp4", Form("hevc", "pq"), frames)
    data = (tmp_path / "a.mp4").read_bytes()
    stated = struct.pack(">2H", record["max_cll"], record["max_fall"])
    assert data.count(b"\x4e\x01\x90\x04") == data.count(b"\x4e\x01\x90\x04" + stated + b"\x80") >= 3
    assert [box.kind for box in boxes(data, 0, len(data))][-1] == b"moov"


def test_nothing_is_cut_in_silence(tmp_path: Path) -> None:
    pixels = scene(0)
    pixels[0, :4] = (150.0, 1.0, 1.0)  # 15000 cd/m2
    pixels[1, :3] = (0.2, -0.1, 0.2)
    pixels[2, :2] = 20.0  # 2000 cd/m2, beyond the mastering display
    record = write(tmp_path / "a.mov", Form("prores", "pq"), [pixels])
    assert record["counts"] == {
        "samples": pixels.size, "above": 4, "below": 3, "beyond_mastering": 10, "alpha_left_out": 0,
    }  # fmt: skip
    assert len(record["warnings"]) == 3
    assert "4 samples are brighter than the 10000 cd/m2 that PQ holds and are cut to it" in record["warnings"][0]
    assert record["max_cll"] == 10000
    record = write(tmp_path / "b.mov", Form("prores", "hlg"), [np.concatenate([pixels, pixels[..., :1]], axis=2)])
    assert record["counts"]["above"] == 4 + 6
    assert record["counts"]["alpha_left_out"] == 1
    assert (record["max_cll"], "HLG holds" in record["warnings"][0]) == (1000, True)


def test_odd_sizes(tmp_path: Path) -> None:
    for name, form, pixels in (
        ("a.mp4", Form("hevc", "pq"), "yuv444p10le"), ("b.mov", Form("prores", "pq"), "yuv422p10le"),
    ):  # fmt: skip
        odd = scene(1, (65, 49))
        record = write(tmp_path / name, form, [odd])
        assert ("4:4:4" in " ".join(record["warnings"])) == (form.codec == "hevc")
        with av.open(str(tmp_path / name)) as container:
            (decoded,) = container.decode(video=0)
        assert (decoded.width, decoded.height, decoded.format.name) == (65, 49, pixels)
        shown = CURVES["pq"].decode(codes_of(decoded, Coding(9, False, "")))
        np.testing.assert_allclose(shown[12:20, 12:20], odd[12:20, 12:20], rtol=0.05)


def test_what_no_movie_holds(tmp_path: Path) -> None:
    writer = MovieWriter(tmp_path / "a.mp4", Form("hevc", "pq"), (64, 48), RATE)
    with pytest.raises(BadInput, match=r"frame 1 is 32x48, the movie 64x48"):
        writer.add(frame_of(scene(0)[:, :32]))
    bad = scene(0)
    bad[3, 3] = np.nan
    with pytest.raises(BadInput, match=r"frame 1 has NaN or Inf"):
        writer.add(frame_of(bad))
    writer.abandon()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StorageError, match=r"cannot write .*none"):
        MovieWriter(tmp_path / "none" / "a.mp4", Form("hevc", "pq"), (64, 48), RATE)


@pytest.mark.parametrize("light", [(0, 0), (256, 0), (256, 3), (1000, 400), (700, 0), (65535, 65535), (512, 256)])
def test_a_light_message_needs_no_escaping(light: tuple[int, int]) -> None:
    kept = storable(Light(*light))
    body = b"\x04" + struct.pack(">2H", kept.max_cll, kept.max_fall) + b"\x80"
    assert not any(body[i : i + 2] == b"\0\0" and body[i + 2] <= 3 for i in range(len(body) - 2))
    assert 0 <= kept.max_fall - light[1] <= 4
    assert kept.max_cll - light[0] in {0, 1}


def test_oblong_pixels_stay_oblong(tmp_path: Path) -> None:
    for name, form in (("a.mov", Form("prores", "pq")), ("a.mp4", Form("hevc", "pq"))):
        writer = MovieWriter(tmp_path / name, form, (64, 48), RATE)
        for number in (1, 2):
            writer.add(replace(frame_of(scene(0), number), pixel_aspect=2.0))
        writer.close()
        with av.open(str(tmp_path / name)) as container:
            assert container.streams.video[0].sample_aspect_ratio == 2
