"""Bad input: one line that says what and what to do, its exit status, no partial file, no traceback, no server."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cli_user import Run, photograph

from hdrgen_server.contracts.frame import Colourspace, Frame
from hdrgen_server.image.exr import write_exr

LINEAR = Colourspace("lin_rec709_scene", "lin_rec709_scene")


def check(result: tuple[int, str, str], status: int, *words: str) -> None:
    """One line on stderr, nothing on stdout, the words in it."""
    code, out, err = result
    assert code == status, err
    assert out == ""
    assert err.startswith("hdrgen: ")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    for word in words:
        assert word in err, err


def untouched(folder: Path) -> None:
    """No result, no partial file and no sidecar."""
    assert not list(folder.glob("*.exr"))
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert not list(Path(os.environ["XDG_RUNTIME_DIR"]).iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.png"], ("2 to 7", "got 1")),
        (["a.png"] * 8, ("2 to 7", "got 8")),
        (["a.png", "nothing.png"], ("nothing.png", "does not exist")),
        (["a.png", "b.png", "--ev=-2,0,2"], ("3 values for 2 inputs",)),
        (["a.png", "b.png", "--ev=one,two"], ("no list of numbers",)),
        (["a.png", "b.png", "--ev=0,nan"], ("stops",)),
        (["a.png", "b.png", "--ev=0,400"], ("30 stops",)),
        (["a.png", "b.png", "c.png", "--ev=0,2,0"], ("inputs 0 and 2", "same exposure")),
        (["a.png", "b.png"], ("does not state", "--ev")),
        (["a.png", "b.png", "--ev=0,2", "--reference", "2"], ("--reference 2", "counts from 0")),
        (["a.png", "b.png", "--ev=0,2", "--reference", "-1"], ("--reference -1",)),
        (["a.png", "b.png", "--ev=0,2", "--colourspace", "ACEScgg"], ("ACEScgg", "ACEScg")),
        (["a.png", "b.png", "--ev=0,2", "--colourspace", "ARRI LogC4"], ("scene-linear",)),
        (["a.png", "b.png", "--ev=0,2", "--input-colourspace", "sRGBB"], ("sRGBB",)),
        (["a.png", "b.png", "--ev=0,2", "--config", "nothing.ocio"], ("nothing.ocio",)),
        (["a.png", "b.png", "--ev=0,2", "--pack", "nothing"], ("nothing", "merge")),
        (["a.png", "b.png", "--ev=0,2", "--pack", "echo"], ("echo", "hdrfuse")),
        (["a.png", "b.png", "--ev=0,2", "--quality", "best"], ("draft or final", "best")),
        (["a.png", "b.png", "--ev=0,2", "--set", "strength"], ("PARAMETER=VALUE",)),
        (["a.png", "b.png", "--ev=0,2", "--pack", "merge", "--set", "strength=1"], ("strength", "merge")),
        (["a.png", "b.png", "--ev=0,2", "--pack", "merge", "--steps", "4"], ("steps",)),
        (["a.png", "b.png", "--ev=0,2", "--set", "reference=1"], ("--reference",)),
        (["in.####.png", "b.png", "--ev=0,2"], ("sequence",)),
        (["in.####.png", "x.####.png", "--ev=0,2"], ("in.####.png",)),
        (["a.png", "b.png", "--ew=0,2"], ("--ew",)),
    ],
)
def test_wrong_options(hdrgen: Run, bracket: list[Path], alone: Path, arguments: list[str], words: tuple[str]) -> None:
    check(hdrgen("hdrfuse", *arguments, "-o", "out.exr"), 2, *words)
    untouched(alone)


def _truncated(path: Path) -> None:
    path.write_bytes(photograph(path, 0.5).read_bytes()[:60])


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.write_bytes(b""), ("empty",)),
        (lambda path: path.write_bytes(b"hello, this is text"), ("b.png",)),
        (_truncated, ("b.png",)),
        (_folder, ("folder",)),
        (lambda path: photograph(path, 0.5, (24, 32)), ("24x32", "32x24")),
    ],
)
def test_unusable_files(
    hdrgen: Run, bracket: list[Path], alone: Path, spoil: Callable[[Path], object], words: tuple[str]
) -> None:
    spoil(alone / "b.png")
    check(hdrgen("hdrfuse", *bracket, "--ev=-2,0,2", "-o", "out.exr"), 2, "b.png", *words)
    untouched(alone)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_exr_with_nan_or_inf(hdrgen: Run, alone: Path, bad: float) -> None:
    for name in ("a", "b"):
        pixels = np.full((8, 8, 3), 0.5, np.float32)
        pixels[2, 3, 1] = bad if name == "b" else 0.5
        write_exr(Frame(pixels, ("R", "G", "B"), LINEAR), alone / f"{name}.exr", half=False)
    result = hdrgen("hdrfuse", "a.exr", "b.exr", "--ev=0,2", "-o", "out/x.exr")
    check(result, 2, "out")
    (alone / "out").mkdir()
    check(hdrgen("hdrfuse", "a.exr", "b.exr", "--ev=0,2", "-o", "out/x.exr"), 2, "b.exr", "HDRGEN_NAN_POLICY")
    untouched(alone / "out")


@pytest.mark.parametrize(
    ("output", "words"),
    [("no/such/out.exr", ("no/such", "make it first")), ("out.jpg", (".exr",)), ("folder.exr", ("is a folder",))],
)
def test_outputs_that_cannot_be(hdrgen: Run, bracket: list[Path], alone: Path, output: str, words: tuple[str]) -> None:
    (alone / "folder.exr").mkdir()
    check(hdrgen("hdrfuse", *bracket, "--ev=-2,0,2", "-o", output), 2, *words)


def test_a_bad_config_in_the_environment(hdrgen: Run, bracket: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCIO", "/nowhere/config.ocio")
    check(hdrgen("hdrfuse", *bracket, "--ev=-2,0,2", "-o", "out.exr"), 2, "/nowhere/config.ocio")


def test_a_named_server_that_is_not_there(hdrgen: Run, bracket: list[Path], alone: Path) -> None:
    address = f"unix:{alone}/sock"
    check(hdrgen("hdrfuse", *bracket, "--ev=-2,0,2", "-o", "out.exr", "--server", address), 5, "hdrgen serve")
    assert not (alone / "out.exr").exists()
    check(hdrgen("hdrfuse", *bracket, "--ev=-2,0,2", "-o", "out.exr", "--server", "elsewhere:80"), 2, "ssh -L")


def test_a_foreign_runtime_folder(hdrgen: Run, bracket: list[Path], alone: Path) -> None:
    folder = Path(os.environ["XDG_RUNTIME_DIR"]) / "hdrgen"
    folder.mkdir(mode=0o700)
    folder.chmod(0o777)
    check(hdrgen("hdrfuse", *bracket, "--ev=-2,0,2", "-o", "out.exr"), 4, str(folder))
    assert not (alone / "out.exr").exists()


def test_json_says_the_failure_too(hdrgen: Run, bracket: list[Path]) -> None:
    status, out, err = hdrgen("hdrfuse", bracket[0], "-o", "out.exr", "--json")
    assert status == 2
    assert json.loads(out)["error"]["code"] == "bad_input"
    assert err.count("\n") == 1


def test_verbose_adds_the_traceback(hdrgen: Run, bracket: list[Path]) -> None:
    status, _, err = hdrgen("hdrfuse", bracket[0], "-o", "out.exr", "-v")
    assert status == 2
    assert "Traceback" in err


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["preview", "nothing.exr", "-o", "x.png"], 2, ("nothing.exr",)),
        (["preview", "a.png", "-o", "x.png"], 2, ("scene-linear",)),
        (["preview", "a.png", "-o", "x.png", "--stops", "far"], 2, ("--stops",)),
        (["packs", "show", "nothing"], 2, ("nothing",)),
        (["packs", "add", "nothing"], 2, ("pack.toml",)),
        (["packs", "accept", "nothing"], 2, ("nothing",)),
        (["packs", "verify", "nothing"], 2, ("nothing",)),
        (["evaluate", "merge"], 2, ("--data",)),
        (["train", "gmodiff", "--stage", "all"], 2, ("regressor",)),
        (["train", "gmodiff", "--data", "."], 2, ("panoramas",)),
        (["train", "gmodiff", "--data", "nothing"], 2, ("nothing",)),
        (["train", "autoencoder", "--size", "xl"], 2, ("autoencoder-s",)),
        (["train", "autoencoder", "--data", "nothing"], 2, ("nothing",)),
        (["train", "autoencoder", "--data", ".", "--export", "vae"], 2, ("train first",)),
        (["status"], 5, ("hdrgen serve",)),
        (["bench", "nothing"], 2, ("nothing",)),
        (["serve", "--device", "cpu", "--idle-exit", "-1"], 2, ("idle_exit_s",)),
        (["nothing"], 2, ("nothing",)),
        (["demo", "--examples", "nothing"], 2, ("--examples",)),
    ],
)
def test_other_commands(hdrgen: Run, bracket: list[Path], arguments: list[str], status: int, words: tuple[str]) -> None:
    check(hdrgen(*arguments), status, *words)


def test_a_bad_setting_is_named(hdrgen: Run, bracket: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDRGEN_NAN_POLICY", "maybe")
    check(hdrgen("hdrfuse", *bracket, "--ev=-2,0,2", "-o", "out.exr"), 2, "HDRGEN_NAN_POLICY", "maybe")
