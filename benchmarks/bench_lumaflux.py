"""LumaFlux at the published widths and a reduced depth, end to end from a diffusers folder, with random weights.

`python benchmarks/bench_lumaflux.py [SIDE] [DEVICE] [DOUBLE] [SINGLE] [STEPS]`, by default 512 cpu 2 4 8. A process of
its own writes the folder (bfloat16; 2 + 4 blocks are 3.5 GB on disk); another loads it through the pack's loader and
converts one plate. On a GPU, `1080 cuda 19 38 8` is the published size: a frame of 1920 x 1080 in 5.3 s and 27 GB is
what its authors state. Prints one JSON object; CPU seconds are what to compare on a machine that others use too.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

FILES = {
    "transformer": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "siglip": "model.safetensors",
}
DEFAULTS = ("512", "cpu", "2", "4", "8")


def main(arguments: list[str]) -> None:
    """Write, then run, each in its own process."""
    side, device, double, single, steps = (*arguments, *DEFAULTS[len(arguments) :])
    with tempfile.TemporaryDirectory(prefix="hdrgen-bench-") as folder:
        subprocess.run([sys.executable, __file__, "--write", folder, double, single], check=True)
        command = [sys.executable, __file__, "--run", folder, double, single, side, device, steps]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    print(done.stdout.splitlines()[-1])


def configured(double: int, single: int):
    """The published configuration at this depth, under the name `published`."""
    from types import MappingProxyType

    from hdrgen_server.systems.lumaflux import operator
    from hdrgen_server.systems.lumaflux.config import CONFIGS

    published = CONFIGS["published"]
    config = replace(published, flux=replace(published.flux, layers=double, single_layers=single))
    operator.CONFIGS = MappingProxyType({"published": config})
    return config


def write(folder: Path, double: int, single: int) -> None:
    """A pack's folder of random networks in bfloat16."""
    import torch
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from safetensors.torch import save_file
    from transformers import SiglipVisionConfig, SiglipVisionModel

    from hdrgen_server.packs.add import finished_manifest
    from hdrgen_server.packs.assemble import MANIFEST
    from hdrgen_server.systems.lumaflux.adapters import Adapters

    config = configured(double, single)
    with torch.device("meta"):
        networks = {
            "transformer": FluxTransformer2DModel(**config.flux.arguments()),
            "vae": AutoencoderKL(**config.vae_arguments()),
            "siglip": SiglipVisionModel(SiglipVisionConfig(**config.encoder.arguments())),
        }
    noise = (0.02 * torch.randn(1 << 20)).to(torch.bfloat16)
    for name, network in networks.items():
        state = {key: noise.repeat(-(-t.numel() // len(noise)))[: t.numel()] for key, t in network.state_dict().items()}
        shaped = {key: state[key].reshape(t.shape).clone() for key, t in network.state_dict().items()}
        if name == "siglip":
            network.config.save_pretrained(folder / name)
        else:
            network.save_config(folder / name)
        save_file(shaped, folder / name / FILES[name], metadata={"format": "pt"})
    save_file(Adapters(config).state_dict(), folder / "adapters.safetensors")
    (folder / "pack.toml").write_text(MANIFEST.format(name="bench"), encoding="utf-8")
    (folder / "pack.toml").write_bytes(finished_manifest(folder))


def run(folder: Path, double: int, single: int, side: int, device: str, steps: int) -> None:
    """Load and convert one plate; print what it took."""
    import torch

    from hdrgen_server.colour.interop import colourspace
    from hdrgen_server.contracts.frame import Frame
    from hdrgen_server.contracts.operator import Request
    from hdrgen_server.packs.manifest import read_pack
    from hdrgen_server.systems.lumaflux.operator import create

    configured(double, single)
    started = time.monotonic()
    operator = create(read_pack(folder), device)
    loaded = time.monotonic() - started
    size = (1080, 1920) if side == 1080 else (side, side)
    codes = np.random.default_rng(1).uniform(0, 1, (*size, 3)).astype(np.float32)
    frame = Frame(codes, ("R", "G", "B"), colourspace("srgb_rec709_scene"))
    request = Request("sdr2hdr", operator.descriptor.resolve({"steps": steps}), aovs=True)
    started, busy = time.monotonic(), time.process_time()
    (result,) = operator.run(request, iter([frame]), Quiet())
    found = {
        "blocks": [double, single],
        "size": list(size),
        "steps": steps,
        "device": device,
        "load_s": round(loaded, 1),
        "wall_s": round(time.monotonic() - started, 1),
        "cpu_s": round(time.process_time() - busy, 1),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "finite": bool(np.isfinite(result.pixels).all()),
    }
    if device.startswith("cuda"):
        found["peak_cuda_mib"] = torch.cuda.max_memory_allocated() // (1 << 20)
    print(json.dumps(found))


class Quiet:
    """A progress that says nothing."""

    def step(self, done: int, total: int, frame: int = 0) -> None:
        """Nothing."""
        del done, total, frame


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    elif sys.argv[1:2] == ["--run"]:
        run(Path(sys.argv[2]), *map(int, sys.argv[3:6]), sys.argv[6], int(sys.argv[7]))
    else:
        main(sys.argv[1:])
