"""`hdrgen sdr2hdr`: a still, an image sequence or a movie becomes tagged scene-linear EXRs or an HDR movie.

It owns the command's options and the order of things: everything that can be refused here is refused before the
sidecar is found or started.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from hdrgen_server.cli import console, inputs, jobs, movies, options, plates, ranges, shots
from hdrgen_server.cli.choice import choose, parse_sets, shot_parameters
from hdrgen_server.cli.finishing import Finish
from hdrgen_server.settings import load_settings
from nuke_hdrgen.wire.errors import BadParameter

OPERATION = "sdr2hdr"


def command(
    source: Annotated[str, typer.Argument(metavar="INPUT", help="A still, in.####.png, or a movie.")],
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="OUT", help="OUT.exr, out.####.exr, or a movie: .mov, .mp4.")
    ],
    frames: Annotated[
        str | None, typer.Option(metavar="A-B", help="Frames of a sequence or movie to convert; else all of them.")
    ] = None,
    pack: options.PackOption = None,
    quality: options.QualityOption = "draft",
    colourspace: Annotated[
        str | None, typer.Option(metavar="NAME", help="Scene-linear space of EXRs; else the scene_linear role.")
    ] = None,
    input_colourspace: Annotated[
        str | None, typer.Option(metavar="NAME", help="Space of the input; else its tags, 8-bit is sRGB texture.")
    ] = None,
    config: options.ConfigOption = None,
    seed: options.SeedOption = 0,
    steps: options.StepsOption = None,
    preserve_plate: Annotated[
        bool, typer.Option("--preserve-plate", help="Keep the plate's own values where it is not clipped.")
    ] = False,
    ceiling: options.CeilingOption = None,
    aovs: Annotated[bool, typer.Option("--aovs", help="Write the system's masks as layers of EXRs.")] = False,
    preview: Annotated[
        str | None, typer.Option(metavar="OUT.png", help="Write a contact sheet too; #### for each frame.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the EXRs that are there and were made from the same, by the same.")
    ] = False,
    matrix: Annotated[
        str | None, typer.Option(metavar="bt709|bt601|bt2020", help="Matrix of a movie's codes; else its tags.")
    ] = None,
    levels: Annotated[
        str | None, typer.Option(metavar="limited|full", help="Range of a movie's codes; else its tags.")
    ] = None,
    transfer: Annotated[
        str | None, typer.Option(metavar="pq|hlg", help="Transfer of a movie that is written; else pq.")
    ] = None,
    codec: Annotated[
        str | None, typer.Option(metavar="hevc|prores", help="Codec of it; else prores in .mov, hevc in .mp4.")
    ] = None,
    white_nits: Annotated[
        float | None, typer.Option(metavar="N", help="Where it shows diffuse white, in cd/m2; else 100.")
    ] = None,
    mastering_nits: Annotated[
        float | None, typer.Option(metavar="N", help="Peak of the mastering display that it states; else 1000.")
    ] = None,
    sets: options.SetsOption = None,
    server: options.ServerOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Expand an SDR plate into scene-linear light; mid-grey stays where the plate has it.

    INPUT is a JPEG, PNG, TIFF, camera raw or EXR, a sequence of them, or an SDR movie, whose frames count from 1.
    EXRs hold scene-linear light in --colourspace; a movie is 10-bit BT.2020. --frames converts part of a shot; a
    pack that looks at frames together sees those around it too, so that it comes out as in all of the shot.
    """
    finish = Finish(preserve_plate, ceiling)
    form = movies.form(output, movies.Asked(transfer, codec, white_nits, mastering_nits))
    if form is not None and (colourspace is not None or aovs or resume):
        raise BadParameter(f"{output} is a movie: --colourspace, --aovs and --resume are for EXRs; leave them out")
    settings = load_settings(server=server)
    space = colourspace if form is None else movies.MOVIE_SPACE
    spaces = inputs.spaces(settings, config, space, input_colourspace)
    shot = plates.find(source, spaces, nan_policy=settings.nan_policy, matrix=matrix, levels=levels)
    wanted = shot.numbers if frames is None else ranges.chosen(frames, shot.numbers, source)
    ends = shots.ends(output, preview, form, shot, wanted)
    given = parse_sets(sets or []) | ({} if steps is None else {"steps": str(steps)})
    choice = choose(
        settings, OPERATION, pack, given, quality=quality, seed=seed, aovs=aovs, spaces=spaces, finish=finish,
        shot=len(shot.numbers) > 1 or plates.is_movie(source),
    )  # fmt: skip
    steady = shot_parameters(choice.pack.descriptor, choice.parameters, shot.numbers, shot.rate)
    choice = replace(choice, parameters=steady)
    for warning in shot.warnings:
        console.note(warning)
    numbers = shots.unfinished(shot, wanted, ends, choice) if resume else wanted
    report = shots.Report(source, output, choice, kept=len(wanted) - len(numbers))
    if numbers:
        with jobs.connected(settings) as link:
            shots.expand(link, shot, numbers, ends, choice, report)
    if as_json:
        console.emit_json(report.as_dict())
    else:
        console.answer(report.sentence())
