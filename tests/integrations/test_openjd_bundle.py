"""The farm job: what openjd-model makes of it, and what openjd-cli runs of it on this machine.

The Nuke here is a stub that writes its arguments down; test_openjd_bakes.py bakes and renders.
"""

from __future__ import annotations

import importlib.resources
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from openjd.model import StepDependencyGraph, create_job, decode_job_template, preprocess_job_parameters

from hdrgen_server.cli.main import run
from hdrgen_server.integrations.openjd import bundle

OPENJD = Path(sys.executable).with_name("openjd")
STUB = """#!{python}
import json, os, sys
with open({log!r}, "a") as log:
    log.write(json.dumps([sys.argv[1:], os.environ.get("NUKE_PATH", "")]) + "\\n")
print("openjd_progress: 50")
sys.exit({status})
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "shot 1" / "comp v1.nk"
    path.parent.mkdir()
    nodes = "HDRFuse {\n name HDRFuse1\n}\nGroup {\n name Group1\n}\n SDR2HDR {\n  name Inner\n }\n"
    path.write_text(nodes + "Write {\n name Write1\n}\n", encoding="utf-8")
    return path


def stub(folder: Path, status: int = 0) -> tuple[Path, Path]:
    """A `nuke` that records, and its record."""
    nuke, log = folder / "nuke", folder / "calls.jsonl"
    nuke.write_text(STUB.format(python=sys.executable, log=str(log), status=status), encoding="utf-8")
    nuke.chmod(0o755)
    return nuke, log


def submit(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    status = run(["submit", *map(str, arguments)])
    said = capsys.readouterr()
    return status, said.out, said.err


def openjd_run(template: str, parameters: dict[str, object], step: str) -> subprocess.CompletedProcess[str]:
    given = json.dumps(parameters)
    command = [str(OPENJD), "run", template, "--step", step, "--run-dependencies", "-p", given]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_the_packaged_template_is_one_job_with_two_steps() -> None:
    text = importlib.resources.files("hdrgen_server.integrations.openjd").joinpath("template.yaml").read_text("utf-8")
    template = decode_job_template(template=yaml.safe_load(text), supported_extensions=bundle.EXTENSIONS)
    assert [step.name for step in template.steps] == ["bake", "comp"]
    with pytest.raises(ValueError, match="TASK_CHUNKING"):
        decode_job_template(template=yaml.safe_load(text), supported_extensions=[])


def test_a_bundle_is_a_job_that_bakes_before_it_renders(
    capsys: pytest.CaptureFixture[str], script: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "job"
    arguments = ["--node", "Group1.Inner", "--range", "1001-1012", "--write", "Write1", "--frames", "1001-1050"]
    status, out, err = submit(capsys, script, *arguments, "--gpus", 2, "--bake-chunk", 4, "-o", folder)
    assert (status, err) == (0, "")
    assert out == f"wrote {folder}: 3 bake tasks and 5 comp tasks\n"
    assert sorted(path.name for path in folder.iterdir()) == ["parameter_values.yaml", "template.yaml"]
    template = decode_job_template(
        template=yaml.safe_load((folder / "template.yaml").read_text("utf-8")), supported_extensions=bundle.EXTENSIONS
    )
    listed = yaml.safe_load((folder / "parameter_values.yaml").read_text("utf-8"))["parameterValues"]
    values = preprocess_job_parameters(
        job_template=template,
        job_parameter_values={entry["name"]: str(entry["value"]) for entry in listed},
        job_template_dir=folder,
        current_working_dir=tmp_path,
    )
    job = create_job(job_template=template, job_parameter_values=values)
    bake, comp = job.steps
    assert job.name == "HDRGen Group1.Inner 1001-1012"
    assert [(amount.name, float(amount.min)) for amount in bake.hostRequirements.amounts] == [("amount.worker.gpu", 2)]
    assert comp.hostRequirements is None
    order = [step.name for step in StepDependencyGraph(job=job).topo_sorted()]
    assert order.index("bake") < order.index("comp")


def test_openjd_runs_the_job_here(capsys: pytest.CaptureFixture[str], script: Path, tmp_path: Path) -> None:
    nuke, log = stub(tmp_path)
    arguments = ["--node", "HDRFuse1", "--range", "1001-1003", "--write", "Write1", "--frames", "1001-1002"]
    options = [
        "--nuke",
        nuke,
        "--nuke-path",
        tmp_path / "our nuke",
        "--bake-chunk",
        2,
        "-o",
        tmp_path / "job",
        "--json",
    ]
    status, out, err = submit(capsys, script, *arguments, *options)
    assert status == 0, err
    told = json.loads(out)
    assert told["tasks"] == {"bake": ["1001-1002", "1003-1003"], "comp": ["1001-1002"]}
    result = openjd_run(told["template"], told["parameters"], "comp")
    assert result.returncode == 0, result.stdout + result.stderr
    calls = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    bake = ["-t", str(tmp_path / "our nuke" / "bake.py"), str(script), "--node=HDRFuse1"]
    assert [call[0] for call in calls] == [
        [*bake, "--range=1001-1002"],
        [*bake, "--range=1003-1003"],
        ["-x", "-X", "Write1", "-F", "1001-1002", str(script)],
    ]
    assert {call[1].split(":")[0] for call in calls} == {str(tmp_path / "our nuke")}


def test_a_bake_that_fails_is_not_rendered(capsys: pytest.CaptureFixture[str], script: Path, tmp_path: Path) -> None:
    nuke, log = stub(tmp_path, status=2)
    arguments = ["--node", "HDRFuse1", "--range", "1", "--write", "Write1", "--nuke", nuke, "-o", tmp_path / "job"]
    told = json.loads(submit(capsys, script, *arguments, "--json")[1])
    assert openjd_run(told["template"], told["parameters"], "comp").returncode != 0
    assert len(log.read_text("utf-8").splitlines()) == 1


def test_a_bake_alone_with_an_interactive_licence(
    capsys: pytest.CaptureFixture[str], script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    nuke, log = stub(tmp_path)
    arguments = ["--node", "HDRFuse1", "--range", "7", "--nuke", nuke, "--interactive", "--gpus", 0, "--json"]
    told = json.loads(submit(capsys, script, *arguments)[1])
    assert told["template"] == "comp v1_hdrgen_job/template.yaml"
    assert not {*bundle.COMP_PARAMETERS} & {*told["parameters"]}
    assert openjd_run(told["template"], told["parameters"], "bake").returncode == 0
    ((call, _),) = (json.loads(line) for line in log.read_text("utf-8").splitlines())
    assert call[:2] == ["-i", "-t"]
    assert call[-1] == "--range=7-7"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"--node": "HDRFuse9"}, "no node named HDRFuse9"),
        ({"--node": "a b"}, "no node's name"),
        ({"--write": "Write9"}, "no node named Write9"),
        ({"--range": "1-"}, "no job that a farm can run"),
        ({"--range": "ten"}, "no job that a farm can run"),
        ({"--frames": "1-2"}, "--write"),
        ({"-o": "shot 1/comp v1.nk"}, "cannot make the folder"),
        ({"script": "gone.nk"}, "does not exist"),
    ],
)
def test_what_is_wrong_is_one_line(
    capsys: pytest.CaptureFixture[str],
    script: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    options = {"--node": "HDRFuse1", "--range": "1-2"} | change
    path = options.pop("script", str(script))
    status, _, err = submit(capsys, path, *(part for option in options.items() for part in option))
    assert (status, err.count("\n")) == (2, 1)
    assert words in err
    assert [p.name for p in tmp_path.iterdir()] == ["shot 1"]


def test_ranges_are_written_as_nuke_has_them(capsys: pytest.CaptureFixture[str], script: Path, tmp_path: Path) -> None:
    arguments = ["--node", "HDRFuse1", "--range", "1-5x2 9, 11-12", "-o", tmp_path / "job", "--json"]
    told = json.loads(submit(capsys, script, *arguments)[1])
    assert told["tasks"] == {"bake": ["1-1", "3-3", "5-5", "9-9", "11-12"]}


def test_without_the_extra_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openjd.model", None)
    status, _, err = submit(capsys, script, "--node", "HDRFuse1", "--range", "1")
    assert status == 2
    assert "nuke-hdrgen[farm]" in err
