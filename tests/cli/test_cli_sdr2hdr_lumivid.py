"""`hdrgen sdr2hdr` with LumiVid through a real sidecar: networks of size s with random weights, windows over a shot."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from cli_user import Run
from PIL import Image

from hdrgen_server.cli.choice import shot_parameters
from hdrgen_server.image.exr import read_exr_frame, read_exr_header
from hdrgen_server.packs.descriptors import load_descriptor
from hdrgen_server.packs.registry import load_registry
from hdrgen_server.settings import load_settings
from hdrgen_server.systems.lumivid.config import CONFIGS
from nuke_hdrgen.wire.errors import BadInput

sys.path.append(str(Path(__file__).parents[1] / "systems"))
from lumivid_cases import write_pack

pytestmark = pytest.mark.usefixtures("sidecar_ends")
COUNT, LONG = 14, 44
MIDDLE = 1016
"""By this frame windows are settled: a retry begins at a later one than the first."""
WINDOWS = ("--pack", "lumivid-tiny", "--set", "window=9", "--set", "overlap=4", "--json")


def pan(folder: Path, count: int = COUNT, width: int = 48) -> None:
    wide = np.random.default_rng(3).integers(30, 220, (32, width + count, 3), dtype=np.uint8)
    wide[4:20, 10:40] = 255
    for index in range(count):
        Image.fromarray(wide[:, index : index + width]).save(folder / f"in.{1001 + index}.png")


def results(folder: Path) -> dict[int, np.ndarray]:
    return {int(path.suffixes[0][1:]): read_exr_frame(path).pixels for path in sorted(folder.glob("out.*.exr"))}


def underway(alone: Path, folder: str, *arguments: str) -> subprocess.Popen[str]:
    """The command in a process of its own, over the long shot into `folder`, as soon as the middle frame is there."""
    (alone / folder).mkdir()
    command = [str(Path(sys.executable).parent / "hdrgen"), "sdr2hdr", "in.####.png", "-o", f"{folder}/out.####.exr"]
    process = subprocess.Popen([*command, *WINDOWS, *arguments], cwd=alone, stdout=subprocess.PIPE, text=True)
    awaited, deadline = alone / folder / f"out.{MIDDLE}.exr", time.monotonic() + 200
    while not awaited.is_file() and process.poll() is None and time.monotonic() < deadline:
        threading.Event().wait(0.005)
    return process


def the_sidecar() -> int:
    endpoint = Path(os.environ["XDG_RUNTIME_DIR"]) / "hdrgen" / "endpoint.json"
    return json.loads(endpoint.read_text(encoding="utf-8"))["pid"]


def same(folder: Path, other: Path) -> None:
    """Every result has the same pixels and the same key."""
    found, wanted = results(folder), results(other)
    assert found.keys() == wanted.keys()
    for number, pixels in wanted.items():
        np.testing.assert_array_equal(found[number], pixels)
        assert len({read_exr_header(f / f"out.{number}.exr")["hdrgen/key"] for f in (folder, other)}) == 1


@pytest.fixture
def pack(hdrgen: Run, alone: Path) -> None:
    folder = write_pack(alone / "weights", CONFIGS["s"])
    manifest = folder / "pack.toml"
    manifest.write_text(manifest.read_text().replace('config = "tiny"', 'config = "s"'))
    assert hdrgen("packs", "add", folder)[0] == 0


@pytest.mark.usefixtures("pack")
def test_a_shot_resumes_at_the_last_finished_window_with_the_same_result(hdrgen: Run, alone: Path) -> None:
    pan(alone)
    (alone / "whole").mkdir()
    status, out, err = hdrgen("sdr2hdr", "in.####.png", "-o", "whole/out.####.exr", *WINDOWS)
    assert status == 0, err
    report = json.loads(out)
    assert [frame["frame"] for frame in report["results"]] == list(range(1001, 1001 + COUNT))
    whole = results(alone / "whole")
    assert all(np.isfinite(pixels).all() for pixels in whole.values())
    assert len({frame["key"] for frame in report["results"]}) == COUNT
    (alone / "again").mkdir()
    for number in range(1001, 1008):  # as after a kill: finished files are whole, others are not there
        shutil.copy(alone / "whole" / f"out.{number}.exr", alone / "again")
    status, out, err = hdrgen("sdr2hdr", "in.####.png", "-o", "again/out.####.exr", *WINDOWS, "--resume")
    assert status == 0, err
    assert json.loads(out)["kept"] == 7
    same(alone / "again", alone / "whole")
    changed = alone / "in.1012.png"
    Image.fromarray(255 - np.asarray(Image.open(changed))).save(changed)
    status, out, err = hdrgen("sdr2hdr", "in.####.png", "-o", "again/out.####.exr", *WINDOWS, "--resume")
    assert status == 0, err
    done = [frame["frame"] for frame in json.loads(out)["results"]]
    assert done == list(range(1006, 1015))  # every frame of a window that frame 1012 lies in


@pytest.fixture
def whole(hdrgen: Run, alone: Path, pack: None) -> Path:
    """The long shot's results without any interruption; a warm sidecar is left."""
    pan(alone, LONG)
    (alone / "whole").mkdir()
    status, _, err = hdrgen("sdr2hdr", "in.####.png", "-o", "whole/out.####.exr", *WINDOWS)
    assert status == 0, err
    return alone / "whole"


def test_a_command_killed_in_mid_shot_resumes_with_the_same_result(hdrgen: Run, alone: Path, whole: Path) -> None:
    killed = underway(alone, "killed", "--resume")
    killed.kill()
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    done = {path: path.stat().st_mtime_ns for path in sorted((alone / "killed").glob("out.*.exr"))}
    assert [path.name for path in done] == [f"out.{1001 + index}.exr" for index in range(len(done))]
    assert MIDDLE - 1000 <= len(done) < LONG
    status, out, err = hdrgen("sdr2hdr", "in.####.png", "-o", "killed/out.####.exr", *WINDOWS, "--resume")
    assert status == 0, err
    assert json.loads(out)["kept"] == len(done)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    same(alone / "killed", whole)


def test_a_worker_killed_in_mid_shot_costs_a_retry_and_no_pixel(hdrgen: Run, alone: Path, whole: Path) -> None:
    sidecar = the_sidecar()
    with open(f"/proc/{sidecar}/task/{sidecar}/children") as stream:
        worker = int(stream.read().split()[-1])
    process = underway(alone, "retried")
    os.kill(worker, signal.SIGKILL)
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    report = json.loads(out)
    assert [frame["frame"] for frame in report["results"]] == list(range(1001, 1001 + LONG))
    counters = json.loads(hdrgen("status", "--json")[1])["counters"]
    assert (counters["worker_losses"], counters["retries"]) == (1, 1)
    assert the_sidecar() == sidecar
    same(alone / "retried", whole)


@pytest.mark.usefixtures("pack")
def test_part_of_a_shot_is_what_all_of_it_has_there(hdrgen: Run, alone: Path) -> None:
    pan(alone)
    for name in ("whole", "part"):
        (alone / name).mkdir()
    assert hdrgen("sdr2hdr", "in.####.png", "-o", "whole/out.####.exr", *WINDOWS)[0] == 0
    whole = results(alone / "whole")
    part = ("sdr2hdr", "in.####.png", "-o", "part/out.####.exr", *WINDOWS, "--preview", "part/sheet.####.png")
    status, out, err = hdrgen(*part, "--frames", "1007-1009")
    assert status == 0, err
    assert [frame["frame"] for frame in json.loads(out)["results"]] == [1007, 1008, 1009]
    names = {f"{kind}.{n}.{suffix}" for n in (1007, 1008, 1009) for kind, suffix in (("out", "exr"), ("sheet", "png"))}
    assert {path.name for path in (alone / "part").iterdir()} == names
    status, out, err = hdrgen(*part, "--frames", "1009-1012", "--resume")
    assert status == 0, err
    record = json.loads(out)
    assert ([frame["frame"] for frame in record["results"]], record["kept"]) == ([1010, 1011, 1012], 1)
    assert hdrgen("sdr2hdr", "in.####.png", "-o", "part/out.1014.exr", *WINDOWS, "--frames", "1014")[0] == 0
    found = results(alone / "part")
    assert list(found) == [1007, 1008, 1009, 1010, 1011, 1012, 1014]
    for number, pixels in found.items():
        np.testing.assert_array_equal(pixels, whole[number])
        keys = (read_exr_header(alone / f / f"out.{number}.exr")["hdrgen/key"] for f in ("whole", "part"))
        assert len(set(keys)) == 1
    status, _, err = hdrgen(*part, "--frames", "1007-1015")
    assert status == 2
    assert "in.####.png has no frame 1015; it has 1001 to 1014" in err


@pytest.mark.usefixtures("pack")
def test_a_still_and_shots_that_are_none(hdrgen: Run, alone: Path) -> None:
    pan(alone, 3)
    status, _, err = hdrgen("sdr2hdr", "in.1001.png", "-o", "still.exr", *WINDOWS)
    assert status == 0, err
    assert read_exr_frame(alone / "still.exr").pixels.shape == (32, 48, 3)
    Image.new("RGB", (24, 16)).save(alone / "in.1004.png")
    status, _, err = hdrgen("sdr2hdr", "in.####.png", "-o", "out.####.exr", *WINDOWS)
    assert status == 2
    assert "24x16" in err
    (alone / "in.1002.png").unlink()
    status, _, err = hdrgen("sdr2hdr", "in.####.png", "-o", "out.####.exr", *WINDOWS)
    assert status == 2
    assert "frame 1002 is missing (1 in all)" in err


@pytest.mark.usefixtures("pack")
def test_a_final_shot_takes_lumivid_by_itself_a_still_does_not(hdrgen: Run, alone: Path) -> None:
    pan(alone, 2)
    chosen: dict[str, str] = {}
    cases = (("in.####.png", "final", ()), ("in.####.png", "draft", ()), ("in.1001.png", "final", ("--steps", "1")))
    for source, quality, more in cases:
        call = ("sdr2hdr", source, "-o", "out.####.exr", "--quality", quality, *more, "--json")
        status, out, err = hdrgen(*call)
        assert status == 0, err
        chosen[f"{source} {quality}"] = json.loads(out)["pack"]
    one = hdrgen("sdr2hdr", "in.####.png", "-o", "one.exr", "--quality", "final", "--frames", "1002", "--json")
    registry = load_registry(load_settings())
    shots = registry.default_for("sdr2hdr", "final", shot=True)
    assert shots.system == "lumivid"
    assert list(chosen.values()) == [shots.name, "bt2446", registry.default_for("sdr2hdr", "final").name]
    assert json.loads(one[1])["pack"] == shots.name


def test_a_shot_of_windows_is_told_its_start_and_rate():
    descriptor = load_descriptor("lumivid")
    assert shot_parameters(descriptor, {}, (7, 8, 9)) == {"shot_start": 7}
    assert shot_parameters(descriptor, {"fps": 50.0}, (7, 8), None) == {"shot_start": 7, "fps": 50.0}
    found = shot_parameters(descriptor, {}, (1, 2), Fraction(24000, 1001))
    assert found["fps"] == pytest.approx(23.976, abs=1e-3)
    descriptor.resolve(found)
    with pytest.raises(BadInput, match="frame 8 is missing"):
        shot_parameters(descriptor, {}, (7, 9))
