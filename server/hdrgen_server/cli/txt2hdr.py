"""`hdrgen txt2hdr`: a prompt becomes tagged scene-linear EXRs, one for each seed, and a contact sheet of them.

It owns the command's options and the order of things: everything that can be refused here is refused before the
sidecar is found or started, and every picture is written before the next one is asked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from hdrgen_server.cli import console, finishing, inputs, jobs, options, outputs
from hdrgen_server.cli.choice import Choice, choose, parse_sets
from hdrgen_server.cli.finishing import Finish
from hdrgen_server.contracts.descriptor import Descriptor, Value
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.packs.manifest import Pack
from hdrgen_server.packs.registry import load_registry
from hdrgen_server.settings import Settings, load_settings
from nuke_hdrgen.wire.errors import BadInput, BadParameter, HDRGenError

OPERATION = "txt2hdr"
MOST = 64
PROJECTIONS = ("perspective", "panorama")
OWN = {
    "prompt": "the argument",
    "width": "--size",
    "height": "--size",
    "projection": "--projection",
    "steps": "--steps",
}
SHEET_EVS = (-4.0, -2.0, 0.0, 2.0)


@dataclass(frozen=True, eq=False)
class _Sheet:
    """The contact sheet: a row for each picture so far, written anew after each."""

    path: Path
    tiles: list[tuple[str, Any]]

    def add(self, label: str, body: bytes | memoryview) -> None:
        from hdrgen_server.image.exr import read_exr_frame
        from hdrgen_server.image.preview import exposure_tiles, save_png, tile_sheet

        for name, tile in exposure_tiles(read_exr_frame(body, name=label), SHEET_EVS, 240):
            self.tiles.append((f"{label}, {name}", tile))
        save_png(tile_sheet(self.tiles, len(SHEET_EVS)), self.path)


def command(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What the picture shows.")],
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="OUT.exr", help="The EXR; out.####.exr for several.")
    ],
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Pixels; else the pack's own size.")] = None,
    projection: Annotated[
        str, typer.Option(metavar="perspective|panorama", help="A plain picture, or all directions.")
    ] = "perspective",
    count: Annotated[int, typer.Option(min=1, max=MOST, metavar="N", help="Pictures, with seeds counting up.")] = 1,
    image: Annotated[
        Path | None, typer.Option(metavar="START", help="Start from this picture; --set strength=0..1 says how far.")
    ] = None,
    pack: options.PackOption = None,
    quality: options.QualityOption = "draft",
    colourspace: options.SpaceOption = None,
    input_colourspace: Annotated[
        str | None, typer.Option(metavar="NAME", help="Space of START; else its tags, 8-bit is sRGB texture.")
    ] = None,
    config: options.ConfigOption = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the first picture.")] = 0,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Steps; else by quality.")] = None,
    ceiling: options.CeilingOption = None,
    aovs: Annotated[bool, typer.Option("--aovs", help="Write what the system has beside light as layers.")] = False,
    preview: Annotated[
        str | None, typer.Option(metavar="OUT.png", help="Write one contact sheet too: each picture at four stops.")
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="PARAMETER=VALUE", help="Any parameter: guidance, …")
    ] = None,
    server: options.ServerOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Draw what PROMPT says in scene-linear light, mid-grey at 0.18.

    --set negative_prompt=TEXT and --set guidance=V steer it; a small pack says in its card what it can draw. A picture
    is made again at another size, or alone, from its own seed.
    """
    if not prompt.strip():
        raise BadParameter("the prompt is empty; describe the picture in a sentence")
    if projection not in PROJECTIONS:
        raise BadParameter(f"--projection must be {' or '.join(PROJECTIONS)}, got {projection!r}")
    targets = outputs.plan(outputs.Names(output), range(1, count + 1))
    sheet = _sheet(preview, targets)
    settings = load_settings(server=server)
    spaces = inputs.spaces(settings, config, colourspace, input_colourspace)
    start = None if image is None else _start(image, spaces)
    given = _given(parse_sets(sets or []), steps)
    chosen = _pack(settings, pack, quality)
    given |= {"prompt": prompt, "projection": projection}
    given |= _size(chosen.descriptor, size, projection, start)
    finish = Finish(ceiling=ceiling)
    choice = choose(
        settings, OPERATION, chosen.name, given, quality=quality, seed=seed, aovs=aovs, spaces=spaces, finish=finish
    )
    _check(choice)
    results: list[dict[str, Any]] = []
    with jobs.connected(settings) as link:
        for index, target in enumerate(targets):
            try:
                results.append(_draw(link, choice, target, seed + index, start, image, sheet))
            except HDRGenError:
                if results:
                    console.note(f"{len(results)} of {count} pictures are done and stay")
                raise
    report = {"operation": OPERATION, "pack": choice.pack.name, "preview_pack": choice.pack.preview, "results": results}
    if as_json:
        console.emit_json({**report, "preview": preview})
        return
    for result in results:
        console.answer(_sentence(result, choice.pack))
    if preview:
        console.answer(f"wrote {preview}: each picture at EV {', '.join(f'{ev:+g}' for ev in SHEET_EVS)}")


def _sheet(preview: str | None, targets: tuple[outputs.Target, ...]) -> _Sheet | None:
    """Raises BadInput or StorageError for a sheet that cannot be written."""
    if preview is None:
        return None
    path = Path(preview)
    if path.suffix.lower() != ".png":
        raise BadInput(f"--preview {preview} is no .png file; it is written as .png")
    outputs.check_writable(path)
    if any(path == target.exr for target in targets):
        raise BadInput(f"{preview} is named for two of the files; give each its own name")
    return _Sheet(path, [])


def _start(image: Path, spaces: inputs.Spaces) -> Frame:
    """The start picture in its own colourspace. Raises BadInput."""
    from hdrgen_server.image.reading import read_frame

    return inputs.in_named_space(read_frame(image), spaces)


def _given(sets: dict[str, str], steps: int | None) -> dict[str, str]:
    """The parameters of `--set` and `--steps`. Raises BadParameter for those that have their own option."""
    for name, option in OWN.items():
        if name in sets:
            raise BadParameter(f"{name} is set with {option}, not with --set")
    return sets | ({} if steps is None else {"steps": str(steps)})


def _pack(settings: Settings, name: str | None, quality: str) -> Pack:
    registry = load_registry(settings)
    return registry.get(name) if name else registry.default_for(OPERATION, quality)


def _size(descriptor: Descriptor, size: str | None, projection: str, start: Frame | None) -> dict[str, str]:
    """Width and height: as asked, of the start picture's shape, or the pack's own. Raises BadParameter."""
    defaults = {p.name: p.default for p in descriptor.parameters if p.name in {"width", "height"}}
    if size is not None:
        found = re.fullmatch(r"(\d{1,6})x(\d{1,6})", size)
        if found is None:
            raise BadParameter(f"--size {size!r} is no WIDTHxHEIGHT; write for example --size 1024x768")
        return {"width": found[1], "height": found[2]}
    if len(defaults) < 2:
        return {}
    width, height = int(defaults["width"]), int(defaults["height"])
    if projection == PROJECTIONS[1]:
        return {"width": str(2 * height), "height": str(height)}
    if start is not None:
        scale, step = (width * height / (start.width * start.height)) ** 0.5, descriptor.sizes.multiple_of
        width, height = (max(step, round(side * scale / step) * step) for side in (start.width, start.height))
    return {"width": str(width), "height": str(height)}


def _check(choice: Choice) -> None:
    """Raises BadParameter for sizes that the pack refuses, before any server hears of them."""
    from hdrgen_server.systems.txt2hdr import asked_size

    asked_size(choice.pack.descriptor, choice.pack.descriptor.resolve(choice.parameters))


def _draw(
    link: jobs.Link,
    choice: Choice,
    target: outputs.Target,
    seed: int,
    start: Frame | None,
    image: Path | None,
    sheet: _Sheet | None,
) -> dict[str, Any]:
    """One picture: asked for, written, and put on the sheet."""
    from hdrgen_server.image.files import write_beside

    parameters: dict[str, Value] = dict(choice.parameters)
    job = jobs.Job(
        OPERATION,
        choice.pack.name,
        parameters,
        () if start is None else (start,),
        () if image is None else (image,),
        choice.spaces.output,
        quality=choice.quality,
        seed=seed,
        aovs=choice.aovs,
        provenance=choice.provenance,
    )
    with console.progress(target.exr.name) as update:
        outcome = jobs.run(link, job, update)
    if len(outcome.bodies) != 1:
        raise BadInput(f"{choice.pack.name} gave {len(outcome.bodies)} results where one was due; use another pack")
    finished = finishing.apply(outcome.bodies[0], None, choice.spaces.output, choice.finish, choice.provenance)
    write_beside(target.exr, finished.body)
    if sheet is not None:
        sheet.add(f"seed {seed}", finished.body)
    for warning in outcome.warnings:
        console.note(warning)
    return {
        "output": str(target.exr),
        "seed": seed,
        "parameters": parameters,
        "quality": choice.quality,
        "image": None if image is None else str(image),
        "ceiling": choice.finish.ceiling,
        "colourspace": choice.spaces.output.name,
        "interop_id": choice.spaces.output.interop_id,
        "key": outcome.key,
        "counts": dict(outcome.counts),
        "warnings": list(outcome.warnings),
        "seconds": round(outcome.seconds, 3),
    }


def _sentence(result: dict[str, Any], pack: Pack) -> str:
    name = f"pack {pack.name}{' (preview)' if pack.preview else ''}"
    return (
        f"wrote {result['output']} in {result['colourspace']}, {name}, seed {result['seed']}, {result['seconds']:.1f} s"
    )
