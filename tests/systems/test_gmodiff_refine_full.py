"""The published size, end to end from a diffusers folder with random weights, at 1920x1080 in bounded memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.full, pytest.mark.timeout(3 * 3600)]

PEAK_GIB = 15.0
WRITE = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from hdrgen_server.packs.add import finished_manifest
from hdrgen_server.systems.gmodiff.config import CONFIGS
from hdrgen_server.systems.gmodiff.refine.config import REFINERS
from hdrgen_server.systems.gmodiff.refine.loading import LORA_FOLDER, REFINED_FILE, refined_state
from hdrgen_server.systems.gmodiff.refine.lora import add_lora, save_lora
from hdrgen_server.systems.gmodiff.refine.model import Refiner
from hdrgen_server.systems.gmodiff.regressor import Regressor

folder = Path(sys.argv[1])
torch.manual_seed(0)
refiner = Refiner(REFINERS["sd21"]).half()
refiner.vae.save_pretrained(folder / "vae")
refiner.unet.save_pretrained(folder / "unet")
add_lora(refiner)
save_file(refined_state(refiner), folder / REFINED_FILE)
save_lora(refiner, folder / LORA_FOLDER)
save_file(Regressor(CONFIGS["published"]).state_dict(), folder / "regressor.safetensors")
(folder / "pack.toml").write_text(
    'format = 1\\nname = "gmodiff-random"\\nsystem = "gmodiff"\\nlicence = "Apache-2.0"\\n\\n'
    '[options]\\nconfig = "published"\\nrefine = "sd21"\\n'
)
(folder / "pack.toml").write_bytes(finished_manifest(folder))
"""
RUN = """
import json, resource, sys, time
from pathlib import Path
from hdrgen_server.worker.malloc import tune_malloc
tune_malloc()
import numpy as np
import torch
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.contracts.operator import Request
from hdrgen_server.image.tags import SRGB_REC709_SCENE
from hdrgen_server.packs.manifest import read_pack
from hdrgen_server.systems.gmodiff.operator import create
from hdrgen_server.systems.gmodiff.prepare import srgb_codes

class Steps:
    def step(self, done, total, frame=0):
        print(done, total, round(time.monotonic() - started), flush=True, file=sys.stderr)

device, height, width = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
rng = np.random.default_rng(0)
light = (np.linspace(0.01, 4, width)[None, :, None] * rng.uniform(0.5, 1, (height, 1, 3))).astype(np.float32)
codes = {ev: srgb_codes(np.clip(light * 2.0**ev, 0, 1).astype(np.float32)) for ev in (-2.0, 0.0, 2.0)}
frames = [Frame(pixels, ("R", "G", "B"), SRGB_REC709_SCENE, ev=ev) for ev, pixels in codes.items()]
operator = create(read_pack(Path(sys.argv[1])), device)
request = Request("hdrfuse", operator.descriptor.resolve({}), quality="final")
started, cpu = time.monotonic(), time.process_time()
(result,) = operator.run(request, frames, Steps())
print(json.dumps({
    "seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - cpu,
    "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    "finite": bool(np.isfinite(result.rgb).all()), "size": [result.height, result.width],
}))
"""


def run(code: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, check=True, env=environment
    )
    return done.stdout


def test_the_published_size_runs_in_bounded_memory(tmp_path: Path) -> None:
    run(WRITE, str(tmp_path))
    found = json.loads(run(RUN, str(tmp_path), "cpu", "1080", "1920").splitlines()[-1])
    sys.stdout.write(json.dumps(found))
    assert found["finite"]
    assert found["size"] == [1080, 1920]
    assert found["peak_gib"] < PEAK_GIB
