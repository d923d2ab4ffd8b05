"""The command line through a real sidecar: bracket in, tagged EXR out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_user import Run, photograph

from hdrgen_server.cli import demo
from hdrgen_server.colour.curves import CURVES
from hdrgen_server.contracts.frame import Box, Colourspace, Frame
from hdrgen_server.image.exr import read_exr_frame, write_exr
from hdrgen_server.image.reading import read_frame

LINEAR = Colourspace("lin_rec709_scene", "lin_rec709_scene")
EXAMPLES = [demo.EXAMPLES / "bracket" / f"{name}.jpg" for name in demo.BRACKET]
pytestmark = pytest.mark.usefixtures("sidecar_ends")


def linear_of(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A photograph as scene-linear Rec.709, and which of its pixels are well exposed."""
    codes = read_frame(path).rgb
    return CURVES["srgb"].decode(codes), ((codes * 255 >= 13) & (codes * 255 <= 249)).all(axis=2)


def test_the_example_bracket(hdrgen: Run, alone: Path) -> None:
    arguments = ["--pack", "merge", "--colourspace", "lin_rec709_scene", "-o", "out.exr", "--json"]
    status, out, err = hdrgen("hdrfuse", *EXAMPLES, "--ev=-2,0,2", "--reference", 1, *arguments, "--preview", "p.png")
    assert status == 0, err
    assert "Error" not in err
    record = json.loads(out)
    assert record["pack"] == "merge"
    assert record["results"][0]["evs"] == [-2, 0, 2]
    result = read_exr_frame(alone / "out.exr")
    assert result.colourspace.interop_id == "lin_rec709_scene"
    assert result.metadata["hdrgen/key"] == record["results"][0]["key"]
    reference, well = linear_of(EXAMPLES[1])
    assert np.median(result.rgb[well] / reference[well]) == pytest.approx(1.0, abs=0.02)
    assert result.rgb.max() > 3
    assert (alone / "p.png").is_file()
    assert sorted(p.name for p in alone.iterdir()) == ["out.exr", "p.png"]

    # EXIF says the same, in any order, through the sidecar that runs already.
    status, out, err = hdrgen("hdrfuse", EXAMPLES[2], EXAMPLES[0], EXAMPLES[1], *arguments)
    assert status == 0, err
    assert json.loads(out)["results"][0]["reference"] == 2
    assert json.loads(out)["results"][0]["evs"] == pytest.approx([2, -2, 0], abs=1e-3)
    again = read_exr_frame(alone / "out.exr")
    np.testing.assert_allclose(again.rgb, result.rgb, rtol=2e-3, atol=1e-4)

    # EVs that contradict the files are said, not changed.
    status, out, err = hdrgen("hdrfuse", *EXAMPLES, "--ev=2,0,-2", *arguments)
    assert status == 0
    assert "check the order" in err

    status, out, _ = hdrgen("status", "--json")
    assert status == 0
    assert json.loads(out)["live"] is True
    status, out, _ = hdrgen("serve", "--help")
    assert status == 0


@pytest.mark.parametrize("count", [2, 7])
def test_any_number_of_odd_sized_images(hdrgen: Run, alone: Path, count: int) -> None:
    names = [photograph(alone / f"{i}.png", 0.08 * (i + 1), (33, 19)) for i in range(count)]
    evs = ",".join(str(i) for i in range(count))
    status, _, err = hdrgen("hdrfuse", *names, f"--ev={evs}", "--pack", "merge", "-o", "out.exr")
    assert status == 0, err
    result = read_exr_frame(alone / "out.exr")
    assert (result.width, result.height) == (33, 19)
    assert "wrote out.exr in ACEScg" in hdrgen("hdrfuse", *names, f"--ev={evs}", "--pack", "merge", "-o", "out.exr")[1]


def test_exr_sequences_keep_windows_and_numbers(hdrgen: Run, alone: Path) -> None:
    window = Box(2, 3, 13, 10)
    for number in (7, 8):
        for name, stops in (("dark", -1), ("bright", 1)):
            pixels = np.full((8, 12, 3), 0.2 * 2.0**stops, np.float32)
            frame = Frame(pixels, ("R", "G", "B"), LINEAR, data_window=window, display_window=Box.of_size(20, 16))
            write_exr(frame, alone / f"{name}.{number:04d}.exr")
    arguments = (
        "dark.####.exr",
        "bright.####.exr",
        "--ev=-1,1",
        "--pack",
        "merge",
        "--colourspace",
        "lin_rec709_scene",
    )
    status, _, err = hdrgen("hdrfuse", *arguments, "-o", "out.####.exr")
    assert status == 0, err
    for number in (7, 8):
        result = read_exr_frame(alone / f"out.{number:04d}.exr")
        assert result.data_window == window
        assert result.display_window == Box.of_size(20, 16)
        np.testing.assert_allclose(result.rgb, 0.1, rtol=1e-2)
    assert hdrgen("hdrfuse", *arguments, "-o", "out.exr")[0] == 2
    (alone / "dark.0008.exr").unlink()
    status, _, err = hdrgen("hdrfuse", *arguments, "-o", "out.####.exr")
    assert status == 2
    assert "differ in frame 8" in err


def test_nan_is_replaced_and_counted_when_asked(hdrgen: Run, alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDRGEN_NAN_POLICY", "replace")
    for name in ("a", "b"):
        pixels = np.full((8, 8, 3), 0.5, np.float32)
        pixels[2, 3, 1] = np.nan if name == "b" else 0.5
        write_exr(Frame(pixels, ("R", "G", "B"), LINEAR), alone / f"{name}.exr", half=False)
    status, out, err = hdrgen("hdrfuse", "a.exr", "b.exr", "--ev=0,1", "--pack", "merge", "-o", "o.exr", "--json")
    assert status == 0, err
    assert json.loads(out)["results"][0]["counts"]["nan"] == 1
    assert np.isfinite(read_exr_frame(alone / "o.exr").pixels).all()


def test_demo_writes_what_it_says(hdrgen: Run, alone: Path) -> None:
    status, out, err = hdrgen("demo")
    assert status == 0, err
    for name in ("hdrfuse.exr", "hdrfuse.png", "sdr2hdr.exr", "sdr2hdr.png", "txt2hdr.png"):
        assert str(alone / "demo" / name) in out
        assert (alone / "demo" / name).stat().st_size > 10_000
    assert len(list((alone / "demo").glob("txt2hdr.*.exr"))) == demo.COUNT
