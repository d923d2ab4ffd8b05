"""`hdrgen evaluate`: scores packs and classical methods on held-out brackets by the protocol."""

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
        str | None, typer.Option(metavar="K1,K2,…", help="static_2, dyn_3, dyn_2_cam, …; else all of them.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="Brackets of each kind.")] = 16,
    report: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write report.md and report.json there.")
    ] = None,
    jod: Annotated[bool, typer.Option("--jod", help="ColorVideoVDP as well; slow.")] = False,
    knock_out: Annotated[
        bool, typer.Option("--knock-out", help="Also score each pack with one module after another made the identity.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one machine-readable object.")] = False,
) -> None:
    """Score methods on seeded brackets of held-out scenes: PU21-PSNR, PU21-SSIM, delta E ITP, stops where clipped.

    Each METHOD is a pack (merge, gmodiff-s; gmodiff-s:final for that quality) or a classical method
    (single_mid, hat_linear, cv_debevec_mtb, …).
    """
    settings = load_settings()
    folder = data or settings.data_folder / "hdri"
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder; name one of equirectangular EXRs with --data")
    if report is not None and not report.is_dir():
        raise BadInput(f"{report} is no folder; make it first")
    from hdrgen_server.evaluate.protocol import KINDS, run_protocol
    from hdrgen_server.evaluate.report import as_json as plain_data
    from hdrgen_server.evaluate.report import write_report
    from hdrgen_server.training.scenes import load_scenes

    chosen = tuple(kinds.split(",")) if kinds else tuple(KINDS)
    unknown = [kind for kind in chosen if kind not in KINDS]
    if unknown:
        raise BadParameter(f"there is no kind of bracket {unknown[0]!r}; there are: {', '.join(KINDS)}")
    found: dict[str, Method] = {}
    for name in methods:
        found |= methods_named(name, settings, knock_out=knock_out)
    scenes = load_scenes(folder, held_out=True)
    scores: dict[str, dict[str, Summary]] = {}
    for name, method in found.items():
        with console.progress(name) as update:
            scores[name] = {}
            for index, kind in enumerate(chosen):
                update(kind, index, len(chosen))
                scores[name] |= run_protocol(method, scenes, (kind,), count, jod=jod)
    if report is not None:
        write_report(scores, report)
    if as_json:
        console.emit_json({"count": count, "scores": plain_data(scores)})
        return
    rows: list[tuple[str, ...]] = [("method", "kind", *COLUMNS)]
    rows += [(n, k, *_cells(summary)) for n, by_kind in scores.items() for k, summary in by_kind.items()]
    console.table(rows)


def methods_named(name: str, settings: Settings, *, knock_out: bool) -> dict[str, Method]:
    """A pack's operator, with its knocked-out variants if asked, else a classical method.

    Raises BadParameter listing packs and methods.
    """
    from hdrgen_server.evaluate.baselines import METHODS

    registry = load_registry(settings)
    if name.removesuffix(FINAL) in registry.packs:
        return pack_methods(name, settings, knock_out=knock_out)
    if name in METHODS:
        return {name: METHODS[name]}
    here = ", ".join([*sorted(registry.packs), *METHODS])
    raise BadParameter(f"there is no pack or method {name!r}; there are: {here}")


def pack_methods(name: str, settings: Settings, *, knock_out: bool) -> dict[str, Method]:
    """Functions from a simulated bracket to (H, W, 3) scene-linear Rec.709 through the pack's operator."""
    import numpy as np

    from hdrgen_server.cli.direct import load_operator, run_operator
    from hdrgen_server.contracts.frame import Colourspace, Frame

    device = "cpu" if settings.device == "auto" else settings.device
    quality = "final" if name.endswith(FINAL) else "draft"
    operator = load_operator(load_registry(settings).get(name.removesuffix(FINAL)), device)
    space = Colourspace("srgb_rec709_scene", "srgb_rec709_scene", None, "encoded")

    def method(sample: Any) -> Any:
        frames = [
            Frame(np.ascontiguousarray(codes), ("R", "G", "B"), space, ev=ev, metadata={"bits": 8})
            for codes, ev in zip(sample.codes_nhwc, sample.evs, strict=True)
        ]
        return run_operator(operator, "hdrfuse", frames, {"reference": sample.reference}, quality)[0].rgb

    if not knock_out:
        return {name: method}
    from hdrgen_server.evaluate.knockout import knocked_out

    return {name: method, **knocked_out(operator, method, quality)}


def _cells(summary: Summary) -> tuple[str, ...]:
    found = (summary.mean.get(column, math.nan) for column in COLUMNS)
    return tuple("-" if math.isnan(value) else f"{value:.3f}" for value in found)
