"""The farm: `nuke -t bake.py` and `nuke -x` as processes of the fake Nuke, with a sidecar of the task's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import OpenEXR
import pytest

from tests.fakes.nuke.api import FakeNuke
from tests.host.conftest import EVS, FIRST, LAST, MAKERS, ROOT, exposed, files, press, results, rgba_of, save

# With NUKE_EXECUTABLE the same scripts and command lines run in a real Nuke.
NUKE = os.environ.get("NUKE_EXECUTABLE") or str(ROOT / "tests" / "fakes" / "bin" / "nuke")
FRAMES = range(FIRST, LAST + 1)


def write_plates(folder: Path) -> None:
    """A sequence of each exposure on disk."""
    folder.mkdir()
    for number, stops in enumerate(EVS):
        for frame in FRAMES:
            header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
            path = folder / f"ev{number}.{frame}.exr"
            OpenEXR.File(header, {"RGBA": exposed(stops, frame)}).write(str(path))


def read(nuke: FakeNuke, folder: Path, number: int):
    """A Read of such a sequence."""
    node = nuke.createNode("Read", inpanel=False)
    for name, value in (("file", f"{folder}/ev{number}.####.exr"), ("first", FIRST), ("last", LAST), ("raw", True)):
        node[name].setValue(value)
    node.setSelected(False)
    return node


def shot(nuke: FakeNuke, folder: Path) -> Path:
    """A script with each gizmo over plates on disk, each with a Write of its own, saved by a GUI that baked nothing."""
    write_plates(folder / "plates")
    for name, make in MAKERS.items():
        node = make(nuke)
        node["still"].setValue(False)
        if name != "Txt2HDR":
            for index in range(len(EVS)):
                node.setInput(index, read(nuke, folder / "plates", index if name == "HDRFuse" else 1))
        for other in nuke.allNodes():
            other.setSelected(other is node)
        write = nuke.createNode("Write", inpanel=False)
        write.setInput(0, node)
        for knob, value in (
            ("file", f"{folder}/comp/{name}.####.exr"), ("file_type", "exr"), ("channels", "all"),
            ("datatype", "32 bit float"), ("metadata", "all metadata"), ("create_directories", True), ("raw", True),
        ):  # fmt: skip
            write[knob].setValue(value)
        write.setName(f"Write{name}")
        for other in nuke.allNodes():
            other.setSelected(False)
    return save(nuke, folder)


@pytest.fixture
def environment(surroundings: Path) -> dict[str, str]:
    """What a farm host sets."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HDRGEN", "COV"))}
    return {
        **kept,
        "NUKE_PATH": str(ROOT),
        "HDRGEN_SIDECAR": f"{sys.executable} -m hdrgen_server.gateway --device cpu",
        "HDRGEN_DATA_FOLDER": str(surroundings / "home"),
        "FAKE_NUKE_PYTHON": sys.executable,
    }


@pytest.fixture
def farm(environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a Nuke to its end."""

    def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [NUKE, *arguments], env={**environment, **changes}, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip

    return run


def test_ten_frames_baked_in_a_terminal_render_anywhere_as_they_do_in_a_gui(
    start_nuke, farm, sidecar: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nuke = start_nuke(gui=True)
    script = shot(nuke, tmp_path)
    baked = farm("-t", "bake.py", str(script), "--range=1001-1010")
    assert baked.returncode == 0, baked.stderr
    assert "Error" not in baked.stdout + baked.stderr
    assert "HDRGEN frame 1010 baked (10/10)" in baked.stdout
    kept = files(tmp_path / "hdrgen_cache")
    assert sorted(Path(name).name for name in kept) == sorted([f"out.{frame}.exr" for frame in FRAMES] * 3)

    rendered = farm("-x", "-F", "1001-1010", str(script), NUKE_PATH=str(ROOT / "gizmos"), HDRGEN_SIDECAR="false")
    assert rendered.returncode == 0, rendered.stderr
    again = farm("-t", "bake.py", str(script), "--range=1001-1010")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("nothing to bake") == 3
    assert files(tmp_path / "hdrgen_cache") == kept

    monkeypatch.setenv("HDRGEN_SERVER", sidecar)
    nuke = start_nuke(gui=True)
    nuke.scriptOpen(str(script))
    for name in MAKERS:
        node = nuke.toNode(f"{name}1")
        press(nuke, node, "bake_range")
        assert nuke.messages == []
        assert node["status"].value().startswith("nothing to bake")
        for frame in FRAMES:
            with OpenEXR.File(str(tmp_path / "comp" / f"{name}.{frame}.exr")) as file:
                comp = np.array(file.channels()["RGBA" if "RGBA" in file.channels() else "RGB"].pixels)[..., :3]
                header = dict(file.header())
            np.testing.assert_array_equal(comp, rgba_of(nuke, node, frame)[..., :3])
            assert any(key.endswith("hdrgen/key") for key in header), (name, frame, sorted(header))
    assert files(tmp_path / "hdrgen_cache") == kept
    for name in MAKERS:
        node = nuke.toNode(f"{name}1")
        farm_made = [rgba_of(nuke, node, frame) for frame in FRAMES]
        node["cache_root"].setValue(f"{tmp_path}/gui")
        press(nuke, node, "bake_range")
        assert node["status"].value().startswith("10 frames baked in ")
        for frame, pixels in zip(FRAMES, farm_made, strict=True):
            np.testing.assert_array_equal(rgba_of(nuke, node, frame), pixels)
    for data in kept.values():
        for said in (b"colorInteropID", b"chromaticities", b"hdrgen/pack_digest", b"hdrgen/seed", b"hdrgen/operation"):
            assert said in data


def test_a_render_without_its_bake_says_what_to_run(start_nuke, farm, tmp_path: Path) -> None:
    script = shot(start_nuke(gui=True), tmp_path)
    rendered = farm("-x", "-X", "WriteSDR2HDR", "-F", "1001-1003", str(script), HDRGEN_LAG_S="0")
    assert rendered.returncode == 1
    run = f"nuke -t {ROOT}/bake.py {script} --node=SDR2HDR1 --range=1001-1010"
    assert f"SDR2HDR1 has no bake of frames 1001-1010. Run: {run}" in rendered.stderr
    bare = farm("-x", "-X", "WriteSDR2HDR", "-F", "1001", str(script), NUKE_PATH=str(ROOT / "gizmos"))
    assert bare.returncode == 1
    assert "No such file" in bare.stderr
    assert not (tmp_path / "comp").exists() or results(tmp_path / "comp") == []


def test_then_render_and_save_as(start_nuke, farm, tmp_path: Path) -> None:
    script = shot(start_nuke(gui=True), tmp_path)
    done = farm(
        "-t", "bake.py", str(script), "--node=SDR2HDR1", "--range=1001-1002", "--then-render=WriteSDR2HDR",
        f"--save-as={tmp_path}/shot_v002.nk",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "comp") == ["SDR2HDR.1001.exr", "SDR2HDR.1002.exr"]
    assert (tmp_path / "shot_v002.nk").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["gone.nk"], 2, "gone.nk cannot be opened"),
        (["SCRIPT", "--node=Blur1"], 2, "named Blur1; it has: HDRFuse1, SDR2HDR1, Txt2HDR1"),
        (["SCRIPT", "--range=ten"], 2, "'ten' is no frame range"),
        (["SCRIPT", "--frames=1"], 2, "unrecognized arguments: --frames=1"),
        ([], 2, "the following arguments are required: script"),
    ],
)
def test_bad_command_lines(start_nuke, farm, tmp_path: Path, arguments: list[str], code: int, line: str) -> None:
    script = shot(start_nuke(gui=True), tmp_path)
    done = farm("-t", "bake.py", *[str(script) if word == "SCRIPT" else word for word in arguments])
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert line in done.stderr
    assert not (tmp_path / "hdrgen_cache").exists()


def test_a_sidecar_that_cannot_be_had_is_one_line(start_nuke, farm, tmp_path: Path) -> None:
    script = shot(start_nuke(gui=True), tmp_path)
    done = farm("-t", "bake.py", str(script), "--node=SDR2HDR1", HDRGEN_SIDECAR="")
    assert done.returncode == 5
    assert done.stderr.count("\n") == 1
    assert "hdrgen doctor --install" in done.stderr


def test_a_node_without_an_id_is_not_baked_for_nobody(start_nuke, farm, tmp_path: Path) -> None:
    nuke = start_nuke()  # a terminal makes nodes without ids
    script = shot(nuke, tmp_path)
    done = farm("-t", "bake.py", str(script), "--node=SDR2HDR1", "--range=1001")
    assert done.returncode == 2
    assert "has never had a bake id" in done.stderr
    done = farm("-t", "bake.py", str(script), "--node=SDR2HDR1", "--range=1001", f"--save-as={tmp_path}/new.nk")
    assert done.returncode == 0, done.stderr
    rendered = farm("-x", "-X", "WriteSDR2HDR", "-F", "1001", str(tmp_path / "new.nk"))
    assert rendered.returncode == 0, rendered.stderr


def test_other_pixels_under_the_same_settings_are_refused_where_nobody_would_find_them(
    start_nuke, farm, tmp_path: Path
) -> None:
    script = shot(start_nuke(gui=True), tmp_path)
    assert farm("-t", "bake.py", str(script), "--node=SDR2HDR1", "--range=1001-1002").returncode == 0
    kept = files(tmp_path / "hdrgen_cache")
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {"RGBA": exposed(-1.0)}).write(str(tmp_path / "plates" / "ev1.1002.exr"))
    refused = farm("-t", "bake.py", str(script), "--node=SDR2HDR1", "--range=1001-1002")
    assert refused.returncode == 2
    assert "was baked from other pixels" in refused.stderr
    assert files(tmp_path / "hdrgen_cache") == kept
    done = farm("-t", "bake.py", str(script), "--node=SDR2HDR1", "--range=1001-1002", f"--save-as={tmp_path}/v2.nk")
    assert done.returncode == 0, done.stderr
    assert "1 frame baked" in done.stdout
    now = files(tmp_path / "hdrgen_cache")
    assert {name: now[name] for name in kept} == kept
    assert len(now) == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_farms_signal_cancels_and_keeps_what_is_done(start_nuke, environment, tmp_path: Path, number: int) -> None:
    script = shot(start_nuke(gui=True), tmp_path)
    process = subprocess.Popen(
        [
            "/bin/sh", "-c", 'trap "" INT; exec "$0" "$@"',  # as a shell starts what it puts into the background
            NUKE, "-t", "bake.py", str(script), "--node=HDRFuse1", "--range=1001-1400"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "baked" in line:
            break
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "HDRGEN Error: the bake of HDRFuse1 was cancelled; finished frames are kept" in said
    kept = results(tmp_path / "hdrgen_cache")
    assert 1 <= len(kept) < 400
    assert all(name.startswith("out.1") for name in kept)


def test_a_killed_bake_leaves_whole_results_and_the_next_one_goes_on(start_nuke, environment, farm, tmp_path) -> None:
    script = shot(start_nuke(gui=True), tmp_path)
    process = subprocess.Popen(
        [NUKE, "-t", "bake.py", str(script), "--node=HDRFuse1", "--range=1001-1050"],
        env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "baked (3/50)" in line:
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    cache = tmp_path / "hdrgen_cache"
    (folder,) = {path.parent for path in cache.rglob("out.*.exr")}
    (folder / ".out.1009.exr.77.abc.part").write_bytes(b"half a file")
    whole = {name: data for name, data in files(cache).items() if name.endswith(".exr")}
    assert 3 <= len(whole) < 50
    for name in whole:
        with OpenEXR.File(str(cache / name)) as file:
            assert np.isfinite(file.channels()["RGBA"].pixels).all()
    done = farm("-t", "bake.py", str(script), "--node=HDRFuse1", "--range=1001-1050")
    assert done.returncode == 0, done.stderr
    assert f", {len(whole)} frames found" in done.stdout
    now = files(cache)
    assert {name: now[name] for name in whole} == whole
    assert len([name for name in now if name.endswith(".exr")]) == 50


def test_two_hosts_bake_the_same_frames_at_once(start_nuke, environment, tmp_path) -> None:
    script = shot(start_nuke(gui=True), tmp_path)
    hosts = [
        subprocess.Popen(
            [NUKE, "-t", "bake.py", str(script), "--node=SDR2HDR1", "--range=1001-1006"],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    for host in hosts:
        _, said = host.communicate(timeout=120)
        assert host.returncode == 0, said
    assert results(tmp_path / "hdrgen_cache") == [f"out.{frame}.exr" for frame in range(1001, 1007)]


def test_quitting_in_mid_bake_does_not_hang(start_nuke, environment, sidecar, tmp_path) -> None:
    script = shot(start_nuke(gui=True), tmp_path)
    quits = tmp_path / "quits.py"
    quits.write_text(
        "import nuke, sys\n"
        f"nuke.scriptOpen({str(script)!r})\n"
        "node = nuke.toNode('HDRFuse1')\n"
        "node['range'].setValue('1001-1010')\n"
        "node['bake_range'].execute()\n"
        "nuke.run_events(lambda: len(nuke.executed) > 3)\n"
        "sys.exit(7)\n"
    )
    done = subprocess.run(
        [str(ROOT / "tests" / "fakes" / "bin" / "nuke"), "--gui", str(quits)],
        env={**environment, "HDRGEN_SERVER": sidecar},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 7, done.stderr
    assert all(name.endswith(".exr") and not name.startswith(".") for name in results(tmp_path / "hdrgen_cache"))
