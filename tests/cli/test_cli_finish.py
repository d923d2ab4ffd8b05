"""What `hdrfuse` does after the run: preserve plate, the ceiling, the header's record, and disks that are full."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from cli_user import Run
from PIL import Image

from hdrgen_server.cli import demo
from hdrgen_server.colour.curves import CURVES
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.image.exr import read_exr_frame, write_exr
from hdrgen_server.image.reading import read_frame
from hdrgen_server.image.tags import LIN_REC709_SCENE

EXAMPLES = [demo.EXAMPLES / "bracket" / f"{name}.jpg" for name in demo.BRACKET]
MERGE = ("--pack", "merge", "--colourspace", "lin_rec709_scene")
pytestmark = pytest.mark.usefixtures("sidecar_ends")


def fused(hdrgen: Run, images: list[Path], evs: str, *options: object) -> tuple[Frame, dict[str, object]]:
    status, out, err = hdrgen("hdrfuse", *images, f"--ev={evs}", *MERGE, "-o", "out.exr", "--json", *options)
    assert status == 0, err
    return read_exr_frame("out.exr"), json.loads(out)["results"][0]


def test_preserve_plate_and_ceiling_on_photographs(hdrgen: Run) -> None:
    plain, record = fused(hdrgen, EXAMPLES, "-2,0,2", "--reference", 1)
    assert (record["preserve_plate"], record["ceiling"]) == (False, None)
    assert not {"hdrgen/preserve_plate", "hdrgen/ceiling"} & set(plain.metadata)
    codes = read_frame(EXAMPLES[1]).rgb
    kept = (codes * 255 < 249.5).all(axis=2)
    plate = CURVES["srgb"].decode(codes.astype(np.float64)).astype(np.float32)
    assert not np.array_equal(plain.rgb[kept], plate[kept])

    preserved, record = fused(hdrgen, EXAMPLES, "-2,0,2", "--reference", 1, "--preserve-plate")
    assert record["preserve_plate"] is True
    assert preserved.rgb[kept].tobytes() == plate[kept].tobytes()
    assert preserved.rgb.max() == plain.rgb.max() > 3
    assert preserved.colourspace == plain.colourspace
    assert preserved.metadata["hdrgen/key"] == plain.metadata["hdrgen/key"]
    assert {**plain.metadata, "hdrgen/preserve_plate": 1} == preserved.metadata

    both, record = fused(
        hdrgen, EXAMPLES, "-2,0,2", "--reference", 1, "--preserve-plate", "--ceiling", 3, "--set", "response=srgb"
    )
    assert (record["ceiling"], both.metadata["hdrgen/ceiling"], both.metadata["hdrgen/preserve_plate"]) == (3, 3, 1)
    assert both.rgb[kept].tobytes() == plate[kept].tobytes()
    assert 2 < both.rgb.max() < 3

    low, _ = fused(hdrgen, EXAMPLES, "-2,0,2", "--reference", 1, "--ceiling", 3)
    below = plain.rgb.max(axis=2) <= 1.5
    assert low.rgb[below].tobytes() == plain.rgb[below].tobytes()
    assert 2 < low.rgb.max() < 3


def test_preserve_plate_on_linear_exrs_with_alpha(hdrgen: Run, alone: Path) -> None:
    light = np.exp2(np.random.default_rng(0).uniform(-6, 3, (48, 40, 3))).astype(np.float32)
    alpha = np.random.default_rng(1).choice([0.25, 0.7, 1.0], (48, 40, 1)).astype(np.float32)
    names = []
    for ev in (-2, 0, 2):
        pixels = np.concatenate([np.minimum(light * np.float32(2.0**ev), 0.9375), alpha], axis=2)
        names.append(alone / f"in{ev}.exr")
        write_exr(Frame(pixels, ("R", "G", "B", "A"), LIN_REC709_SCENE), names[-1], half=True)
    plate = read_exr_frame(names[1])
    result, _ = fused(hdrgen, names, "-2,0,2", "--preserve-plate")
    clipped = (plate.rgb >= 0.93).any(axis=2)
    assert result.rgb[~clipped].tobytes() == plate.rgb[~clipped].tobytes()
    assert result.rgb[clipped].max() > 2
    assert np.array_equal(result.pixels[..., 3], plate.pixels[..., 3])


def test_nothing_clips_and_that_is_said(hdrgen: Run, alone: Path) -> None:
    names = [alone / "a.exr", alone / "b.exr"]
    for name, gain in zip(names, (1.0, 2.0), strict=True):
        ramp = np.linspace(0.01, 0.4, 48 * 40 * 3, dtype=np.float32).reshape(48, 40, 3) * np.float32(gain)
        write_exr(Frame(ramp, ("R", "G", "B"), LIN_REC709_SCENE), name, half=False)
    result, record = fused(hdrgen, names, "0,1", "--preserve-plate")
    assert result.rgb.tobytes() == read_exr_frame(names[0]).rgb.tobytes()
    assert any("clips nowhere" in text for text in record["warnings"])  # type: ignore[attr-defined]


@pytest.mark.parametrize("level", ["full", "digest", "none"])
def test_the_header_records_as_much_as_the_site_says(
    hdrgen: Run, bracket: list[Path], level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HDRGEN_PROVENANCE", level)
    result, record = fused(hdrgen, bracket, "-2,0,2", "--ceiling", 4)
    found = {name for name in result.metadata if "hdrgen" in name}
    if level == "full":
        assert {"hdrgen/client", "hdrgen/key", "hdrgen/pack_digest", "hdrgen/operation", "hdrgen/ceiling"} <= found
        assert str(result.metadata["hdrgen/client"]).startswith("hdrgen ")
        assert not [name for name in found if name.count("hdrgen/") > 1]
    else:
        assert found == ({"hdrgen/key", "hdrgen/pack_digest"} if level == "digest" else set())
    assert record["ceiling"] == 4


@pytest.mark.parametrize("ceiling", ["0", "-2", "nan", "inf"])
def test_a_ceiling_that_is_none(hdrgen: Run, bracket: list[Path], alone: Path, ceiling: str) -> None:
    status, out, err = hdrgen("hdrfuse", *bracket, "--ev=-2,0,2", "-o", "out.exr", f"--ceiling={ceiling}")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "--ceiling" in err
    assert not (alone / "out.exr").exists()


def _tmpfs(folder: Path, size: int, stack: ExitStack) -> Callable[[], None] | None:
    """A disk of that size mounted on the folder, or the test is skipped."""
    options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    stack.callback(subprocess.run, ["umount", str(folder)], check=True)
    return None


def _limit(folder: Path, size: int, stack: ExitStack) -> Callable[[], None] | None:
    """What runs in the child: no file of it may grow beyond that size (EFBIG; Python ignores the signal)."""
    del folder, stack
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize(
    ("victim", "fill"),
    [("result", _tmpfs), ("result", _limit), ("sheet", _tmpfs), ("preview", _tmpfs), ("preview", _limit)],
)
def test_a_full_disk(hdrgen: Run, alone: Path, fill: Callable[..., Callable[[], None] | None], victim: str) -> None:
    rng = np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(rng.integers(0, 256, (96, 128, 3), np.uint8)).save(alone / f"{name}.png")
    fuse = ["hdrfuse", "a.png", "b.png", "--ev=0,2", *MERGE]
    assert hdrgen(*fuse, "-o", "before.exr")[0] == 0  # also starts the sidecar, which must not inherit a limit
    arguments = {
        "result": [*fuse, "-o", "full/out.exr"],
        "sheet": [*fuse, "-o", "out.exr", "--preview", "full/out.png"],
        "preview": ["preview", "before.exr", "-o", "full/out.png"],
    }[victim]
    folder = alone / "full"
    folder.mkdir()
    with ExitStack() as stack:
        command = [str(Path(sys.executable).with_name("hdrgen")), *arguments]
        prepare = fill(folder, 16384, stack)
        # A measured child could not write its coverage either, and would say so.
        plain = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
        ended = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=prepare, env=plain)
        left = list(folder.iterdir())
    assert ended.returncode == 2, ended.stderr
    (said,) = [line for line in ended.stderr.splitlines() if not re.search(r": (queued|loading|step|encoding)", line)]
    assert said.startswith(f"hdrgen: cannot write full/out.{'exr' if victim == 'result' else 'png'}: ")
    assert "free space" in said
    assert left == []
    assert (alone / "out.exr").exists() == (victim == "sheet")  # the result is whole; only its picture is missing
