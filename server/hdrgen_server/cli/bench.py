"""`hdrgen bench`: the wire against a bare socket, EXR libraries against each other, or one pack's speed."""

from __future__ import annotations

import importlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from hdrgen_server.cli import console
from nuke_hdrgen.wire.errors import BadInput

Json = Annotated[bool, typer.Option("--json", help="Print one machine-readable object.")]


@dataclass(frozen=True)
class Timing:
    """One measurement: the best and the spread of its repetitions, in milliseconds."""

    what: str
    best_ms: float
    median_ms: float
    worst_ms: float


def command(
    what: Annotated[str, typer.Argument(metavar="wire|exr|PACK[:final]", help="What to measure.")],
    width: Annotated[int, typer.Option(min=64, max=16384)] = 4096,
    height: Annotated[int, typer.Option(min=64, max=16384)] = 2160,
    repeat: Annotated[int, typer.Option(min=1, max=100)] = 5,
    as_json: Json = False,
) -> None:
    """Measure, in one run, so that the figures can be compared with each other."""
    if what == "wire":
        report = _wire(width, height, repeat)
    elif what == "exr":
        report = bench_exr(width, height, repeat)
    else:
        report = _system(what, width, height, repeat)
    if as_json:
        console.emit_json(report)
        return
    rows: list[tuple[str, ...]] = [("what", "best ms", "median ms", "worst ms")]
    rows += [(t["what"], *(f"{t[k]:.1f}" for k in ("best_ms", "median_ms", "worst_ms"))) for t in report["timings"]]
    console.table(rows)
    for name, value in report.get("ratios", {}).items():
        console.answer(f"{name}: {value}")


def measure(what: str, repeat: int, run: Callable[[], object]) -> Timing:
    """Time `run` after one call that does not count."""
    run()
    times: list[float] = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return Timing(what, min(times), statistics.median(times), max(times))


def bench_exr(width: int, height: int, repeat: int) -> dict[str, Any]:
    """Write and read one half RGBA frame as ZIP by OpenEXR and by OpenImageIO, alternating files in one
    folder.
    """
    import OpenEXR
    import OpenImageIO

    rng = np.random.default_rng(1)
    ramp = np.linspace(0, 4, width, dtype=np.float32)[None, :, None]
    noise = 0.03 * rng.standard_normal((height, width, 4), np.float32)
    pixels = (ramp * (1 + noise)).astype(np.float16)
    with tempfile.TemporaryDirectory(prefix="hdrgen-bench-") as folder:
        ours, theirs = str(Path(folder, "ours.exr")), str(Path(folder, "theirs.exr"))
        header = {"type": OpenEXR.scanlineimage, "compression": OpenEXR.ZIP_COMPRESSION}

        def write_theirs() -> None:
            spec = OpenImageIO.ImageSpec(width, height, 4, "half")
            spec.attribute("compression", "zip")
            output: Any = OpenImageIO.ImageOutput.create(theirs)
            output.open(theirs, spec)
            output.write_image(pixels)
            output.close()

        def read_theirs() -> None:
            source: Any = OpenImageIO.ImageInput.open(theirs)
            source.read_image("half")
            source.close()

        timings = (
            measure("OpenEXR write", repeat, lambda: OpenEXR.File(header, {"RGBA": pixels}).write(ours)),
            measure("OpenImageIO write", repeat, write_theirs),
            measure("OpenEXR read", repeat, lambda: OpenEXR.File(ours).channels()["RGBA"].pixels),
            measure("OpenImageIO read", repeat, read_theirs),
        )
    write, write_oiio, read, read_oiio = timings
    return {
        "width": width,
        "height": height,
        "timings": [asdict(timing) for timing in timings],
        "ratios": {"OpenImageIO / OpenEXR write": _ratio(write_oiio, write), "read": _ratio(read_oiio, read)},
    }


def _ratio(top: Timing, bottom: Timing) -> str:
    low, high = top.best_ms / bottom.worst_ms, top.worst_ms / bottom.best_ms
    return f"{top.median_ms / bottom.median_ms:.2f} ({low:.2f} to {high:.2f})"


def _wire(width: int, height: int, repeat: int) -> dict[str, Any]:
    """A float RGBA frame through `echo`, against the same bytes echoed by a bare Unix socket."""
    folder = Path(__file__).resolve().parents[3] / "benchmarks"
    if not (folder / "bench_wire.py").is_file():
        raise BadInput(f"{folder} has no bench_wire.py: the wire benchmark comes with a checkout; run it from one")
    sys.path.insert(0, str(folder))  # its helper process imports it by name too
    report: dict[str, Any] = importlib.import_module("bench_wire").run(width=width, height=height, repeat=repeat)
    timings = [
        asdict(Timing(what, found["best"], found["median"], found["worst"]))
        for what, found in (("bare socket", report["bare_ms"]), ("echo through the sidecar", report["echo_ms"]))
    ]
    ratio = f"{report['ratio']} ({report['ratio_best']} to {report['ratio_worst']})"
    return report | {"timings": timings, "ratios": {"echo / bare": ratio, "hello, s from start": report["hello_s"]}}


def _system(name: str, width: int, height: int, repeat: int) -> dict[str, Any]:
    """A synthetic three-shot bracket through the pack's operator, in this process, on the CPU or the set device."""
    from hdrgen_server.cli.direct import load_operator, run_operator
    from hdrgen_server.colour.curves import CURVES
    from hdrgen_server.contracts.frame import Colourspace, Frame
    from hdrgen_server.packs.registry import load_registry
    from hdrgen_server.settings import load_settings

    settings = load_settings()
    name, _, quality = name.partition(":")
    pack = load_registry(settings).get(name)
    operator = load_operator(pack, "cpu" if settings.device == "auto" else settings.device)
    rng = np.random.default_rng(1)
    light = np.linspace(0.01, 4, width, dtype=np.float32)[None, :, None] * rng.uniform(0.5, 1, (height, 1, 3))
    space = Colourspace("srgb_rec709_scene", "srgb_rec709_scene", None, "encoded")
    frames: list[Frame] = []
    for ev in (-2.0, 0.0, 2.0):
        codes: Any = CURVES["srgb"].encode(np.clip(light * 2.0**ev, 0, 1))
        pixels = np.ascontiguousarray(np.round(codes * 255) / 255, dtype=np.float32)
        frames.append(Frame(pixels, ("R", "G", "B"), space, ev=ev, metadata={"bits": 8}))
    operation = pack.descriptor.operations[0]
    quality = quality or "draft"
    what = f"{pack.name} {quality} {width}x{height}"
    timing = measure(what, repeat, lambda: run_operator(operator, operation, frames, {}, quality))
    return {"width": width, "height": height, "timings": [asdict(timing)]}
