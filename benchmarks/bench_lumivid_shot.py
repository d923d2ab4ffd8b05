"""A long shot through LumiVid: seconds a frame, whether memory stays flat, and whether joins of windows show.

Run as `python -m benchmarks.bench_lumivid_shot PACK [--frames 200] [--size 960x540] [--panorama FILE.exr]
[--device cpu] [--set PARAMETER=VALUE]…`. PACK is one of LumiVid's, by name or by folder; NAME:final takes that quality.
It pans over the panorama (over a drawn one where none is named), as 8-bit sRGB cut at diffuse white, and runs the
operator in this process with the worker's allocator. Prints one JSON object.

`rss_mib` is resident memory after each window has given its frames, the first one included; `rss_slope_mib` is the
least-squares slope from the second window on, in MiB a window, and is to be about nothing; `peak_mib` is the process's
highest. Frames and results pass one by one and are not kept.

`joins` is what `hdrgen_server.evaluate.joins` says, and defines: the step at which a window begins to count and the one
at which the window before it has ceased to, over their neighbours' steps, each over the plate's own step there; 1.2 is
the most that is wanted. `steps_over_plate` says how much more or less than its plate the result changes in all.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import psutil

from hdrgen_server.worker.malloc import tune_malloc

SEED = 7
TURN = 0.2


def drawn_panorama() -> np.ndarray:
    """Smooth colours under lamps up to 40 times as bright."""
    rng = np.random.default_rng(SEED)
    y, x = np.mgrid[0:512, 0:1024].astype(np.float32)
    light_hwc = 0.2 + 0.15 * np.sin(x / 19)[..., None] * np.cos(y / 17)[..., None] * rng.uniform(0.5, 1, 3)
    for _ in range(200):
        top, left = rng.integers(0, 490), rng.integers(0, 1000)
        light_hwc[top : top + 20, left : left + 20] *= rng.uniform(2, 40)
    return light_hwc.astype(np.float32)


def pan(panorama_hwc: np.ndarray, frames: int, width: int, height: int) -> Iterator[np.ndarray]:
    """Frames of light, the camera turning evenly; the first one sets the exposure of all."""
    from hdrgen_server.training.views import View, anchor_exposure, perspective

    start = View(yaw=0.0, pitch=0.0, roll=0.0, fov=60.0)
    first = perspective(panorama_hwc, start, height, width)
    gain = np.float32(anchor_exposure(first).sum(dtype=np.float64) / first.sum(dtype=np.float64))
    for number in range(frames):
        yield perspective(panorama_hwc, replace(start, yaw=TURN * number), height, width) * gain


def main(arguments: list[str] | None = None) -> None:
    """Load, run, measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("pack")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--size", default="960x540")
    parser.add_argument("--panorama", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", action="append", default=[], dest="sets")
    given = parser.parse_args(arguments)
    width, height = map(int, given.size.split("x"))
    from hdrgen_server.cli.choice import parse_sets, typed
    from hdrgen_server.cli.direct import Quiet, load_operator
    from hdrgen_server.cli.scored import FINAL, pack_of
    from hdrgen_server.colour.interop import colourspace
    from hdrgen_server.contracts.frame import Frame
    from hdrgen_server.contracts.operator import Request
    from hdrgen_server.evaluate.joins import Steps, joins
    from hdrgen_server.evaluate.sdr_protocol import codes_of
    from hdrgen_server.packs.registry import load_registry
    from hdrgen_server.settings import load_settings
    from hdrgen_server.systems.merge.merge import srgb_decode
    from hdrgen_server.training.scenes import load_scene

    settings = load_settings()
    pack = pack_of(given.pack, settings) or load_registry(settings).get(given.pack.removesuffix(FINAL))
    operator = load_operator(pack, given.device)
    asked = {name: typed(pack, name, text) for name, text in parse_sets(given.sets).items()}
    parameters = operator.descriptor.resolve({"shot_start": 0, **asked})
    plan = operator.descriptor.windows(parameters)
    panorama_hwc = drawn_panorama() if given.panorama is None else load_scene(given.panorama).scene_linear_hwc
    plates, results = Steps(), Steps()

    def frames() -> Iterator[Frame]:
        space = colourspace("srgb_rec709_scene")
        for number, light_hwc in enumerate(pan(panorama_hwc, given.frames, width, height)):
            codes_hwc = codes_of("a", light_hwc)
            plates.take(srgb_decode(codes_hwc))
            yield Frame(codes_hwc, ("R", "G", "B"), space, number=number, metadata={"bits": 8})

    quality = "final" if given.pack.endswith(FINAL) else "draft"
    request = Request("sdr2hdr", parameters, quality=quality, frame_count=given.frames)
    me, rss = psutil.Process(), list[float]()
    started, cpu = time.monotonic(), time.process_time()
    for done, result in enumerate(operator.run(request, frames(), Quiet()), start=1):
        results.take(result.rgb)
        following, inside = divmod(done, plan.hop)
        if done == given.frames or (not inside and plan.exists(following, given.frames)):
            rss.append(me.memory_info().rss / 2**20)
    wall_s, cpu_s = time.monotonic() - started, time.process_time() - cpu
    later = rss[1:]
    slope = float(np.polyfit(range(len(later)), later, 1)[0]) if len(later) > 1 else None
    found = {
        "pack": pack.name, "quality": quality, "device": given.device, "size": [width, height], "frames": given.frames,
        "window": plan.size, "overlap": plan.overlap,
        "panorama": given.panorama.stem if given.panorama else "drawn",
        "wall_s_per_frame": round(wall_s / given.frames, 4), "cpu_s_per_frame": round(cpu_s / given.frames, 4),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "rss_mib": [round(value, 1) for value in rss], "rss_slope_mib": None if slope is None else round(slope, 3),
        "joins": asdict(joins(results.sizes, plates.sizes, plan)),
        "steps_over_plate": round(float(np.median(np.divide(results.sizes, plates.sizes))), 4),
    }  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    tune_malloc()  # before torch is imported
    main()
