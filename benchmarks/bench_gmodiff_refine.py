"""What stage two of GMODiff costs, against the plain diffusers way with the same weights, dtype and machine.

`python benchmarks/bench_gmodiff_refine.py PACK [SIDE] [DEVICE] [DTYPE]`, PACK a folder with a second stage. The plain
way encodes, denoises and decodes the whole image with the stock classes as they come: default allocator, default memory
format, adapters unmerged. Each runs in a process of its own, once to warm up and then timed; CPU seconds are what to
compare on a machine that others use too. `psnr_db` compares both gain maps.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

REPEAT = 2


def main(arguments: list[str]) -> None:
    """Run both and print one JSON object."""
    pack, side, device, dtype = (arguments + ["512", "cpu", "float32"][len(arguments) - 1 :])[:4]
    with tempfile.TemporaryDirectory(prefix="hdrgen-bench-") as folder:
        found: dict[str, object] = {"side": int(side), "device": device, "dtype": dtype}
        maps: list[np.ndarray] = []
        for way in ("plain", "ours"):
            output = Path(folder, f"{way}.npy")
            command = [sys.executable, __file__, "--way", way, pack, side, device, dtype, str(output)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[way] = json.loads(done.stdout.splitlines()[-1])
            maps.append(np.load(output))
    error = float(np.mean((maps[0] - maps[1]) ** 2))
    found["psnr_db"] = round(-10 * np.log10(max(error, 1e-12)), 1)
    print(json.dumps(found, indent=1))


def one_way(way: str, pack: str, side: int, device: str, dtype: str, output: str) -> None:
    """Time one way and write its gain map."""
    if way == "ours":
        from hdrgen_server.worker.malloc import tune_malloc

        tune_malloc()
    import torch

    torch.set_num_threads(1)
    from hdrgen_server.networks.nafnet import in_channels_last
    from hdrgen_server.packs.manifest import read_pack
    from hdrgen_server.systems.gmodiff.refine.choice import refiner_config
    from hdrgen_server.systems.gmodiff.refine.loading import load_base, load_refined
    from hdrgen_server.systems.gmodiff.refine.lora import merge_lora

    folder = read_pack(Path(pack))
    config = refiner_config(folder)
    assert config is not None
    refiner = load_base(config, folder.path)
    load_refined(refiner, folder.path)
    if way == "ours":
        merge_lora(refiner)
        in_channels_last(refiner)
    refiner.eval().requires_grad_(False).to(torch.device(device), getattr(torch, dtype))
    run = _ours(refiner, side, device) if way == "ours" else _plain(refiner, side, device)
    run()
    times: list[tuple[float, float]] = []
    for _ in range(REPEAT):
        wall, cpu = time.perf_counter(), time.process_time()
        gain = run()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    np.save(output, gain)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    seconds, cpu_seconds = (round(min(t[i] for t in times), 2) for i in (0, 1))
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_gib": round(peak, 2)}))


def _maps(refiner, side: int):
    from hdrgen_server.systems.gmodiff.config import CONFIGS
    from hdrgen_server.systems.gmodiff.refine.initial import Initial

    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side] / 40
    wave = (0.5 + 0.4 * np.sin(rows + 2 * np.cos(columns)))[..., None].astype(np.float32).repeat(3, 2)
    regressor = CONFIGS[refiner.config.regressor]
    cell = int(np.prod(regressor.strides))
    pooled = rng.standard_normal((regressor.feature_channels, side // cell, side // cell)).astype(np.float32)
    return Initial(wave, np.ones((side, side), np.float32), 1 - wave, pooled, cell)


def _ours(refiner, side: int, device: str):
    import torch

    from hdrgen_server.systems.gmodiff.final import SecondStage
    from hdrgen_server.systems.gmodiff.refine.frame import FrameRefiner

    initial, tiling = _maps(refiner, side), SecondStage(refiner, device).tiling(0, 0)
    return lambda: FrameRefiner(refiner, initial, tiling, torch.device(device), lambda done, total: None).run()


def _plain(refiner, side: int, device: str):
    import torch
    from torch.nn.functional import avg_pool2d

    initial, dtype = _maps(refiner, side), refiner.unet.dtype

    def planes(pixels_hwc: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(pixels_hwc).movedim(-1, 0)[None].to(device, dtype)

    @torch.inference_mode()
    def run() -> np.ndarray:
        gain, mask, under = (planes(x) for x in (initial.gain_hwc, initial.mask_hw[..., None], initial.under_hwc))
        pooled = torch.from_numpy(initial.pooled_chw)[None].to(device, dtype)
        prior = refiner.prior(avg_pool2d(pooled, refiner.config.token // initial.cell))
        return refiner(gain, mask, under, prior)[0].movedim(0, 2).float().cpu().numpy()

    return run


if __name__ == "__main__":
    if sys.argv[1] == "--way":
        one_way(sys.argv[2], sys.argv[3], int(sys.argv[4]), *sys.argv[5:8])
    else:
        main(sys.argv[1:])
