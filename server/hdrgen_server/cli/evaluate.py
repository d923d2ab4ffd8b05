"""`hdrgen evaluate`: scores packs and classical methods on held-out scenes by the protocol of their operation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hdrgen_server.cli import console, encodings, evaluate_shots, exposed, scored
from hdrgen_server.cli.choice import parse_sets
from hdrgen_server.cli.evaluate_prompts import evaluate_prompts
from hdrgen_server.settings import Settings, load_settings
from nuke_hdrgen.wire.errors import BadInput, BadParameter

if TYPE_CHECKING:
    from hdrgen_server.evaluate.protocol import Method, Summary
    from hdrgen_server.evaluate.suites import Suite

COLUMNS = ("psnr", "ssim", "delta_e", "clip_rmse", "clip_bias", "psnr_kept", "range_stops", "jod")


def command(
    methods: Annotated[list[str], typer.Argument(metavar="METHOD…", help="Packs, folders of packs, other methods.")],
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Equirectangular EXRs; else hdri in the data folder.")
    ] = None,
    kinds: Annotated[
        str | None,
        typer.Option(metavar="K1,K2,…", help="static_2, dyn_3, …; of sdr2hdr a, b, c, or bt2446a/23, …; else all."),
    ] = None,
    degradations: Annotated[
        bool, typer.Option("--degradations", help="In place of a, b, c: eight operators x x264 at CRF 23, 31, 39.")
    ] = False,
    flicker: Annotated[
        bool, typer.Option("--flicker", help="In place of scores: flicker of pans (--count of them) before and after.")
    ] = False,
    temporal: Annotated[
        bool,
        typer.Option(
            "--temporal", help="In place of scores: pans' flicker, frame differences, peak and range, and (truth's)."
        ),
    ] = False,
    vae: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Of METHOD encodings: the VAE that is studied.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="Samples of each kind.")] = 16,
    report: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write report.md and report.json there.")
    ] = None,
    jod: Annotated[bool, typer.Option("--jod", help="ColorVideoVDP as well; slow.")] = False,
    knock_out: Annotated[
        bool, typer.Option("--knock-out", help="Also score each pack with one module after another made the identity.")
    ] = False,
    preserve_plate: Annotated[
        bool, typer.Option("--preserve-plate", help="Also score each pack with the plate kept where it is not clipped.")
    ] = False,
    exposures: Annotated[
        bool, typer.Option("--exposures", help="In place of scores: what packs of latenthdr make of each exposure.")
    ] = False,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="PARAMETER=VALUE", help="Any parameter of the packs.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one machine-readable object.")] = False,
) -> None:
    """Score methods on seeded views of held-out scenes: PU21-PSNR, PU21-SSIM, delta E ITP, stops where clipped.

    Each METHOD is a pack (merge, gmodiff-s; gmodiff-s:final for that quality), a folder that holds one, or a method
    without one (single_mid, hat_linear, cv_debevec_mtb, …; inverse_srgb, linear_gamma22), all of one operation: hdrfuse
    is scored on brackets, sdr2hdr on plates under three tone curves that no method is told. With --degradations a pack
    trained without an operator is scored on that one alone. psnr_kept is PU21-PSNR where the plate is not clipped,
    range_stops a result's range between its 0.1 and 99.9 percentiles. With --temporal, --jod is that of each pan as
    video and (of its frames as images, on average). txt2hdr has no truth: its packs are tested on
    --count pictures of each of eight words. The one METHOD encodings studies how well a VAE holds EXRs of any shape
    under six transfer curves.
    """
    settings = load_settings()
    folder = data or settings.data_folder / "hdri"
    _check_folders(folder, report)
    if methods == ["encodings"]:
        encodings.run(vae, folder, count, as_json=as_json)
        return
    if exposures:
        exposed.answer(methods, folder, settings, as_json=as_json)
        return
    from hdrgen_server.evaluate.suites import SUITES

    operation = _one_operation(methods, settings)
    options = scored.Options(knock_out, preserve_plate, parse_sets(sets or []))
    if operation == scored.PROMPTED:
        if any((degradations, flicker, temporal, knock_out, preserve_plate, jod, kinds)):
            raise BadParameter(f"{methods[0]} does {operation}, which --count, --set, --report and --json are for")
        evaluate_prompts(methods, settings, options, folder, count, report, as_json=as_json)
        return
    suite = SUITES[operation]
    if (degradations or flicker or temporal) and not suite.degradations:
        what = "--degradations, --flicker and --temporal are for sdr2hdr"
        raise BadParameter(f"{what}, and {methods[0]} does {operation}")
    chosen = _kinds(operation, suite, kinds, degradations=degradations)
    if flicker or temporal:
        _check_shots((flicker and (temporal or jod), degradations, report, knock_out, preserve_plate))
        asked = evaluate_shots.load(methods, settings, options, scored.Asked(folder, chosen, count), jod=jod)
        evaluate_shots.answer(asked, flicker=flicker, as_json=as_json)
        return
    found = _found(methods, operation, settings, options, chosen, degradations=degradations)
    scores = _scores(found, suite, scored.Asked(folder, chosen, count), jod=jod)
    if report is not None:
        from hdrgen_server.evaluate.report import write_report

        write_report(scores, report)
    _print(scores, count, as_json=as_json)


def _check_folders(folder: Path, report: Path | None) -> None:
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder; name one of equirectangular EXRs with --data")
    if report is not None and not report.is_dir():
        raise BadInput(f"{report} is no folder; make it first")


def _check_shots(others: tuple[object, ...]) -> None:
    if any(others):
        raise BadParameter(
            "--flicker or --temporal goes with --data, --kinds, --count, --set and --json, and --temporal with --jod; "
            "leave out what else is there"
        )


def _found(
    methods: list[str],
    operation: str,
    settings: Settings,
    options: scored.Options,
    chosen: tuple[str, ...],
    *,
    degradations: bool,
) -> dict[str, tuple[Method, tuple[str, ...]]]:
    """What is scored, each with its kinds: a pack that was trained without operators on these alone."""
    from hdrgen_server.evaluate.suites import SUITES

    suite = SUITES[operation]
    left_out = {name: scored.without_operators(name, settings) for name in methods} if degradations else {}
    found: dict[str, tuple[Method, tuple[str, ...]]] = {}
    for name in methods:
        known = name in suite.methods
        made = {name: suite.methods[name]} if known else scored.pack_methods(name, operation, settings, options)
        asked = tuple(k for k in chosen if k.split("/")[0] in left_out[name]) if left_out.get(name) else chosen
        found |= {label: (method, asked) for label, method in made.items()}
    return found


def _scores(
    methods: dict[str, tuple[Method, tuple[str, ...]]], suite: Suite, asked: scored.Asked, *, jod: bool
) -> dict[str, dict[str, Summary]]:
    """Every method on its kinds."""
    from hdrgen_server.evaluate.jod import require
    from hdrgen_server.evaluate.protocol import run_protocol
    from hdrgen_server.training.scenes import load_scenes

    if jod:
        require()
    scenes = load_scenes(asked.folder, held_out=True)
    scores: dict[str, dict[str, Summary]] = {}
    for name, (method, kinds) in methods.items():
        with console.progress(name) as update:
            scores[name] = {}
            for index, kind in enumerate(kinds):
                update(kind, index, len(kinds))
                scores[name] |= run_protocol(method, scenes, (kind,), asked.count, draw=suite.draw, jod=jod)
    return scores


def _print(scores: dict[str, dict[str, Summary]], count: int, *, as_json: bool) -> None:
    from hdrgen_server.evaluate.report import as_json as plain_data

    if as_json:
        console.emit_json({"count": count, "scores": plain_data(scores)})
        return
    rows: list[tuple[str, ...]] = [("method", "kind", *COLUMNS)]
    rows += [(n, k, *_cells(summary)) for n, by_kind in scores.items() for k, summary in by_kind.items()]
    console.table(rows)


def _kinds(operation: str, suite: Suite, kinds: str | None, *, degradations: bool) -> tuple[str, ...]:
    """The kinds that are asked for. Raises BadParameter."""
    if kinds is None:
        return suite.degradations if degradations else suite.kinds
    chosen = tuple(kinds.split(","))
    unknown = [kind for kind in chosen if kind not in (*suite.kinds, *suite.degradations)]
    if unknown:
        there = ", ".join((*suite.kinds, *suite.degradations))
        raise BadParameter(f"{operation} has no kind {unknown[0]!r}; there are: {there}")
    return chosen


def _one_operation(methods: list[str], settings: Settings) -> str:
    operations = {name: scored.operation_of(name, settings) for name in methods}
    operation = operations[methods[0]]
    other = next((name for name in methods if operations[name] != operation), None)
    if other is not None:
        raise BadParameter(f"{methods[0]} does {operation} and {other} {operations[other]}; score them in two runs")
    return operation


def _cells(summary: Summary) -> tuple[str, ...]:
    found = (summary.mean.get(column, math.nan) for column in COLUMNS)
    return tuple("-" if math.isnan(value) else f"{value:.3f}" for value in found)
