"""What stage two of GMODiff costs, against the plain diffusers way with the same weights, dtype and machine.

`python -m benchmarks.bench_gmodiff_refine [--pack FOLDER] [--size 1920x1080] [--device cpu] [--dtype float32]
[--repeat 1] [--warm]`; without a pack one is made with random weights, `--config sd21` or `s`. The plain way encodes,
denoises and decodes the whole image with the stock classes as they come: default allocator, default memory format,
adapters unmerged, no tiles. Each way runs in a process of its own on one thread, which is loaded first and not timed.
CPU seconds are what to compare on a machine that others use too; `db` compares both gain maps. `steps` is what 50
denoising steps of the same network would take against the one step, with the decoder, from the phases' own times;
`--loop` takes the 50 steps.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

PHASES = ("features", "latent", "condition_latent", "denoise", "decode")
STEPS = 50
COMMAND = (sys.executable, "-m", "benchmarks.bench_gmodiff_refine")
MANIFEST = """format = 1
name = "gmodiff-random"
system = "gmodiff"
licence = "Apache-2.0"

[options]
config = "{config}"
refine = "{refine}"
"""


def main() -> None:
    """Run both ways and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", type=Path, help="folder with a second stage")
    parser.add_argument("--config", default="sd21", choices=("sd21", "s"), help="what to make without a pack")
    parser.add_argument("--loop", action="store_true", help="take 50 steps, and one, and nothing else")
    parser.add_argument("--size", default="1920x1080", help="WIDTHxHEIGHT")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--warm", action="store_true", help="one run of each way before the timed ones")
    parser.add_argument("--way", choices=("plain", "ours", "write"), help=argparse.SUPPRESS)
    parser.add_argument("--output", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way == "write":
        write_random_pack(given.pack, given.config)
        return
    if given.way:
        one_way(given)
        return
    with tempfile.TemporaryDirectory(prefix="hdrgen-bench-") as folder:
        if given.pack is None:
            given.pack = Path(folder, "pack")
            subprocess.run(
                [*COMMAND, "--way", "write", "--pack", str(given.pack), "--config", given.config], check=True
            )
        if given.loop:
            print(json.dumps(looped(given), indent=1))
            return
        print(json.dumps(compare(given, Path(folder)), indent=1))


def compare(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Both ways' figures, one after the other, and how they relate."""
    report: dict[str, Any] = {"size": given.size, "device": given.device, "dtype": given.dtype}
    maps: list[np.ndarray] = []
    for way in ("plain", "ours"):
        output = folder / f"{way}.npy"
        command = [*COMMAND, "--way", way, "--output", str(output)]
        for name in ("pack", "size", "device", "dtype", "repeat"):
            command += [f"--{name}", str(getattr(given, name))]
        command += ["--warm"] if given.warm else []
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        report[way] = json.loads(done.stdout.splitlines()[-1])
        print(way, done.stdout.splitlines()[-1], file=sys.stderr, flush=True)
        maps.append(np.load(output))
    for unit in ("cpu_seconds", "seconds"):
        plain, ours = (report[way][unit] for way in ("plain", "ours"))
        ratios = (np.median(plain) / np.median(ours), min(plain) / max(ours), max(plain) / min(ours))
        report[f"plain / ours, {unit}"] = "{:.2f} ({:.2f} to {:.2f})".format(*ratios)
    error = float(np.mean((maps[0].astype(np.float64) - maps[1]) ** 2))
    report["db"] = round(-10 * np.log10(max(error, 1e-12)), 1)
    return report


def one_way(given: argparse.Namespace) -> None:
    """Time one way, print its figures and write its gain map."""
    if given.way == "ours":
        from hdrgen_server.worker.malloc import tune_malloc

        tune_malloc()
    import torch

    torch.set_num_threads(1)
    device, dtype = torch.device(given.device), getattr(torch, given.dtype)
    refiner = _loaded(given.pack)
    width, height = (int(length) for length in given.size.split("x"))
    prepared = _ours if given.way == "ours" else _plain
    run = prepared(refiner, height, width, device, dtype)
    loaded = _peak_gib()
    if given.way == "ours":
        from hdrgen_server.worker.malloc import return_free_memory

        return_free_memory()
    phases = timed_phases(refiner, device)
    found: dict[str, list[float]] = {"seconds": [], "cpu_seconds": []}
    gain = run() if given.warm else np.zeros(0)
    for _ in range(given.repeat):
        phases.clear()
        wall, cpu = time.perf_counter(), time.process_time()
        gain = run()
        found["seconds"].append(round(time.perf_counter() - wall, 2))
        found["cpu_seconds"].append(round(time.process_time() - cpu, 2))
    np.save(given.output, gain)
    rounded = {name: round(seconds, 2) for name, seconds in phases.items()}
    print(json.dumps({**found, "phases": rounded, "steps": steps_ratio(phases), "loaded_gib": loaded,
                      "peak_gib": _peak_gib(), **_device_peak(device)}))  # fmt: skip


def timed_phases(refiner: Any, device: Any) -> dict[str, float]:
    """CPU seconds (wall seconds on a GPU, waited for) of each of the refiner's methods, added up from now on."""
    import torch

    found: dict[str, float] = {}

    def now() -> float:
        if device.type != "cuda":
            return time.process_time()
        torch.cuda.synchronize(device)
        return time.perf_counter()

    def watched(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            started = now()
            made = method(*arguments)
            found[name] = found.get(name, 0.0) + now() - started
            return made

        return run

    for name in PHASES:
        object.__setattr__(refiner, name, watched(name, getattr(refiner, name)))
    return found


def steps_ratio(phases: dict[str, float]) -> float:
    """Time of 50 denoising steps and the decoder, over that of one step and the decoder."""
    one = phases["denoise"] + phases["decode"]
    return round((STEPS * phases["denoise"] + phases["decode"]) / one, 1)


def looped(given: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds of one denoising step and of 50, each with the decoder, on an image in one piece."""
    import torch

    torch.set_num_threads(1)
    from hdrgen_server.systems.gmodiff.refine.prepare import prepare

    refiner = prepare(_loaded(given.pack), torch.device("cpu"), torch.float32)
    width, height = (int(length) for length in given.size.split("x"))
    gain = torch.rand(1, 3, height, width)
    prior = torch.rand(1, refiner.config.unet.cross_attention_dim, *(n // refiner.config.token for n in gain.shape[2:]))
    found: list[float] = []
    with torch.inference_mode():
        features = refiner.features(gain)
        start, condition = refiner.latent(features), refiner.condition_latent(1 - gain)
        for steps in (1, 1, STEPS):  # the first warms up
            cpu, latent = time.process_time(), start
            for _ in range(steps):
                latent = refiner.denoise(latent, condition, prior)
            refiner.decode(latent, features, prior)
            found.append(time.process_time() - cpu)
    return {"one": round(found[1], 3), "fifty": round(found[2], 3), "ratio": round(found[2] / found[1], 1)}


def write_random_pack(folder: Path, name: str) -> None:
    """A pack of this configuration, base weights in float16, all of it random."""
    import torch
    from safetensors.torch import save_file

    from hdrgen_server.packs.add import finished_manifest
    from hdrgen_server.systems.gmodiff.config import CONFIGS
    from hdrgen_server.systems.gmodiff.refine.config import REFINERS
    from hdrgen_server.systems.gmodiff.refine.loading import LORA_FOLDER, REFINED_FILE, refined_state
    from hdrgen_server.systems.gmodiff.refine.lora import add_lora, save_lora
    from hdrgen_server.systems.gmodiff.refine.model import Refiner
    from hdrgen_server.systems.gmodiff.regressor import Regressor

    folder.mkdir()
    torch.manual_seed(0)
    refiner = Refiner(REFINERS[name]).half()
    refiner.vae.save_pretrained(folder / "vae")
    refiner.unet.save_pretrained(folder / "unet")
    add_lora(refiner)
    save_file(refined_state(refiner), folder / REFINED_FILE)
    save_lora(refiner, folder / LORA_FOLDER)
    regressor = REFINERS[name].regressor
    save_file(Regressor(CONFIGS[regressor]).state_dict(), folder / "regressor.safetensors")
    (folder / "pack.toml").write_text(MANIFEST.format(config=regressor, refine=name))
    (folder / "pack.toml").write_bytes(finished_manifest(folder))


def _loaded(folder: Path) -> Any:
    from hdrgen_server.packs.manifest import read_pack
    from hdrgen_server.systems.gmodiff.refine.choice import refiner_config
    from hdrgen_server.systems.gmodiff.refine.loading import load_base, load_refined

    pack = read_pack(folder)
    config = refiner_config(pack)
    assert config is not None
    refiner = load_base(config, pack.path)
    load_refined(refiner, pack.path)
    return refiner


def _maps(refiner: Any, height: int, width: int) -> Any:
    from hdrgen_server.systems.gmodiff.config import CONFIGS
    from hdrgen_server.systems.gmodiff.refine.initial import Initial

    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width] / 40
    wave = (0.5 + 0.4 * np.sin(rows + 2 * np.cos(columns)))[..., None].astype(np.float32).repeat(3, 2)
    regressor = CONFIGS[refiner.config.regressor]
    cell = int(np.prod(regressor.strides))
    size = (regressor.feature_channels, -(-height // cell), -(-width // cell))
    return Initial(
        wave, np.ones((height, width), np.float32), 1 - wave, rng.standard_normal(size).astype(np.float32), cell
    )


def _ours(refiner: Any, height: int, width: int, device: Any, dtype: Any) -> Callable[[], np.ndarray]:
    from hdrgen_server.systems.gmodiff.final import SecondStage
    from hdrgen_server.systems.gmodiff.refine.prepare import prepare

    initial, second = _maps(refiner, height, width), SecondStage(prepare(refiner, device, dtype), str(device))
    return lambda: second.refine(initial, second.tiling(0, 0), lambda done, total: None)


def _plain(refiner: Any, height: int, width: int, device: Any, dtype: Any) -> Callable[[], np.ndarray]:
    import torch
    from torch.nn.functional import avg_pool2d

    refiner.eval().requires_grad_(False).to(device, dtype)
    initial, multiple = _maps(refiner, height, width), refiner.multiple

    def planes(pixels_hwc: np.ndarray, multiple: int = multiple) -> torch.Tensor:
        missing = [(0, -length % multiple) for length in pixels_hwc.shape[:2]]
        padded = np.pad(pixels_hwc, [*missing, (0, 0)], mode="edge")
        return torch.from_numpy(padded).movedim(-1, 0)[None].contiguous().to(device)

    @torch.inference_mode()
    def run() -> np.ndarray:
        gain, mask, under = (planes(x) for x in (initial.gain_hwc, initial.mask_hw[..., None], initial.under_hwc))
        pooled = planes(initial.pooled_chw.transpose(1, 2, 0), multiple // initial.cell)
        prior = refiner.embeddings(avg_pool2d(pooled, refiner.config.token // initial.cell))
        return refiner(gain, mask, under, prior)[0].movedim(0, 2).float().cpu().numpy()[:height, :width]

    return run


def _peak_gib() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def _device_peak(device: Any) -> dict[str, float]:
    import torch

    return {"device_gib": round(torch.cuda.max_memory_allocated(device) / 2**30, 2)} if device.type == "cuda" else {}


if __name__ == "__main__":
    main()
