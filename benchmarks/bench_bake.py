"""Measures a bake in Nuke's main thread and beside its own parts: `python -m benchmarks.bench_bake`.

Figures: how long each call that the bake leaves for Nuke's main thread holds it outside `nuke.execute`; and a range
with two lanes against one lane, which is what a bake without overlap would be, in turns in one run.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "server")]

from nuke_hdrgen.client.launch import PrivateSidecar, Start  # noqa: E402
from tests.fakes.nuke.api import FakeNuke  # noqa: E402

FRAMES = 8
ROUNDS = 3
SIZE = (1080, 1920)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
            os.environ[name] = folder
        command = [sys.executable, "-m", "hdrgen_server.gateway", "--device", "cpu"]
        with PrivateSidecar(Start(command), "bench") as sidecar:
            os.environ["HDRGEN_SERVER"] = str(sidecar.connection.peer.endpoint.address)
            measure(folder)


def measure(folder: str) -> None:
    nuke = FakeNuke(gui=True)
    sys.modules["nuke"] = nuke
    sys.modules["nukescripts.panels"] = None  # type: ignore[assignment]
    nuke.start([ROOT])
    import nuke_hdrgen.host.baking as baking

    nuke.root()["colorManagement"].setValue("Nuke")
    ramp = np.clip(np.linspace(0.0, 1.6, SIZE[1], dtype=np.float32), 0.0, 1.0)
    picture = np.ones((*SIZE, 4), np.float32)
    picture[..., :3] = ramp[None, :, None]
    plate = nuke.plate(lambda frame: picture * np.float32(1.0 - frame * 1e-6), "Plate1")
    node = nuke.createNode("SDR2HDR", inpanel=False)
    node.setInput(0, plate)
    nuke.scriptSaveAs(f"{folder}/shot.nk")
    times: dict[int, list[float]] = {1: [], 2: []}
    first = 1
    for turn in range(ROUNDS + 1):
        for lanes in (1, 2):
            baking.LANES = lanes
            node["range"].setValue(f"{first}-{first + FRAMES - 1}")
            first += FRAMES
            started = time.perf_counter()
            node["bake_range"].execute()
            nuke.run_events(lambda: not busy() and not nuke.main_thread().pending(), 600)
            if turn:  # the first turn loads the pack
                times[lanes].append(time.perf_counter() - started)
    assert not nuke.messages, nuke.messages
    blocked = sorted(1000 * call.blocked for call in nuke.main_thread().calls)
    print(f"main thread, {len(blocked)} calls outside execute: median {statistics.median(blocked):.2f} ms, "
          f"99th percentile {blocked[int(0.99 * len(blocked))]:.2f} ms, longest {blocked[-1]:.2f} ms")  # fmt: skip
    for call in sorted(nuke.main_thread().calls, key=lambda call: -call.blocked)[:5]:
        print(f"  {1000 * call.blocked:.1f} ms {call.name}")
    for lanes, several in times.items():
        spread = ", ".join(f"{value:.2f}" for value in several)
        print(f"{FRAMES} frames of {SIZE[1]}x{SIZE[0]}, {lanes} lane(s): {statistics.median(several):.2f} s ({spread})")
    ratios = [one / two for one, two in zip(times[1], times[2], strict=True)]
    print(f"one lane / two lanes: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def busy() -> bool:
    return any(thread.name.startswith("hdrgen") for thread in threading.enumerate())


if __name__ == "__main__":
    main()
