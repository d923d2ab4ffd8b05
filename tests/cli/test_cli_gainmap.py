"""`hdrfuse --gainmap` and `--gainmap-jpeg`, through a real sidecar."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_user import Run, photograph
from PIL import Image

from hdrgen_server.cli import demo
from hdrgen_server.contracts.frame import Colourspace, Frame
from hdrgen_server.image.exr import read_exr_frame, write_exr
from hdrgen_server.image.ultrahdr import read_ultrahdr

EXAMPLES = [demo.EXAMPLES / "bracket" / f"{name}.jpg" for name in demo.BRACKET]
LINEAR = Colourspace("lin_rec709_scene", "lin_rec709_scene")
MERGE = ("--pack", "merge", "--colourspace", "lin_rec709_scene")
pytestmark = pytest.mark.usefixtures("sidecar_ends")


def test_the_jpeg_holds_the_result(hdrgen: Run, alone: Path) -> None:
    files = ("-o", "out.exr", "--gainmap", "map.png", "--gainmap-jpeg", "out.jpg")
    status, out, err = hdrgen("hdrfuse", *EXAMPLES, "--ev=-2,0,2", "--reference", 1, *MERGE, *files, "--json")
    assert status == 0, err
    record = json.loads(out)["results"][0]["gainmap"]
    assert (record["png"], record["jpeg"], record["base"]) == ("map.png", "out.jpg", "reference")
    assert set(record["counts"].values()) == {0}
    result, shown = read_exr_frame(alone / "out.exr"), read_ultrahdr(alone / "out.jpg")
    lit = result.rgb > 2.0**-4
    apart = np.abs(np.log2(np.maximum(shown.rgb[lit], 1e-6) / result.rgb[lit]))
    assert np.median(apart) < 0.03
    assert np.percentile(apart, 99) < 0.3
    assert shown.rgb.max() == pytest.approx(float(result.rgb.max()), rel=0.1)
    base, plate = (np.asarray(Image.open(path).convert("RGB"), np.int16) for path in (alone / "out.jpg", EXAMPLES[1]))
    assert np.abs(base - plate).mean() < 1.0
    with Image.open(alone / "map.png") as picture:
        assert picture.size == (result.width, result.height)
    assert sorted(p.name for p in alone.iterdir()) == ["map.png", "out.exr", "out.jpg"]

    status, _, err = hdrgen("preview", "out.jpg", "-o", "sheet.png")
    assert status == 0, err
    with Image.open(alone / "sheet.png") as sheet:
        assert np.asarray(sheet)[200:].std() > 10

    # Without --json a person reads where it went; the result itself is the same.
    status, out, err = hdrgen("hdrfuse", *EXAMPLES, "--ev=-2,0,2", *MERGE, "-o", "o.exr", "--gainmap-jpeg", "o.jpeg")
    assert status == 0, err
    assert "gain map o.jpeg" in out


def test_linear_sequences_have_the_result_as_their_base(hdrgen: Run, alone: Path) -> None:
    for number in (1, 2):
        for name, stops in (("a", -2), ("b", 0)):
            light = np.geomspace(0.02, 6.0, 48 * 40 * 3, dtype=np.float32).reshape(48, 40, 3)
            light[0, 0, 0] = -0.5
            exposed = np.minimum(light * np.float32(2.0**stops), 1.0)
            write_exr(Frame(exposed, ("R", "G", "B"), LINEAR), alone / f"{name}.{number:04d}.exr", half=False)
    inputs = ("a.####.exr", "b.####.exr", "--ev=-2,0", "--reference", 1)
    status, out, err = hdrgen(
        "hdrfuse", *inputs, *MERGE, "-o", "out.####.exr", "--gainmap-jpeg", "out.####.jpg", "--json"
    )
    assert status == 0, err
    for number, result in zip((1, 2), json.loads(out)["results"], strict=True):
        found = read_exr_frame(alone / f"out.{number:04d}.exr")
        assert result["gainmap"]["base"] == "result"
        over, under = int((found.rgb > 1).sum()), int((found.rgb < 0).sum())
        assert over > 100
        assert result["gainmap"]["counts"] == {"base_cut": over + under, "map_below": under, "map_above": 0}
        assert bool(under) == any("held at its ends" in text for text in result["warnings"])
        shown = read_ultrahdr(alone / f"out.{number:04d}.jpg")
        lit = found.rgb > 0.05
        assert np.median(np.abs(np.log2(shown.rgb[lit] / found.rgb[lit]))) < 0.03


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--gainmap", "map.jpg"), "--gainmap map.jpg is no .png file"),
        (("--gainmap-jpeg", "map.png"), "--gainmap-jpeg map.png is no .jpg file"),
        (("--gainmap-jpeg", "there/map.jpg"), "no folder there"),
        (("--gainmap", "p.png", "--preview", "p.png"), "two of the files"),
        (("--gainmap-jpeg", "a.jpg"), "a.jpg is an input"),
    ],
)
def test_names_are_refused_before_the_work(hdrgen: Run, alone: Path, options: tuple[str, ...], words: str) -> None:
    inputs = [photograph(alone / name, value) for name, value in (("a.jpg", 0.4), ("b.jpg", 0.9))]
    before = inputs[0].read_bytes()
    status, out, err = hdrgen("hdrfuse", *inputs, "--ev=0,2", *MERGE, "-o", "out.exr", *options)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert words in err
    assert sorted(p.name for p in alone.iterdir()) == ["a.jpg", "b.jpg"]
    assert inputs[0].read_bytes() == before
