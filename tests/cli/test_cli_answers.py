"""What the commands answer when nothing is wrong, and that `--help` imports nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_user import Run

from hdrgen_server.cli import console, findings, hdrfuse, nuke_path
from hdrgen_server.contracts.frame import Colourspace, Frame
from hdrgen_server.image.exr import write_exr
from hdrgen_server.settings import Settings, load_settings

COMMANDS = [
    "hdrfuse", "sdr2hdr", "txt2hdr", "serve", "status", "doctor", "preview", "evaluate", "bench", "config", "nuke-path",
    "demo", "submit",
    "train gmodiff", "train autoencoder", "train qwenlog", "train qwenlinear",
    "packs list", "packs show", "packs add", "packs verify", "packs accept",
    "cache list", "cache prune",
]  # fmt: skip


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_says_what_a_command_does(hdrgen: Run, command: str) -> None:
    status, out, err = hdrgen(*command.split(), "--help")
    assert status == 0
    assert "Usage: hdrgen" in out
    assert err == ""


def test_help_imports_no_torch() -> None:
    code = (
        "import sys\nfrom hdrgen_server.cli.main import run\nrun(['hdrfuse', '--help'])\nrun(['sdr2hdr', '--help'])\n"
        "heavy = {'torch', 'OpenEXR', 'PyOpenColorIO', 'OpenImageIO', 'scipy', 'cv2', 'PIL', 'av'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_console_script_answers() -> None:
    script = Path(sys.executable).with_name("hdrgen")
    result = subprocess.run([script, "--version"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.split()[0]) == (0, "hdrgen")


def test_config_shows_value_and_origin(hdrgen: Run, alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDRGEN_THREADS", "3")
    (alone / "hdrgen.toml").write_text('device = "cpu"\n', encoding="utf-8")
    options = json.loads(hdrgen("config", "--json")[1])["options"]
    assert set(options) == set(Settings.__struct_fields__)
    assert (options["threads"]["value"], options["threads"]["from"]) == (3, "HDRGEN_THREADS")
    assert (options["device"]["value"], options["device"]["from"]) == ("cpu", str(alone / "hdrgen.toml"))
    status, out, _ = hdrgen("config", "--describe")
    assert status == 0
    assert options["threads"]["description"] in out


def test_packs_from_add_to_accept(hdrgen: Run, alone: Path) -> None:
    folder = alone / "toy"
    folder.mkdir()
    text = 'format = 1\nname = "toy"\nsystem = "merge"\nlicence = "Example-NC"\nmust_accept = true\n'
    (folder / "pack.toml").write_text(text, encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"weights")
    assert hdrgen("packs", "add", folder)[0] == 0
    assert "(not accepted)" in hdrgen("packs", "list")[1]
    refused = ("hdrfuse", "a.png", "b.png", "--ev=0,2", "-o", "o.exr", "--pack", "toy")
    for name in ("a.png", "b.png"):
        (alone / name).write_bytes(b"anything: the licence is looked at first")
    status, _, err = hdrgen(*refused)
    assert status == 4
    assert "hdrgen packs accept toy" in err
    assert hdrgen("packs", "accept", "toy")[0] == 0
    assert json.loads(hdrgen("packs", "show", "toy", "--json")[1])["licence_ok"] is True
    assert "reference" in hdrgen("packs", "show", "toy")[1]
    assert hdrgen("packs", "verify", "toy")[0] == 0
    (Path(load_settings().data_folder) / "packs" / "toy" / "model.safetensors").write_bytes(b"changed")
    status, _, err = hdrgen("packs", "verify")
    assert status == 2
    assert "model.safetensors" in err


def test_preview_writes_both_pictures(hdrgen: Run, alone: Path) -> None:
    pixels = np.linspace(0, 8, 48 * 32 * 3, dtype=np.float32).reshape(32, 48, 3)
    write_exr(Frame(pixels, ("R", "G", "B"), Colourspace("lin_rec709_scene", "lin_rec709_scene")), alone / "a.exr")
    assert hdrgen("preview", "a.exr", "-o", "a.png", "--stops=-2,0")[0] == 0
    status, out, _ = hdrgen("preview", "a.exr", "-o", "b.png", "--false-colour", "--json")
    assert (status, json.loads(out)["false_colour"]) == (0, True)
    assert (alone / "a.png").read_bytes() != (alone / "b.png").read_bytes()


def test_nuke_path_holds_what_nuke_runs(hdrgen: Run) -> None:
    status, out, _ = hdrgen("nuke-path")
    assert status == 0
    assert {*nuke_path.HELD} <= {path.name for path in Path(out.strip()).iterdir()}


def test_bench_exr_compares_in_one_run(hdrgen: Run) -> None:
    report = json.loads(hdrgen("bench", "exr", "--width", 64, "--height", 64, "--repeat", 1, "--json")[1])
    assert [t["what"].split()[1] for t in report["timings"]] == ["write", "write", "read", "read"]


def test_an_interrupt_is_130_and_a_defect_one_line(hdrgen: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for failure, status in ((KeyboardInterrupt(), 130), (RuntimeError("broken\nin two"), 5)):

        def fail(*_: object, failure: BaseException = failure) -> None:
            raise failure

        monkeypatch.setattr(hdrfuse.inputs, "check_count", fail)
        code, _, err = hdrgen("hdrfuse", "a.png", "b.png", "-o", "o.exr")
        assert (code, err.count("\n")) == (status, 1)


def test_lines_off_a_terminal_say_each_phase_once(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("out.exr") as update:
        for done in range(5):
            update("step", done, 5)
        update("encoding", 0, 0)
    assert capsys.readouterr().err.splitlines() == ["hdrgen: out.exr: step 0/5", "hdrgen: out.exr: encoding"]


def test_sets_take_the_descriptors_types() -> None:
    assert hdrfuse.parse_sets(["a=1", "b = x=y"]) == {"a": "1", "b": "x=y"}


@pytest.mark.parametrize(
    ("torch", "cards", "level", "words"),
    [
        ({"failure": "ImportError: no"}, (), "problem", "does not import"),
        ({"version": "2", "cuda_build": "", "cuda": False, "devices": []}, (), "ok", "no NVIDIA GPU"),
        ({"version": "2", "cuda_build": "", "cuda": False, "devices": []}, ("H200",), "problem", "CPU build"),
        ({"version": "2", "cuda_build": "13", "cuda": False, "devices": []}, ("H200",), "problem", "finds no device"),
        ({"version": "2", "cuda_build": "13", "cuda": True, "devices": ["H200"]}, ("H200",), "ok", "sees H200"),
    ],
)
def test_doctor_on_the_gpu(torch: dict[str, object], cards: tuple[str, ...], level: str, words: str) -> None:
    found = findings.gpu(load_settings(), torch, cards)[0]
    assert found.level == level
    assert words in found.what
    assert found.do or level == "ok"


def test_doctor_on_an_unused_gpu_by_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDRGEN_DEVICE", "cpu")
    torch = {"version": "2", "cuda_build": "13", "cuda": True, "devices": ["H200"]}
    found = findings.gpu(load_settings(), torch, ("H200",))[0]
    assert found.level == "warning"
    assert "HDRGEN_DEVICE" in found.what


def test_doctor_puts_what_is_wrong_first(hdrgen: Run, alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "probe_torch", lambda: {"failure": "none here"})
    monkeypatch.setenv("OCIO", "/nowhere.ocio")
    monkeypatch.setenv("HDRGEN_DEVISE", "cpu")
    monkeypatch.setenv("HDRGEN_CACHE_ROOT", "/read/inside/nuke")
    status, out, _ = hdrgen("doctor", "--json")
    report = json.loads(out)
    assert status == 2
    assert report["ok"] is False
    assert [f["topic"] for f in report["findings"][:2]] == ["torch", "ocio"]
    assert not any("HDRGEN_CACHE_ROOT" in f["what"] for f in report["findings"])
    assert any("HDRGEN_DEVISE" in f["what"] and f["level"] == "warning" for f in report["findings"])
    assert all(f["do"] for f in report["findings"] if f["level"] == "problem")


def test_doctor_on_the_runtime_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    assert findings.runtime_folder(folder) == []
    folder.chmod(0o755)
    assert findings.runtime_folder(folder)[0].level == "warning"
    folder.rmdir()
    folder.write_bytes(b"")
    assert "no folder" in findings.runtime_folder(folder)[0].what
