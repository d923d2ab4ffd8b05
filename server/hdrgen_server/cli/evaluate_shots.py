"""`hdrgen evaluate --flicker` and `--temporal`: what methods make of pans over time, as a table or one object.

It owns loading the methods and the tables. It must not know figures, nor scores of single plates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TypeVar

from hdrgen_server.cli import console, scored
from hdrgen_server.settings import Settings
from nuke_hdrgen.wire.errors import BadParameter

if TYPE_CHECKING:
    from hdrgen_server.evaluate.panned import ShotMethod, Steadiness
    from hdrgen_server.evaluate.temporal import Against
    from hdrgen_server.training.scenes import Scene

T = TypeVar("T")
COLUMNS = ("flicker", "flutter", "frame_to_frame", "peak", "range_stops")


@dataclass(frozen=True, eq=False)
class Pans:
    """The methods by name, and what each is run on: `count` pans over the scenes under each tone curve."""

    methods: Mapping[str, ShotMethod]
    scenes: Sequence[Scene]
    curves: tuple[str, ...]
    count: int
    jod: bool


def load(names: Sequence[str], settings: Settings, options: scored.Options, asked: scored.Asked, *, jod: bool) -> Pans:
    """All that is asked for; what can be refused is, before any method runs.

    Raises BadParameter, LicenceNotAccepted, and BadInput for no scenes, a pack that is broken, and JOD without `cvvdp`.
    """
    from hdrgen_server.evaluate.jod import require
    from hdrgen_server.evaluate.sdr_protocol import KINDS
    from hdrgen_server.training.scenes import load_scenes

    other = next((kind for kind in asked.kinds if kind not in KINDS), None)
    if other is not None:
        raise BadParameter(f"pans have no kind {other!r}; there are: {', '.join(KINDS)}")
    if jod:
        require()
    scenes = load_scenes(asked.folder, held_out=True)
    methods = {name: scored.shot_method(name, settings, options) for name in names}
    return Pans(methods, scenes, asked.kinds, asked.count, jod)


def answer(pans: Pans, *, flicker: bool, as_json: bool) -> None:
    """Print the flicker of the plates and of each method's results, or each method's figures over time."""
    if flicker:
        _flicker(pans, as_json=as_json)
    else:
        _temporal(pans, as_json=as_json)


def _flicker(pans: Pans, *, as_json: bool) -> None:
    from hdrgen_server.evaluate.panned import steadiness

    def of_curve(method: ShotMethod, curve: str) -> list[Steadiness]:
        return steadiness(method, pans.scenes, curve, pans.count)

    shots = _each(pans, of_curve)
    if as_json:
        record = [{"method": n, "kind": k, "scene": s.scene, "source": s.source, "result": s.result, "ratio": s.ratio}
                  for n, k, s in shots]  # fmt: skip
        console.emit_json({"flicker": record})
        return
    rows: list[tuple[str, ...]] = [("method", "kind", "scene", "source", "result", "ratio")]
    rows += [(n, k, s.scene, f"{s.source:.5f}", f"{s.result:.5f}", f"{s.ratio:.3f}") for n, k, s in shots]
    console.table(rows)


def _temporal(pans: Pans, *, as_json: bool) -> None:
    """In brackets are the truth's figures, and beside the JOD of the whole shot the mean of its frames as images."""
    from hdrgen_server.evaluate.panned import over_time

    def of_curve(method: ShotMethod, curve: str) -> list[Against]:
        return over_time(method, pans.scenes, curve, pans.count, jod=pans.jod)

    shots = _each(pans, of_curve)
    if as_json:
        console.emit_json({"temporal": [{"method": n, "kind": k, **asdict(shot)} for n, k, shot in shots]})
        return
    rows: list[tuple[str, ...]] = [("method", "kind", "scene", "psnr", *COLUMNS, *(("jod",) if pans.jod else ()))]
    for name, curve, shot in shots:
        pairs = [f"{getattr(shot.result, c):.4g} ({getattr(shot.truth, c):.4g})" for c in COLUMNS]
        if shot.jod is not None:
            pairs.append(f"{shot.jod.video:.3f} ({shot.jod.images:.3f})")
        rows.append((name, curve, shot.scene, f"{shot.psnr:.2f}", *pairs))
    console.table(rows)


def _each(pans: Pans, of_curve: Callable[[ShotMethod, str], list[T]]) -> list[tuple[str, str, T]]:
    """Every method under every curve, with its name and the curve's, shot by shot."""
    found: list[tuple[str, str, T]] = []
    for name, method in pans.methods.items():
        with console.progress(name) as update:
            for index, curve in enumerate(pans.curves):
                update(curve, index, len(pans.curves))
                found += [(name, curve, shot) for shot in of_curve(method, curve)]
    return found
