"""`hdrgen evaluate`: scores packs and classical methods on held-out scenes by the protocol of their operation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hdrgen_server.cli import console
from hdrgen_server.packs.registry import load_registry
from hdrgen_server.settings import Settings, load_settings
from nuke_hdrgen.wire.errors import BadInput, BadParameter

if TYPE_CHECKING:
    from hdrgen_server.evaluate.protocol import Method, Summary

COLUMNS = ("psnr", "ssim", "delta_e", "clip_rmse", "clip_bias", "jod")
FINAL = ":final"


def command(
    methods: Annotated[list[str], typer.Argument(metavar="METHOD…", help="Packs, and classical methods by name.")],
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Equirectangular EXRs; else hdri in the data folder.")
    ] = None,
    kinds: Annotated[
        str | None, typer.Option(metavar="K1,K2,…", help="static_2, dyn_3, …; a, b, c of sdr2hdr; else all.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="Samples of each kind.")] = 16,
    report: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write report.md and report.json there.")
    ] = None,
    jod: Annotated[bool, typer.Option("--jod", help="ColorVideoVDP as well; slow.")] = False,
    knock_out: Annotated[
        bool, typer.Option("--knock-out", help="Also score each pack with one module after another made the identity.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one machine-readable object.")] = False,
) -> None:
    """Score methods on seeded views of held-out scenes: PU21-PSNR, PU21-SSIM, delta E ITP, stops where clipped.

    Each METHOD is a pack (merge, gmodiff-s; gmodiff-s:final for that quality) or a method without one (single_mid,
    hat_linear, cv_debevec_mtb, …; inverse_srgb, linear_gamma22), all of one operation: hdrfuse is scored on brackets,
    sdr2hdr on plates under three tone curves that no method is told.
    """
    settings = load_settings()
    folder = data or settings.data_folder / "hdri"
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder; name one of equirectangular EXRs with --data")
    if report is not None and not report.is_dir():
        raise BadInput(f"{report} is no folder; make it first")
    from hdrgen_server.evaluate.protocol import run_protocol
    from hdrgen_server.evaluate.report import as_json as plain_data
    from hdrgen_server.evaluate.report import write_report
    from hdrgen_server.evaluate.suites import SUITES
    from hdrgen_server.training.scenes import load_scenes

    operation = _one_operation(methods, settings)
    suite = SUITES[operation]
    chosen = tuple(kinds.split(",")) if kinds else suite.kinds
    unknown = [kind for kind in chosen if kind not in suite.kinds]
    if unknown:
        raise BadParameter(f"{operation} has no kind {unknown[0]!r}; there are: {', '.join(suite.kinds)}")
    found: dict[str, Method] = {}
    for name in methods:
        if name in suite.methods:
            found[name] = suite.methods[name]
        else:
            found |= pack_methods(name, operation, settings, knock_out=knock_out)
    scenes = load_scenes(folder, held_out=True)
    scores: dict[str, dict[str, Summary]] = {}
    for name, method in found.items():
        with console.progress(name) as update:
            scores[name] = {}
            for index, kind in enumerate(chosen):
                update(kind, index, len(chosen))
                scores[name] |= run_protocol(method, scenes, (kind,), count, draw=suite.draw, jod=jod)
    if report is not None:
        write_report(scores, report)
    if as_json:
        console.emit_json({"count": count, "scores": plain_data(scores)})
        return
    rows: list[tuple[str, ...]] = [("method", "kind", *COLUMNS)]
    rows += [(n, k, *_cells(summary)) for n, by_kind in scores.items() for k, summary in by_kind.items()]
    console.table(rows)


def _one_operation(methods: list[str], settings: Settings) -> str:
    operations = {name: operation_of(name, settings) for name in methods}
    operation = operations[methods[0]]
    other = next((name for name in methods if operations[name] != operation), None)
    if other is not None:
        raise BadParameter(f"{methods[0]} does {operation} and {other} {operations[other]}; score them in two runs")
    return operation


def operation_of(name: str, settings: Settings) -> str:
    """What a pack, or a method without one, is scored for. Raises BadParameter listing packs and methods."""
    from hdrgen_server.evaluate.suites import SUITES

    registry = load_registry(settings)
    pack = registry.packs.get(name.removesuffix(FINAL))
    does = () if pack is None else pack.descriptor.operations
    for operation, suite in SUITES.items():
        if operation in does or name in suite.methods:
            return operation
    here = ", ".join([*sorted(registry.packs), *(method for suite in SUITES.values() for method in suite.methods)])
    what = f"{name} does {', '.join(does)}, which has no test" if does else f"there is no pack or method {name!r}"
    raise BadParameter(f"{what}; there are: {here}")


def pack_methods(name: str, operation: str, settings: Settings, *, knock_out: bool) -> dict[str, Method]:
    """Functions from a sample to (H, W, 3) scene-linear Rec.709 through the pack's operator."""
    import numpy as np

    from hdrgen_server.cli.direct import load_operator, run_operator
    from hdrgen_server.colour.interop import colourspace
    from hdrgen_server.colour.ocio import convert
    from hdrgen_server.contracts.frame import Frame

    device = "cpu" if settings.device == "auto" else settings.device
    quality = "final" if name.endswith(FINAL) else "draft"
    operator = load_operator(load_registry(settings).get(name.removesuffix(FINAL)), device)
    space, linear = colourspace("srgb_rec709_scene"), colourspace("lin_rec709_scene")

    def method(sample: Any) -> Any:
        frames = [
            Frame(np.ascontiguousarray(codes), ("R", "G", "B"), space, ev=ev, metadata={"bits": 8})
            for codes, ev in zip(sample.codes_nhwc, sample.evs, strict=True)
        ]
        given = {"reference": sample.reference} if operation == "hdrfuse" else {}
        return convert(run_operator(operator, operation, frames, given, quality)[0], linear).rgb

    if not knock_out:
        return {name: method}
    from hdrgen_server.evaluate.knockout import knocked_out

    return {name: method, **knocked_out(operator, method, quality)}


def _cells(summary: Summary) -> tuple[str, ...]:
    found = (summary.mean.get(column, math.nan) for column in COLUMNS)
    return tuple("-" if math.isnan(value) else f"{value:.3f}" for value in found)
