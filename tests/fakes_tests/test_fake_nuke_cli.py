"""The fake's command line, as a process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.nuke.cli import arguments, frames
from tests.fakes.nuke.errors import NukeError

BIN = Path(__file__).parents[1] / "fakes" / "bin" / "nuke"


def nuke(
    *words: str, folders: tuple[Path, ...] = (), cwd: Path, python: str = sys.executable
) -> subprocess.CompletedProcess[str]:
    """Run the fake; the gizmo's hooks need a log that these processes do not have, so that it is cut off."""
    environment = {
        "NUKE_PATH": os.pathsep.join(map(str, folders)),
        "FAKE_NUKE_PYTHON": python,
        "PATH": os.environ["PATH"],
    }
    return subprocess.run(
        [str(BIN), *words], env=environment, cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def quiet(folder: Path) -> Path:
    """The plugin folder without the gizmo's hooks."""
    gizmo = folder / "Small.gizmo"
    gizmo.write_text("\n".join(line for line in gizmo.read_text().splitlines() if "fake_nuke_log" not in line))
    return folder


@pytest.fixture
def script(quiet: Path, tmp_path: Path) -> Path:
    """A script: a Constant through a Small into two Writes, and the gizmo's own Write, disabled."""
    write = 'file "{}"\n file_type exr\n datatype "32 bit float"\n compression none\n raw true'
    (tmp_path / "a.nk").write_text(
        "Root {\n first_frame 3\n last_frame 4\n format {8 6 0 0 8 6 1 small}\n}\n"
        "Constant {\n inputs 0\n color 0.5\n name C\n}\nSmall {\n inputs 1\n name S\n gain 2\n}\nset S [stack 0]\n"
        f"Write {{\n inputs 1\n {write.format(tmp_path / 'late.####.exr')}\n render_order 2\n name Late\n}}\n"
        f"push $S\nWrite {{\n inputs 1\n {write.format(tmp_path / 'early.####.exr')}\n name Early\n}}\n"
    )
    return tmp_path / "a.nk"


def test_a_script_gets_its_arguments_without_a_last_range(quiet: Path, tmp_path: Path) -> None:
    (quiet / "init.py").write_text("print('init ran')\n")
    (quiet / "menu.py").write_text("print('menu ran')\n")
    (quiet / "beside.py").write_text("WORD = 'found'\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "job.py").write_text(
        "import sys, nuke, beside\n"
        "print(sys.argv, nuke.rawArgs, nuke.GUI, beside.WORD, __name__)\n"
        "node = nuke.createNode('Small', 'gain 3')\n"
        "nuke.tprint(node.fullName())\n"
        "import nuke_hdrgen_is_not_here\n"
    )
    done = nuke("-i", "-t", "job.py", "a", "--range=1-10", "1-10", folders=(quiet,), cwd=tmp_path)
    assert done.stdout.splitlines() == [
        "init ran",
        "['job.py', 'a', '--range=1-10'] ['nuke', '-i', '-t', 'job.py', 'a', '--range=1-10', '1-10'] "
        "False found __main__",
        "Small1",
    ]
    assert (done.returncode, "nuke_hdrgen_is_not_here" in done.stderr) == (1, True)
    done = nuke("--gui", "job.py", folders=(quiet,), cwd=tmp_path)
    assert done.stdout.splitlines()[:2] == ["init ran", "menu ran"]


@pytest.mark.parametrize(
    ("line", "code"),
    [("pass", 0), ("raise SystemExit", 0), ("raise SystemExit(5)", 5), ("raise SystemExit('no')", 1), ("1/0", 1)],
)
def test_exit_codes_of_scripts(tmp_path: Path, line: str, code: int) -> None:
    (tmp_path / "job.py").write_text(line)
    assert nuke("-t", "job.py", cwd=tmp_path).returncode == code


@pytest.mark.parametrize(
    "lines",
    [
        "import nuke\ntry:\n    nuke.render()\nexcept Exception:\n    pass\n",
        "import nuke, threading\nt = threading.Thread(target=lambda: nuke.render)\nt.start()\nt.join()\n",
    ],
)
def test_what_is_not_known_cannot_be_hidden(tmp_path: Path, lines: str) -> None:
    (tmp_path / "job.py").write_text(lines)
    done = nuke("-t", "job.py", cwd=tmp_path)
    assert done.returncode == 70
    assert "does not know nuke.render" in done.stderr


def test_x_renders_every_enabled_write_in_order(script: Path, quiet: Path) -> None:
    done = nuke("-x", str(script), folders=(quiet,), cwd=script.parent)
    assert (done.returncode, done.stderr) == (0, "")
    written = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("Writing")]
    assert [Path(name).name for name in written] == [f"{n}.{f:04d}.exr" for n in ("early", "late") for f in (3, 4)]


def test_x_renders_what_is_named_at_the_frames_asked_for(script: Path, quiet: Path) -> None:
    done = nuke("-X", "Late", "-F", "7-9x2", "-V", "2", "-F", "20", str(script), folders=(quiet,), cwd=script.parent)
    assert done.returncode == 0
    assert sorted(path.name for path in script.parent.glob("*.exr")) == [f"late.00{n}.exr" for n in ("07", "09", "20")]
    done = nuke("-x", str(script), "30-30", folders=(quiet,), cwd=script.parent)
    assert {path.name for path in script.parent.glob("*30.exr")} == {"early.0030.exr", "late.0030.exr"}


def test_x_fails_with_one(script: Path, quiet: Path) -> None:
    cases = {
        "Unknown command": nuke("-x", str(script), cwd=script.parent),
        "no node 'Gone'": nuke("-X", "Gone", str(script), folders=(quiet,), cwd=script.parent),
        "is disabled": nuke("-X", "S.Out", str(script), folders=(quiet,), cwd=script.parent),
        "No such file": nuke("-x", "gone.nk", cwd=script.parent),
    }
    for why, done in cases.items():
        assert (done.returncode, why in done.stderr) == (1, True), done.stderr
    text = script.read_text().replace("early.####.exr", "no/early.####.exr")
    script.write_text(text)
    stopped = nuke("-x", str(script), folders=(quiet,), cwd=script.parent)
    assert (stopped.returncode, list(script.parent.glob("late*"))) == (1, [])
    went_on = nuke("-x", "--cont", str(script), folders=(quiet,), cwd=script.parent)
    assert (went_on.returncode, len(list(script.parent.glob("late*")))) == (1, 2)


@pytest.mark.parametrize(("text", "found"), [("5", [5]), ("1-3", [1, 2, 3]), ("1-9x4", [1, 5, 9]), ("2,4", [2, 3, 4])])
def test_frame_ranges(text: str, found: list[int]) -> None:
    assert list(frames(text)) == found


@pytest.mark.parametrize("words", [["--fast", "-t", "a.py"], ["-t"], ["a.nk"]])
def test_options_that_are_not_known(words: list[str]) -> None:
    with pytest.raises(NukeError):
        arguments(words)


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.13"])
def test_a_bare_python_can_run_it(version: str, quiet: Path, tmp_path: Path) -> None:
    python = _interpreter(version)
    (tmp_path / "job.py").write_text(
        "import sys, nuke\n"
        "from pathlib import Path\n"
        "from importlib import import_module\n"
        "plates = import_module('tests.fakes.nuke.plain_plates')\n"
        "node = nuke.createNode('Small')\n"
        "node.setInput(0, nuke.plate(plates.FlatPlate(4, 3)))\n"
        "node.node('Out')['file'].setValue('a.####.exr'.join((str(Path.cwd()) + '/', '')))\n"
        "node.node('Out')['disable'].setValue(False)\n"
        "nuke.execute(node.node('Out'), 1, 1)\n"
        "print(sys.version.split()[0], Path('a.0001.exr').stat().st_size, 'numpy' in sys.modules)\n"
    )
    done = nuke("-t", "job.py", folders=(quiet,), cwd=tmp_path, python=python)
    assert done.returncode == 0, done.stderr
    found, size, numpy = done.stdout.splitlines()[-1].split()
    assert (found.rpartition(".")[0], int(size) > 4 * 4 * 4 * 3, numpy) == (version, True, "False")


def _interpreter(version: str) -> str:
    """An interpreter that runs, from the path or from pyenv (whose shims on the path may stand for nothing)."""
    for path in (
        shutil.which(f"python{version}"),
        *sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python")),
    ):
        if path and subprocess.run([str(path), "-c", ""], capture_output=True, check=False).returncode == 0:
            return str(path)
    pytest.skip(f"no Python {version} here")
