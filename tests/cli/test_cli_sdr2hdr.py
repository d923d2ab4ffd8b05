"""`hdrgen sdr2hdr` through a real sidecar: stills and sequences in, EXRs out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_user import Run, photograph
from PIL import Image

from hdrgen_server.cli import demo
from hdrgen_server.colour.curves import CURVES
from hdrgen_server.colour.interop import colourspace
from hdrgen_server.contracts.frame import Box, Frame
from hdrgen_server.image.exr import read_exr_frame, write_exr
from hdrgen_server.image.reading import read_frame

OVER = demo.EXAMPLES / "bracket" / "3_over.jpg"
LINEAR = ("--colourspace", "lin_rec709_scene")
pytestmark = pytest.mark.usefixtures("sidecar_ends")


def test_a_photograph(hdrgen: Run, alone: Path) -> None:
    status, out, err = hdrgen(
        "sdr2hdr", OVER, "-o", "out.exr", *LINEAR, "--aovs", "--preview", "p.png", "--set", "method=c", "--json"
    )
    assert status == 0, err
    assert "Error" not in err
    record = json.loads(out)
    result = read_exr_frame(alone / "out.exr")
    assert (record["pack"], record["interop_id"]) == ("bt2446", "lin_rec709_scene")
    assert result.metadata["hdrgen/key"] == record["results"][0]["key"]
    assert result.metadata["hdrgen/parameter/method"] == "c"
    assert {"hdrgen.generated", "hdrgen.clipped"} <= set(result.layers)
    codes = read_frame(OVER).rgb
    clipped = (codes * 255 > 249.5).any(axis=2)
    assert record["counts"]["clipped"] == (codes * 255 > 249.5).sum()
    assert result.rgb[clipped].max() > 2
    low = (codes < 0.75).all(axis=2)  # method c leaves alone what is below 80 % of the signal
    light = CURVES["srgb"].decode(codes.astype(np.float64))
    np.testing.assert_allclose(result.rgb[low], light[low], rtol=1e-3, atol=1e-4)
    assert sorted(p.name for p in alone.iterdir()) == ["out.exr", "p.png"]

    status, out, _ = hdrgen("sdr2hdr", OVER, "-o", "out.exr", *LINEAR)
    assert (status, out.startswith("wrote out.exr in Linear Rec.709 (sRGB), pack bt2446, ")) == (0, True)


def test_preserve_plate_is_bit_for_bit(hdrgen: Run, alone: Path) -> None:
    for threshold in (250, 200):
        keep = ("--preserve-plate", "--set", f"clip_threshold={threshold}")
        assert hdrgen("sdr2hdr", OVER, "-o", "kept.exr", *LINEAR, *keep)[0] == 0
        codes = read_frame(OVER).rgb
        plate = CURVES["srgb"].decode(codes.astype(np.float64)).astype(np.float32)
        kept = (codes * 255 < threshold - 0.5).all(axis=2)
        result = read_exr_frame(alone / "kept.exr")
        assert 0.1 < kept.mean() < 0.9
        assert result.rgb[kept].tobytes() == plate[kept].tobytes()
        assert result.rgb.max() > 2
        assert result.metadata["hdrgen/preserve_plate"] == 1
    # A scene-linear plate says its encoding with --set, and keeps its own values.
    light = np.linspace(0.0, 1.0, 64, dtype=np.float32)[None, :, None].repeat(16, 0).repeat(3, 2)
    write_exr(Frame(np.ascontiguousarray(light), ("R", "G", "B"), colourspace("lin_rec709_scene")), "in.exr", half=True)
    assert hdrgen("sdr2hdr", "in.exr", "-o", "lin.exr", *LINEAR, "--preserve-plate", "--ceiling", 2)[0] == 0
    linear, source = read_exr_frame("lin.exr").rgb, read_exr_frame("in.exr").rgb
    low = source[0, :, 0] < CURVES["srgb"].decode(np.float64(249.4 / 255))
    assert linear[:, low].tobytes() == source[:, low].tobytes()
    assert 1.0 < linear[:, ~low].max() < 2.0


def test_a_sequence_is_one_job_and_can_be_resumed(hdrgen: Run, alone: Path) -> None:
    for number in (7, 8, 10):
        photograph(alone / f"in.{number:04d}.png", number / 10)
    call = ("sdr2hdr", "in.####.png", "-o", "out.####.exr", *LINEAR, "--json")
    status, out, err = hdrgen(*call)
    assert status == 0, err
    record = json.loads(out)
    assert [r["frame"] for r in record["results"]] == [7, 8, 10]
    assert len({r["key"] for r in record["results"]}) == 3
    assert set(record["busy"]) == {"decode", "sidecar", "encode"}
    assert sorted(p.name for p in alone.glob("out*")) == ["out.0007.exr", "out.0008.exr", "out.0010.exr"]
    first = {p.name: p.stat().st_mtime_ns for p in alone.glob("out*")}
    for number in (7, 8, 10):
        alone_result = read_exr_frame(alone / f"out.{number:04d}.exr")
        assert alone_result.metadata["hdrgen/key"] == {r["frame"]: r["key"] for r in record["results"]}[number]

    # What is there and the same stays; a missing one, one of another input and one made otherwise are made again.
    (alone / "out.0008.exr").unlink()
    photograph(alone / "in.0010.png", 0.2)
    record = json.loads(hdrgen(*call, "--resume")[1])
    assert ([r["frame"] for r in record["results"]], record["kept"]) == ([8, 10], 1)
    assert (alone / "out.0007.exr").stat().st_mtime_ns == first["out.0007.exr"]
    record = json.loads(hdrgen(*call, "--resume", "--ceiling", 4)[1])
    assert len(record["results"]) == 3
    record = json.loads(hdrgen(*call, "--resume", "--ceiling", 4)[1])
    assert (record["results"], record["kept"]) == ([], 3)
    assert "all 3 frames are there already" in hdrgen(*call[:-1], "--resume", "--ceiling", 4)[1]


def test_what_is_done_stays_when_a_frame_is_bad(hdrgen: Run, alone: Path) -> None:
    for number in range(1, 6):
        photograph(alone / f"in.{number:04d}.png", 0.5)
    (alone / "in.0004.png").write_bytes((alone / "in.0004.png").read_bytes()[:60])
    status, _, err = hdrgen("sdr2hdr", "in.####.png", "-o", "out.####.exr", *LINEAR)
    assert status == 2
    assert err.splitlines()[-1].startswith("hdrgen: in.0004.png is truncated or damaged")
    assert sorted(p.name for p in alone.glob("out*")) == ["out.0001.exr", "out.0002.exr", "out.0003.exr"]
    photograph(alone / "in.0004.png", 0.5, (40, 24))
    status, _, err = hdrgen("sdr2hdr", "in.####.png", "-o", "out.####.exr", *LINEAR, "--resume")
    assert (status, "in.0004.png is 40x24" in err) == (2, False)  # resuming starts at frame 4: 5 is the odd one
    assert "in.0005.png is 32x24, the frames before it are 40x24" in err
    assert (alone / "out.0004.exr").is_file()


def test_layers_windows_alpha_and_grey(hdrgen: Run, alone: Path) -> None:
    pixels = np.full((8, 12, 4), 0.5, np.float32)
    frame = Frame(
        pixels, ("R", "G", "B", "A"), colourspace("lin_ap1_scene"), data_window=Box(2, 1, 13, 8),
        display_window=Box(0, 0, 19, 9), pixel_aspect=2.0, layers={"depth.Z": np.full((8, 12), 3, np.float32)},
    )  # fmt: skip
    write_exr(frame, "in.exr")
    assert hdrgen("sdr2hdr", "in.exr", "-o", "out.exr")[0] == 0
    result = read_exr_frame("out.exr")
    assert (result.data_window, result.display_window, result.pixel_aspect) == (Box(2, 1, 13, 8), Box(0, 0, 19, 9), 2.0)
    assert result.layers["depth.Z"].tobytes() == frame.layers["depth.Z"].tobytes()
    assert result.channels == ("R", "G", "B", "A")
    Image.fromarray(np.full((4, 6, 2), (128, 64), np.uint8), "LA").save(alone / "grey.png")
    assert hdrgen("sdr2hdr", "grey.png", "-o", "grey.exr", *LINEAR)[0] == 0
    assert np.allclose(read_exr_frame("grey.exr").pixels[..., 3], 64 / 255, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("none.png", "-o", "o.exr"), "none.png does not exist"),
        (("a.png", "-o", "o.tif"), "-o o.tif is no .exr file"),
        (("a.png", "-o", "a.exr", "--pack", "merge"), "pack merge does hdrfuse, not sdr2hdr"),
        (("a.png", "-o", "a.exr", "--set", "method=x"), "method must be one of a, c"),
        (("a.png", "-o", "a.exr", "--transfer", "hlg"), "are for movies (.mov, .mp4), and a.exr is none"),
        (("a.png", "-o", "a.exr", "--matrix", "bt709"), "a.png is no movie"),
        (("a.png", "-o", "a.exr", "--ceiling", "0"), "--ceiling must be a number above 0"),
        (("a.png", "-o", "o.mov", "--aovs"), "are for EXRs; leave them out"),
        (("a.png", "-o", "o.mp4", "--codec", "prores"), "ProRes goes into .mov"),
        (("a.png", "-o", "o.mov", "--codec", "av1"), "a movie is hevc or prores"),
        (("a.png", "-o", "o.mov", "--white-nits", "0"), "--white-nits must be above 0"),
        (("a.png", "-o", "none/o.exr"), "there is no folder none"),
        (("b.####.png", "-o", "o.####.exr"), "no file matches"),
        (("hdr.exr", "-o", "o.exr", "--input-colourspace", "pq_rec2020_display"), "is no SDR encoding"),
    ],
)
def test_refused(hdrgen: Run, alone: Path, arguments: tuple[str, ...], words: str) -> None:
    photograph(alone / "a.png", 0.5)
    light = np.full((4, 4, 3), 0.5, np.float32)
    write_exr(Frame(light, ("R", "G", "B"), colourspace("lin_rec709_scene")), alone / "hdr.exr")
    status, out, err = hdrgen("sdr2hdr", *arguments)
    assert (status, out) == (2, "")
    assert words in err
    assert not (alone / "o.exr").exists()
