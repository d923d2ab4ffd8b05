"""`hdrgen hdrfuse`: a bracket of photographs becomes one tagged scene-linear EXR, through the sidecar.

It owns the command's options and the order of things: everything that can be refused here is refused before the
sidecar is found or started.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hdrgen_server.cli import console, finishing, inputs, jobs, options, outputs
from hdrgen_server.cli.choice import Choice, choose, parse_sets
from hdrgen_server.cli.finishing import Finish
from hdrgen_server.contracts.descriptor import Value
from hdrgen_server.settings import Settings, load_settings
from nuke_hdrgen.wire.errors import BadInput, BadParameter

OPERATION = "hdrfuse"


def command(
    images: Annotated[list[str], typer.Argument(metavar="IMG IMG [IMG…]", help="2 to 7 exposures; or in.####.exr.")],
    output: Annotated[str, typer.Option("-o", "--output", metavar="OUT.exr", help="The EXR; out.####.exr.")],
    ev: Annotated[
        str | None, typer.Option(metavar="E1,E2,…", help="EV of each input in stops; else EXIF says. --ev=-2,0,2")
    ] = None,
    reference: Annotated[
        int | None, typer.Option(metavar="N", help="Input whose exposure is kept, from 0; else the middle EV.")
    ] = None,
    pack: options.PackOption = None,
    quality: options.QualityOption = "draft",
    colourspace: options.SpaceOption = None,
    input_colourspace: Annotated[
        str | None, typer.Option(metavar="NAME", help="Space of the inputs; else their tags, 8-bit is sRGB texture.")
    ] = None,
    config: options.ConfigOption = None,
    seed: options.SeedOption = 0,
    steps: options.StepsOption = None,
    preserve_plate: Annotated[
        bool, typer.Option("--preserve-plate", help="Keep the reference's own values where it is not clipped.")
    ] = False,
    ceiling: options.CeilingOption = None,
    aovs: Annotated[bool, typer.Option("--aovs", help="Write the system's masks as layers.")] = False,
    preview: Annotated[str | None, typer.Option(metavar="OUT.png", help="Write a contact sheet too.")] = None,
    gainmap: Annotated[
        str | None, typer.Option(metavar="OUT.png", help="Write the 8-bit gain map over the reference too.")
    ] = None,
    gainmap_jpeg: Annotated[
        str | None, typer.Option(metavar="OUT.jpg", help="Write an Ultra HDR JPEG too: the reference and its gain map.")
    ] = None,
    sets: options.SetsOption = None,
    server: options.ServerOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Fuse a bracket into one scene-linear EXR at the exposure of its reference.

    Inputs are JPEG, PNG, TIFF, camera raw or EXR of one size, or sequences, one per exposure.
    """
    finish = Finish(preserve_plate, ceiling)
    inputs.check_count(len(images))
    inputs.check_reference(reference, len(images))
    evs = inputs.parse_evs(ev, len(images))
    moments = inputs.moments(images)
    targets = outputs.plan(outputs.Names(output, preview, gainmap, gainmap_jpeg), [moment.number for moment in moments])
    outputs.spare(targets, [path for moment in moments for path in moment.paths])
    settings = load_settings(server=server)
    spaces = inputs.spaces(settings, config, colourspace, input_colourspace)
    given = parse_sets(sets or []) | ({} if steps is None else {"steps": str(steps)})
    if "reference" in given:
        raise BadParameter("the reference is set with --reference N, not with --set")
    choice = choose(
        settings, OPERATION, pack, given, quality=quality, seed=seed, aovs=aovs, spaces=spaces, finish=finish
    )
    brackets = [_read(moment, evs, reference, spaces, settings) for moment in moments[:1]]
    results: list[dict[str, Any]] = []
    with jobs.connected(settings) as link:
        for moment, target in zip(moments, targets, strict=True):
            bracket = brackets.pop() if brackets else _read(moment, evs, reference, spaces, settings)
            results.append(_fuse(link, bracket, choice, target, moment.number))
    report = {"operation": OPERATION, "pack": choice.pack.name, "preview_pack": choice.pack.preview, "results": results}
    if as_json:
        console.emit_json(report)
        return
    for result in results:
        console.answer(outputs.sentence(result, choice.pack))


def _read(
    moment: inputs.Moment,
    evs: tuple[float, ...] | None,
    reference: int | None,
    spaces: inputs.Spaces,
    settings: Settings,
) -> inputs.Bracket:
    return inputs.read_bracket(moment.paths, evs, reference, spaces=spaces, nan_policy=settings.nan_policy)


def _fuse(
    link: jobs.Link, bracket: inputs.Bracket, choice: Choice, target: outputs.Target, number: int
) -> dict[str, Any]:
    parameters: dict[str, Value] = {**choice.parameters, "reference": bracket.reference}
    job = jobs.Job(
        OPERATION,
        choice.pack.name,
        parameters,
        bracket.frames,
        bracket.paths,
        choice.spaces.output,
        number=number,
        quality=choice.quality,
        seed=choice.seed,
        aovs=choice.aovs,
        provenance=choice.provenance,
    )
    with console.progress(target.exr.name) as update:
        outcome = jobs.run(link, job, update)
    if len(outcome.bodies) != 1:
        raise BadInput(f"{choice.pack.name} gave {len(outcome.bodies)} results where one was due; use another pack")
    plate = finishing.plate_of(bracket, choice.spaces.output) if choice.finish.preserve_plate else None
    finished = finishing.apply(outcome.bodies[0], plate, choice.spaces.output, choice.finish, choice.provenance)
    return outputs.write(target, outcome, finished, bracket, choice.spaces.output) | {
        "preserve_plate": choice.finish.preserve_plate,
        "ceiling": choice.finish.ceiling,
    }
