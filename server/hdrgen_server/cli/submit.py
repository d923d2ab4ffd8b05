"""`hdrgen submit`: writes a job for the farm's manager that bakes a node of a script, and renders a Write after it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from hdrgen_server.cli import console
from hdrgen_server.cli.nuke_path import nuke_folder
from hdrgen_server.image.files import readable_file
from nuke_hdrgen.wire.errors import BadInput, BadParameter

FULL_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")


def command(
    script: Annotated[Path, typer.Argument(metavar="SCRIPT", help="The saved Nuke script, as the hosts see it.")],
    node: Annotated[str, typer.Option("--node", metavar="NAME", help="The node to bake: HDRFuse1, Group1.HDRFuse1.")],
    bake: Annotated[str, typer.Option("--range", metavar="A-B", help="Frames to bake; a still has one.")],
    write: Annotated[str, typer.Option("--write", metavar="NAME", help="A Write to render after the bake.")] = "",
    frames: Annotated[str, typer.Option("--frames", metavar="A-B", help="Frames to render; else those baked.")] = "",
    nuke: Annotated[str, typer.Option("--nuke", metavar="EXE", help="Nuke's command on the hosts.")] = "nuke",
    nuke_path: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="`hdrgen nuke-path` on the hosts; else the one here.")
    ] = None,
    interactive: Annotated[
        bool, typer.Option("--interactive", help="Nuke takes an interactive licence (-i), not a render licence.")
    ] = False,
    gpus: Annotated[int, typer.Option(min=0, max=64, metavar="N", help="GPUs a baking host needs; 0 is any host.")] = 1,
    bake_chunk: Annotated[int, typer.Option(min=1, metavar="N", help="Frames of one bake task.")] = 10,
    chunk: Annotated[int, typer.Option(min=1, metavar="N", help="Frames of one render task.")] = 10,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FOLDER", help="The bundle; else SCRIPT_hdrgen_job here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one machine-readable object.")] = False,
) -> None:
    """Write an Open Job Description bundle: a bake step on hosts with a GPU and, with --write, a comp step.

    Give the folder to the farm's manager, or try it here with `openjd run`. Needs `pip install nuke-hdrgen[farm]`.
    """
    from hdrgen_server.integrations.openjd.bundle import TEMPLATE_NAME, FarmJob, make_bundle, write_bundle

    check_nodes(script, [node, *([write] if write else [])])
    if frames and not write:
        raise BadParameter("--frames says what a Write renders; name it with --write")
    job = FarmJob(
        script=script.absolute(),
        nuke_path=nuke_folder() if nuke_path is None else nuke_path.absolute(),
        node=node,
        bake_frames=bake,
        write=write,
        frames=frames,
        nuke=nuke,
        gpus=gpus,
        bake_frames_per_task=bake_chunk,
        frames_per_task=chunk,
        interactive=interactive,
    )
    bundle = make_bundle(job)
    folder = output or Path(f"{script.stem}_hdrgen_job")
    write_bundle(bundle, folder)
    if as_json:
        tasks = {step: list(chunks) for step, chunks in bundle.tasks.items()}
        template = str(folder / TEMPLATE_NAME)
        console.emit_json({"template": template, "parameters": dict(bundle.parameters), "tasks": tasks})
        return
    steps = " and ".join(f"{len(chunks)} {step} tasks" for step, chunks in bundle.tasks.items())
    console.answer(f"wrote {folder}: {steps}")


def check_nodes(script: Path, names: list[str]) -> None:
    """Look in the script's text for the nodes' own names. Raises BadInput when one is missing, BadParameter for no
    name.
    """
    text = readable_file(script).read_bytes()
    for name in names:
        if not FULL_NAME.fullmatch(name):
            raise BadParameter(f"{name!r} is no node's name; write it as Nuke does, such as HDRFuse1")
        own = name.rpartition(".")[2].encode("ascii", "replace")
        if not re.search(rb"(?m)^\s*name " + re.escape(own) + rb"\s*$", text):
            raise BadInput(f"{script} has no node named {name}; save the script, or correct the name")
