"""A farm job from end to end: openjd-cli runs the bundle against the fake Nuke with a real sidecar behind it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hdrgen_server.cli.main import run
from hdrgen_server.contracts.frame import Colourspace, Frame
from hdrgen_server.image.exr import read_exr_frame, write_exr

ROOT = Path(__file__).resolve().parents[2]
NUKE = ROOT / "tests" / "fakes" / "bin" / "nuke"
OPENJD = Path(sys.executable).with_name("openjd")
LINEAR = Colourspace("lin_rec709_scene", "lin_rec709_scene")
FRAMES = (1, 2)
EVS = {1: -2.0, 2: 0.0, 3: 2.0}


@pytest.fixture
def shot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host of a farm with its own user, and a saved script of a bracket, one frame of which is baked."""
    for name in ("HDRGEN_SERVER", "HDRGEN_SIDECAR", "NUKE_PATH", "OCIO"):
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        (tmp_path / name).mkdir(mode=0o700)
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("FAKE_NUKE_PYTHON", sys.executable)
    monkeypatch.setenv("HDRGEN_DEVICE", "cpu")
    assert run(["doctor", "--install"]) == 0
    folder = tmp_path / "shot"
    folder.mkdir()
    plates(folder)
    (folder / "new.nk").write_text(script(folder), encoding="utf-8")
    monkeypatch.setenv("NUKE_PATH", str(ROOT))
    arguments = ["-t", ROOT / "bake.py", folder / "new.nk", "--range=1", f"--save-as={folder / 'comp.nk'}"]
    baked = subprocess.run([NUKE, *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert baked.returncode == 0, baked.stdout + baked.stderr
    monkeypatch.delenv("NUKE_PATH")
    return folder


def plates(folder: Path) -> None:
    ramp = np.linspace(0.01, 2, 24 * 32 * 3, dtype=np.float32).reshape(24, 32, 3)
    for number, ev in EVS.items():
        for frame in FRAMES:
            exposed = np.minimum(ramp * np.float32(2**ev * (1 + 0.1 * frame)), 1)
            write_exr(Frame(exposed, ("R", "G", "B"), LINEAR), folder / f"in{number}.{frame:04d}.exr")


def script(folder: Path) -> str:
    reads = [
        f"Read {{\n inputs 0\n file_type exr\n file {folder}/in{number}.####.exr\n first 1\n last 2\n raw true\n"
        f" name Read{number}\n}}\n"
        for number in (3, 2, 1)
    ]
    return (
        'Root {\n inputs 0\n first_frame 1\n last_frame 2\n format "32 24 0 0 32 24 1 tiny"\n}\n'
        + "".join(reads)
        + "HDRFuse {\n inputs 3\n still false\n pack merge\n seed 5\n colourspace lin_rec709_scene\n"
        + f" cache_root {folder}/hdrgen_cache\n bake_id ab12cd\n name HDRFuse1\n}}\n"
        + f'Write {{\n file {folder}/final.####.exr\n file_type exr\n datatype "32 bit float"\n raw true\n'
        + " name Write1\n}\n"
    )


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, object]:
    capsys.readouterr()
    assert run([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_farm_bakes_what_is_missing_and_renders_it(capsys: pytest.CaptureFixture[str], shot: Path) -> None:
    (first,) = (shot / "hdrgen_cache").glob("*/*/out.0001.exr")
    before = first.stat()
    job = ["--node", "HDRFuse1", "--range", "1-2", "--write", "Write1", "--nuke", NUKE, "-o", shot / "job"]
    told = answer(capsys, "submit", shot / "comp.nk", *job)
    command = [OPENJD, "run", told["template"], "--step", "comp", "--run-dependencies", "-p"]
    ran = subprocess.run(
        [*map(str, command), json.dumps(told["parameters"])], capture_output=True, text=True, check=False, timeout=200
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "openjd_progress: 100.0" in ran.stdout
    (bake,) = answer(capsys, "cache", "list", shot / "hdrgen_cache", "--scripts", shot)["bakes"]  # type: ignore[misc]
    assert (bake["frames"], bake["operation"], bake["pack"]) == ("1-2", "hdrfuse", "merge")
    assert bake["scripts"] == [str(shot / "comp.nk")]
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns), "not baked again"
    for frame in FRAMES:
        final = read_exr_frame(shot / f"final.{frame:04d}.exr")
        result = read_exr_frame(first.with_name(f"out.{frame:04d}.exr"))
        np.testing.assert_array_equal(final.rgb, result.rgb)
        assert final.rgb.max() > 1.5, "what the reference clips at 1.0 came back"
    assert not list(Path(os.environ["XDG_RUNTIME_DIR"]).rglob("*.json")), "no sidecar stays"
