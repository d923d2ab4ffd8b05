"""`hdrgen evaluate` for packs of txt2hdr: words, peaks, memory, seams, and what their VAE holds."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hdrgen_server.cli import console, scored
from hdrgen_server.settings import Settings
from nuke_hdrgen.wire.errors import BadParameter

if TYPE_CHECKING:
    from hdrgen_server.evaluate.prompted import Prompted

Found = dict[str, Any]


def evaluate_prompts(
    methods: list[str],
    settings: Settings,
    options: scored.Options,
    data: Path,
    count: int,
    report: Path | None,
    *,
    as_json: bool,
) -> None:
    """Test packs of the Qwen systems at their own size, and print the figures; `prompts.json` in `report` has them too.

    Raises BadParameter for a pack of another system.
    """
    found: Found = {}
    for name in methods:
        method = scored.prompt_method(name, settings, options)
        with console.progress(name) as update:
            figures = _figures(method, data, count, lambda done, total: update("pictures", done, total))
        found[name] = figures
    if as_json:
        console.emit_json({"count": count, "prompts": found})
    else:
        for name, figures in found.items():
            console.table([(name, "", "", ""), *_rows(figures)])
    if report is not None:
        from hdrgen_server.image.files import write_beside

        write_beside(report / "prompts.json", json.dumps(found, indent=1).encode())


def _figures(method: scored.PromptMethod, data: Path, count: int, update: Any) -> Found:
    from hdrgen_server.evaluate import light_vae
    from hdrgen_server.evaluate.prompted import Trained, run_prompts
    from hdrgen_server.systems.qwenlinear.operator import DualLook
    from hdrgen_server.systems.qwenlog.operator import QwenOperator
    from hdrgen_server.training.captioned import CaptionSource
    from hdrgen_server.training.pictures import scenes_of
    from hdrgen_server.training.recipe import load_recipe

    operator = method.operator
    if not isinstance(operator, QwenOperator):
        raise BadParameter(f"{method.name} is no pack of qwenlog or qwenlinear, which this test is for")
    recipe = load_recipe(f"{operator.descriptor.system}-backbone-s")
    source = CaptionSource(data, recipe.crop, pool=int(recipe.pictures["pool"]))
    held_out, side = scenes_of(data, held_out=True), recipe.crop
    views = light_vae.views_of(held_out, side)
    figures: Found = {
        "round_trip": light_vae.round_trips(operator.model, operator.look, views),
        "bands": [asdict(one) for one in light_vae.bands(operator.model, operator.look, side)],
    }
    if isinstance(operator.look, DualLook):
        figures["heads"] = asdict(light_vae.heads(operator.model, operator.look, views))
    trained = Trained(source.pooled(recipe.schedule.batch), scenes_of(data, held_out=False), side)
    return figures | _plain(run_prompts(method.draw, held_out, trained, count, side, update))


def _plain(prompted: Prompted) -> Found:
    return {
        "words": {word: asdict(chosen) for word, chosen in prompted.words.items()},
        "hits": prompted.hits,
        "classifier": prompted.sure,
        "peaks": {name: asdict(peaks) for name, peaks in prompted.peaks.items()},
        "memory": asdict(prompted.memory),
        "seams": [asdict(seam) for seam in prompted.seams],
    }


def _rows(figures: Found) -> list[tuple[str, str, str, str]]:
    rows: list[tuple[str, str, str, str]] = []
    for word, chosen in figures["words"].items():
        others = ", ".join(f"{name} {times}" for name, times in chosen["taken_for"].items())
        rows.append(("word", word, f"{chosen['hits']} of {chosen['pictures']}", others))
    hits, pictures = figures["hits"]
    rows.append(("words", "all", f"{hits} of {pictures}", f"the classifier itself {figures['classifier']:.2f}"))
    for name, peaks in figures["peaks"].items():
        values = peaks["values"]
        rows.append(("peak", name, f"{peaks['met']:.0%}", f"{values[0]:.2f} to {values[-1]:.2f}"))
    memory = figures["memory"]
    rows.append(("nearest", "least, median", f"{memory['least']:.2f}, {memory['median']:.2f}", "stops RMS"))
    rows.append(("nearest", "own yaws", f"{memory['own_yaws']:.2f}", f"{memory['known']} known"))
    rows += [("seam", "", f"{s['ratio']:.2f}", f"rank {s['rank']:.2f}") for s in figures["seams"]]
    rows += [("round trip", curve, f"{psnr:.1f} dB", "") for curve, psnr in figures["round_trip"].items()]
    for band in figures["bands"]:
        run, gaps = band["run"], band["gaps"]
        rows.append(("bands", f"{band['stops']:+.0f} EV", f"run {run[0]}, {run[1]}", f"{gaps[0]:.2f}, {gaps[1]:.2f}"))
    if heads := figures.get("heads"):
        rows.append(("heads", "tone-mapped, linear", f"{heads['tone_mapped']:.1f}, {heads['linear']:.1f} dB", ""))
        rows.append(("heads", "shift", str(tuple(heads["shift"])), ""))
        rows.append(("heads", "half of latents 0", f"{heads['halved']:.1f} dB", "linear"))
    return rows
