"""`hdrgen sdr2hdr` with movies, through a real sidecar: in as codes, out as EXRs or as an HDR movie."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from cli_user import Run
from PIL import Image

from hdrgen_server.colour.curves import CURVES
from hdrgen_server.image.exr import read_exr_frame
from hdrgen_server.image.movie import codes_of
from hdrgen_server.image.movie_tags import Coding
from tests.image.movie_files import Make, Tagging, ramp, write_movie

LINEAR = ("--colourspace", "lin_rec709_scene")
pytestmark = pytest.mark.usefixtures("sidecar_ends")


def footage(alone: Path, count: int = 8, suffix: str = "mp4") -> Path:
    make = Make(rate=Fraction(24000, 1001), container={"movflags": "faststart"} if suffix == "mp4" else {})
    return write_movie(alone / f"in.{suffix}", [ramp(n, (62, 46)) for n in range(count)], make)


def test_a_movie_to_exrs(hdrgen: Run, alone: Path) -> None:
    footage(alone)
    call = ("sdr2hdr", "in.mp4", "-o", "out.####.exr", *LINEAR, "--preserve-plate", "--json")
    status, out, err = hdrgen(*call)
    assert status == 0, err
    record = json.loads(out)
    assert [r["frame"] for r in record["results"]] == list(range(1, 9))
    assert set(record["busy"]) == {"decode", "sidecar", "encode"}
    luma = np.linspace(16, 235, 62).round()
    light = CURVES["rec1886"].decode((luma - 16) / 219).astype(np.float32)
    for number in (1, 8):
        result = read_exr_frame(alone / f"out.{number:04d}.exr")
        grey = result.rgb[30, :, 1]
        kept = (luma - 16) / 219 < 249.4 / 255
        np.testing.assert_allclose(grey[kept], light[kept], rtol=1e-4, atol=1e-6)
        assert grey[-1] > 1.5
        patch = result.rgb[16, 2 * (2 + (number - 1) % 8) + 8]
        assert patch[0] > patch[2] + 0.005
    (alone / "out.0005.exr").unlink()
    record = json.loads(hdrgen(*call, "--resume")[1])
    assert ([r["frame"] for r in record["results"]], record["kept"]) == ([5], 7)


@pytest.mark.parametrize(("target", "options"), [("out.mov", ()), ("out.mp4", ("--transfer", "hlg"))])
def test_a_movie_to_a_movie(hdrgen: Run, alone: Path, target: str, options: tuple[str, ...]) -> None:
    footage(alone)
    status, out, err = hdrgen("sdr2hdr", "in.mp4", "-o", target, *options, "--json")
    assert status == 0, err
    record = json.loads(out)
    assert record["interop_id"] == "lin_rec2020_scene"
    assert record["movie"]["frames"] == 8
    assert 150 < record["movie"]["max_cll"] < 1100
    with av.open(str(alone / target)) as container:
        stream = container.streams.video[0]
        assert (stream.average_rate, int(stream.codec_context.color_trc)) == (
            Fraction(24000, 1001),
            18 if options else 16,
        )
        frames = [codes_of(frame, Coding(9, False, "")) for frame in container.decode(stream)]
    assert len(frames) == 8
    assert all(np.diff(frame[30, ::8, 1]).min() > 0 for frame in frames)
    assert sorted(p.name for p in alone.iterdir()) == sorted(["in.mp4", target])
    assert "wrote 8 frames to" in hdrgen("sdr2hdr", "in.mp4", "-o", target, *options)[1]


def test_a_sequence_to_a_movie_says_what_it_cut(hdrgen: Run, alone: Path) -> None:
    for number in (1, 2, 3):
        Image.fromarray(np.full((16, 32, 3), 80 * number, np.uint8)).save(alone / f"in.{number:04d}.png")
    status, out, err = hdrgen("sdr2hdr", "in.####.png", "-o", "out.mov", "--mastering-nits", 100, "--ceiling", 50)
    assert status == 0, err
    assert "brighter than the mastering display, 100 cd/m2 and are kept" in err
    assert "PQ BT.2020, ProRes 422 HQ, 10 bit" in out


@pytest.mark.parametrize("target", ["out.####.exr", "out.mov"])
def test_what_is_done_stays_when_a_movie_ends_early(hdrgen: Run, alone: Path, target: str) -> None:
    rng = np.random.default_rng(3)
    noisy = [[rng.integers(30, 220, p.shape, np.uint8) for p in ramp()] for _ in range(10)]
    data = write_movie(alone / "whole.mkv", noisy, Make(options={"qp": "0", "g": "1"})).read_bytes()
    (alone / "cut.mkv").write_bytes(data[: len(data) * 6 // 10])
    status, _, err = hdrgen("sdr2hdr", "cut.mkv", "-o", target, *(LINEAR if "exr" in target else ()))
    assert status == 2
    last = err.splitlines()[-1]
    assert "cut.mkv " in last
    assert "ends after" in last or "is damaged" in last
    if "exr" in target:
        done = sorted(p.name for p in alone.glob("out.*"))
        assert done == [f"out.{n:04d}.exr" for n in range(1, len(done) + 1)]
    else:
        with av.open(str(alone / "out.mov")) as container:
            done = list(container.decode(video=0))
    assert 4 <= len(done) <= 7


def test_ten_bits_of_an_odd_size_in_422(hdrgen: Run, alone: Path) -> None:
    luma = np.linspace(64, 940, 33).round().astype(np.uint16)[None].repeat(17, 0)
    neutral = np.full((17, 17), 512, np.uint16)
    write_movie(alone / "in.mkv", [[luma, neutral, neutral]] * 3, Make("ffv1", "yuv422p10le", options={}))
    status, _, err = hdrgen("sdr2hdr", "in.mkv", "-o", "out.####.exr", *LINEAR, "--preserve-plate")
    assert status == 0, err
    result = read_exr_frame(alone / "out.0003.exr")
    assert (result.width, result.height) == (33, 17)
    codes = (luma[0] - 64.0) / 876
    kept = codes < 249.4 / 255
    light = CURVES["rec1886"].decode(codes[kept])
    np.testing.assert_allclose(result.rgb[8, kept], light[:, None].repeat(3, 1), rtol=1e-4, atol=1e-6)
    status, _, err = hdrgen("sdr2hdr", "in.mkv", "-o", "out.mp4")
    assert status == 0, err
    assert "4:4:4" in err
    with av.open(str(alone / "out.mp4")) as container:
        frames = list(container.decode(video=0))
    assert [(frame.width, frame.height) for frame in frames] == [(33, 17)] * 3


def test_what_is_done_stays_when_a_movie_turns_interlaced(hdrgen: Run, alone: Path) -> None:
    parts = (("a.h264", Make()), ("b.h264", Make(interlaced=True)))
    data = [write_movie(alone / name, [ramp(n) for n in range(4)], make).read_bytes() for name, make in parts]
    (alone / "in.mp4").write_bytes(b"".join(data))
    status, _, err = hdrgen("sdr2hdr", "in.mp4", "-o", "out.####.exr", *LINEAR)
    assert status == 2
    assert err.splitlines()[-1] == "hdrgen: in.mp4 is interlaced from frame 5 on; deinterlace it first"
    assert sorted(p.name for p in alone.glob("out.*")) == [f"out.{n:04d}.exr" for n in range(1, 5)]


@pytest.mark.parametrize(
    ("name", "make", "stamps", "words"),
    [
        ("a.mp4", Make("libx265", "yuv420p10le", tags=Tagging(9, 16, 9), options={}), None, "is tagged PQ (HDR)"),
        ("a.mp4", Make(tags=Tagging(1, 9, 1)), None, "is tagged logarithmic"),
        ("a.mp4", Make(interlaced=True), None, "is interlaced"),
        ("a.mp4", Make(), (0, 40, 80, 200), "has a variable frame rate: frame 3 lasts 0.12 s, most last 0.04 s"),
        ("a.mp4", Make(tags=Tagging(levels=2)), None, "is flagged full range, but its luma ends at the codes 16"),
    ],
)
def test_movies_that_are_no_sdr_as_they_say(
    hdrgen: Run, alone: Path, name: str, make: Make, stamps: tuple[int, ...] | None, words: str
) -> None:
    planes = ramp() if "10" not in make.pixels else [p.astype(np.uint16) * 4 for p in ramp()]
    write_movie(alone / name, [planes] * 4, make, stamps)
    status, out, err = hdrgen("sdr2hdr", name, "-o", "out.####.exr")
    assert (status, out) == (2, "")
    assert f"hdrgen: {name} " in err
    assert words in err
    assert err.count("\n") == 1
    assert [p.name for p in alone.iterdir()] == [name]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("hdr.mp4", "-o", "o.####.exr"), "is tagged HLG (HDR), which is no SDR"),
        (("in.mp4", "-o", "in.mp4"), "is the input; give the result another name"),
        (("in.mp4", "-o", "o.exr"), "o.exr names one file for 8 frames"),
        (("in.mp4", "-o", "o.mov", "--preview", "p.png"), "--preview goes with EXRs"),
        (("in.mp4", "-o", "o.mov", "--levels", "pc"), "--levels must be limited, full"),
        (("in.mp4", "-o", "none/o.mov"), "there is no folder none"),
    ],
)
def test_refused(hdrgen: Run, alone: Path, arguments: tuple[str, ...], words: str) -> None:
    footage(alone)
    write_movie(alone / "hdr.mp4", [ramp()], Make(tags=Tagging(9, 18, 9)))
    status, out, err = hdrgen("sdr2hdr", *arguments)
    assert (status, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.usefixtures("interruptible")
def test_cancel_keeps_what_is_done(alone: Path) -> None:
    write_movie(alone / "long.mp4", [ramp(n, (320, 180)) for n in range(300)], Make())
    command = [str(Path(sys.executable).parent / "hdrgen"), "sdr2hdr", "long.mp4", "-o", "out.####.exr", *LINEAR]
    with subprocess.Popen(command, cwd=alone, stderr=subprocess.PIPE, text=True) as run:
        deadline = time.monotonic() + 200
        while not (alone / "out.0001.exr").is_file() and run.poll() is None and time.monotonic() < deadline:
            threading.Event().wait(0.02)
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=60)
    assert run.returncode == 130
    assert err.splitlines()[-1] == "hdrgen: cancelled"
    done = sorted(path.name for path in alone.glob("out.*"))
    assert done == [f"out.{number:04d}.exr" for number in range(1, len(done) + 1)]
    assert 1 <= len(done) < 300
    assert read_exr_frame(alone / done[-1]).width == 320
    assert not [path for path in alone.iterdir() if path.name.startswith(".")]


def test_part_of_a_movie_to_a_movie(hdrgen: Run, alone: Path) -> None:
    footage(alone)
    status, out, err = hdrgen("sdr2hdr", "in.mp4", "-o", "out.mov", "--frames", "3-5", "--json")
    assert status == 0, err
    record = json.loads(out)
    assert [frame["frame"] for frame in record["results"]] == [3, 4, 5]
    with av.open(str(alone / "out.mov")) as container:
        assert len(list(container.decode(video=0))) == 3
    status, _, err = hdrgen("sdr2hdr", "in.mp4", "-o", "out.mov", "--frames", "5-9")
    assert (status, "in.mp4 has no frame 9; it has 1 to 8" in err) == (2, True)
