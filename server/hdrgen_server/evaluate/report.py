"""Tables and contact sheets of what the protocol found.

It owns their form: Markdown, JSON and PNG. It must not know how anything is scored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hdrgen_server.colour.interop import colourspace
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.evaluate.protocol import FIGURES, Summary
from hdrgen_server.image.files import write_beside
from hdrgen_server.image.preview import exposure_ladder, save_png, tile_sheet

Results = Mapping[str, Mapping[str, Summary]]
"""Method name to kind name to summary."""

SHEET_STOPS = (0.0, -4.0)
TILE_WIDTH = 240


def markdown_table(results: Results) -> str:
    """One row a method, one column a kind: PSNR±s.e. / SSIM / JOD±s.e. / delta E / clipped RMSE (bias)."""
    kinds = list(dict.fromkeys(kind for row in results.values() for kind in row))
    lines = [f"| method | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    lines.extend(
        f"| {method} | {' | '.join(_cell(row[kind]) if kind in row else '–' for kind in kinds)} |"
        for method, row in results.items()
    )
    return "PU21-PSNR / PU21-SSIM / JOD / delta E ITP / clipped RMSE (bias) in stops\n\n" + "\n".join(lines) + "\n"


def _cell(summary: Summary) -> str:
    mean, error = summary.mean, summary.error
    jod = f"{mean['jod']:.2f}±{error['jod']:.2f}" if math.isfinite(mean["jod"]) else "–"
    return (
        f"{mean['psnr']:.1f}±{error['psnr']:.1f} / {mean['ssim']:.3f} / {jod} / {mean['delta_e']:.1f} / "
        f"{mean['clip_rmse']:.2f}({mean['clip_bias']:+.2f})"
    )


def as_json(results: Results) -> dict[str, Any]:
    """The same as plain data: mean, s.e. and every image's figures; a figure that does not exist is null."""
    return {
        method: {
            kind: {
                "mean": {name: _number(summary.mean[name]) for name in FIGURES},
                "standard_error": {name: _number(summary.error[name]) for name in FIGURES},
                "images": [{name: _number(getattr(one, name)) for name in FIGURES} for one in summary.scores],
            }
            for kind, summary in row.items()
        }
        for method, row in results.items()
    }


def degradation_table(results: Results) -> str:
    """One row an operator, one column a method: mean PU21-PSNR at each CRF of the degradations; "" without any.

    Beside methods that were scored on all operators, a column `left out` has the figures of those that were scored on
    that operator alone, and how much lower they are than the first method's on average.
    """
    kinds = list(dict.fromkeys(k for row in results.values() for k in row if "/" in k))
    operators = list(dict.fromkeys(kind.split("/")[0] for kind in kinds))
    crfs = list(dict.fromkeys(kind.split("/")[1] for kind in kinds))
    whole = [name for name, row in results.items() if all(kind in row for kind in kinds)]
    if not kinds:
        return ""
    parts = [name for name in results if name not in whole]
    heads = ["operator", *whole, *(["left out", "lower by"] if parts else [])]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for operator in operators:

        def psnr(name: str, of: str = operator) -> list[float]:
            return [results[name][f"{of}/{crf}"].mean["psnr"] for crf in crfs if f"{of}/{crf}" in results[name]]

        cells = [operator, *(_figures(psnr(name)) for name in whole)]
        own = next((found for found in map(psnr, parts) if found), [])
        if parts:
            lower = f"{np.mean(psnr(whole[0])) - np.mean(own):.1f}" if own and whole else "–"
            cells += [_figures(own), lower]
        lines.append(f"| {' | '.join(cells)} |")
    return f"PU21-PSNR at CRF {' / '.join(crfs)}\n\n" + "\n".join(lines) + "\n"


def _figures(values: Sequence[float]) -> str:
    return " / ".join(f"{value:.1f}" for value in values) or "–"


def _number(value: float) -> float | None:
    return round(value, 5) if math.isfinite(value) else None


def write_report(results: Results, folder: Path) -> tuple[Path, Path]:
    """Write `report.md` and `report.json` into an existing folder. Raises StorageError."""
    table, data = folder / "report.md", folder / "report.json"
    tables = (markdown_table(results), degradation_table(results))
    write_beside(table, "\n".join(filter(None, tables)).encode())
    write_beside(data, json.dumps(as_json(results), indent=1).encode())
    return table, data


def write_sheet(images: Sequence[tuple[str, npt.NDArray[Any]]], path: Path) -> None:
    """A PNG with each named scene-linear Rec.709 (H, W, 3) image at 0 and at -4 stops, one image a row.

    Raises StorageError.
    """
    space = colourspace("lin_rec709_scene")
    tiles: list[tuple[str, npt.NDArray[np.uint8]]] = []
    for name, image in images:
        frame = Frame(np.ascontiguousarray(image, np.float32), ("R", "G", "B"), space)
        tiles.append((name, exposure_ladder(frame, SHEET_STOPS, TILE_WIDTH, len(SHEET_STOPS))))
    save_png(tile_sheet(tiles, 1), path)
