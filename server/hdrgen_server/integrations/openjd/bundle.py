"""Makes a job bundle of the packaged template: what is to be baked and rendered, checked by openjd-model.

It owns the template's parameters and the bundle's two files. It must not know Nuke scripts, a farm's manager or the
terminal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hdrgen_server.image.files import write_beside
from nuke_hdrgen.wire.errors import BadInput, BadParameter, StorageError

TEMPLATE = Path(__file__).with_name("template.yaml")
TEMPLATE_NAME = "template.yaml"
VALUES_NAME = "parameter_values.yaml"
EXTENSIONS = ("TASK_CHUNKING", "FEATURE_BUNDLE_1")
COMP_STEP = "comp"
COMP_PARAMETERS = ("Write", "Frames", "FramesPerTask", "RenderTimeoutSeconds")
INTERACTIVE = "-i"


@dataclass(frozen=True)
class FarmJob:
    """What a farm is asked to do, in the template's terms; `write` empty bakes only.

    `interactive` makes Nuke take an interactive licence instead of a render licence.
    """

    script: Path
    nuke_path: Path
    node: str
    bake_frames: str
    write: str = ""
    frames: str = ""
    nuke: str = "nuke"
    gpus: int = 1
    bake_frames_per_task: int = 10
    frames_per_task: int = 10
    bake_timeout_s: int = 14400
    render_timeout_s: int = 7200
    interactive: bool = False

    def parameters(self) -> dict[str, str | int]:
        """The values of the template's parameters."""
        values: dict[str, str | int] = {
            "NukeScript": str(self.script),
            "NukeExecutable": self.nuke,
            "NukePath": str(self.nuke_path),
            "Node": self.node,
            "BakeFrames": range_expression(self.bake_frames),
            "BakeFramesPerTask": self.bake_frames_per_task,
            "GPUs": self.gpus,
            "BakeTimeoutSeconds": self.bake_timeout_s,
            "Write": self.write,
            "Frames": range_expression(self.frames or self.bake_frames),
            "FramesPerTask": self.frames_per_task,
            "RenderTimeoutSeconds": self.render_timeout_s,
        }
        return {name: value for name, value in values.items() if self.write or name not in COMP_PARAMETERS}


@dataclass(frozen=True)
class Bundle:
    """A checked job: its template, its parameters' values, and the tasks of each step, such as `1001-1010`."""

    template: Mapping[str, Any]
    parameters: Mapping[str, str | int]
    tasks: Mapping[str, tuple[str, ...]]


def range_expression(frames: str) -> str:
    """A frame range as Nuke has it (`1-9x2 15`) as the specification has it (`1-9:2,15`)."""
    return ",".join(frames.replace(",", " ").replace("x", ":").split())


def make_bundle(job: FarmJob) -> Bundle:
    """The bundle of a job, after openjd-model has decoded and instantiated it.

    Raises BadInput without the `farm` extra, BadParameter when a value is not what the template allows.
    """
    try:
        from openjd.model import (
            DecodeValidationError,
            StepParameterSpaceIterator,
            create_job,
            decode_job_template,
            preprocess_job_parameters,
        )
    except ModuleNotFoundError as error:
        raise BadInput("farm jobs need openjd-model; install it with `pip install nuke-hdrgen[farm]`") from error
    template = _template(job)
    parameters = job.parameters()
    try:
        decoded = decode_job_template(template=template, supported_extensions=EXTENSIONS)
        values = preprocess_job_parameters(
            job_template=decoded,
            job_parameter_values={name: str(value) for name, value in parameters.items()},
            job_template_dir=TEMPLATE.parent,
            current_working_dir=Path.cwd(),
        )
        made = create_job(job_template=decoded, job_parameter_values=values)
        tasks = {
            step.name: tuple(task["Frames"].value for task in StepParameterSpaceIterator(space=step.parameterSpace))
            for step in made.steps
        }
    except (ValueError, DecodeValidationError) as error:
        raise BadParameter(f"this is no job that a farm can run: {' '.join(str(error).split())}; correct it") from error
    return Bundle(template, parameters, tasks)


def write_bundle(bundle: Bundle, folder: Path) -> None:
    """Write the bundle's two files, `template.yaml` and `parameter_values.yaml`. Raises StorageError."""
    import yaml

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make the folder {folder}: {error.strerror}; choose another with -o") from error
    values = {"parameterValues": [{"name": name, "value": value} for name, value in bundle.parameters.items()]}
    for name, content in ((TEMPLATE_NAME, bundle.template), (VALUES_NAME, values)):
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
        write_beside(folder / name, text.encode("utf-8"))


def _template(job: FarmJob) -> dict[str, Any]:
    """The packaged template, without the comp step and its parameters when nothing is to be rendered."""
    import yaml

    template: dict[str, Any] = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8"))
    if not job.write:
        template["steps"] = [step for step in template["steps"] if step["name"] != COMP_STEP]
        template["parameterDefinitions"] = [
            parameter for parameter in template["parameterDefinitions"] if parameter["name"] not in COMP_PARAMETERS
        ]
    if job.interactive:
        for step in template["steps"]:
            step["script"]["actions"]["onRun"]["args"].insert(0, INTERACTIVE)
    return template
