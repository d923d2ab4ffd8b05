"""`hdrgen evaluate --exposures`: what each pack's exposure head is worth, as a table or one object.

It owns loading the packs and the table. It must not know figures, nor scores of results.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

from hdrgen_server.cli import console
from hdrgen_server.cli.direct import load_operator
from hdrgen_server.cli.scored import FINAL, pack_of
from hdrgen_server.packs import licence
from hdrgen_server.packs.registry import load_registry
from hdrgen_server.settings import Settings

CROP = 192
COLUMNS = ("clip_gain_db", "disagreement", "worst", "views")


def answer(names: list[str], folder: Path, settings: Settings, *, as_json: bool) -> None:
    """Print the figures of packs of latenthdr. Raises BadParameter for another pack, BadInput for no panoramas."""
    found: dict[str, dict[str, float]] = {}
    for name in names:
        with console.progress(name) as update:
            update("exposures", 0, 1)
            found[name] = _figures(name, folder, settings)
    if as_json:
        plain = {n: {k: v if math.isfinite(v) else None for k, v in row.items()} for n, row in found.items()}
        console.emit_json({"exposures": plain})
        return
    rows: list[tuple[str, ...]] = [("pack", *COLUMNS)]
    rows += [(name, *(f"{row[column]:.4g}" for column in COLUMNS)) for name, row in found.items()]
    console.table(rows)


def _figures(name: str, folder: Path, settings: Settings) -> dict[str, float]:
    from hdrgen_server.evaluate.stacked import head_figures
    from hdrgen_server.training.exposures import ExposureSource

    pack = pack_of(name, settings) or load_registry(settings).get(name.removesuffix(FINAL))
    licence.require(pack, settings)
    operator = load_operator(pack, "cpu" if settings.device == "auto" else settings.device)
    return asdict(head_figures(operator, name, ExposureSource(folder, CROP).held_out()))
