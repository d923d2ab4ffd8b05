"""A 1080p movie through `hdrgen sdr2hdr`: time a frame, how busy each lane was, and memory as frames go by.

Run as `python -m benchmarks.bench_sdr2hdr_movie OUT.mov [--frames 100] [--pack bt2446]`. It makes its own footage, a
pan over a panorama, in a temporary folder, and starts its own sidecar.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import psutil

from hdrgen_server.settings import load_settings
from hdrgen_server.training.scenes import load_scene
from hdrgen_server.training.views import anchor_exposure

SIZE = (1920, 1080)
EVERY_S = 0.5


def footage(path: Path, frames: int, panorama: Path) -> None:
    scene = load_scene(panorama)
    light = anchor_exposure(scene.scene_linear_hwc)
    codes = np.rint(255 * np.clip(light, 0, 1) ** (1 / 2.4)).astype(np.uint8)
    wide = cv2.resize(codes, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(24), options={"crf": "18", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        context = stream.codec_context
        context.color_primaries = context.color_trc = context.colorspace = context.color_range = 1
        for number in range(frames):
            cut = wide[400 : 400 + SIZE[1], 4 * number : 4 * number + SIZE[0]]
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(cut), "rgb24")
            picture = picture.reformat(format="yuv420p", dst_colorspace="ITU709")
            picture.pts = number
            for packet in stream.encode(picture):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)


def resident_mib(pid: int) -> float:
    try:
        return psutil.Process(pid).memory_info().rss / 2**20
    except psutil.NoSuchProcess:
        return 0.0


def watch(run: subprocess.Popen[str], folder: str, seen: list[tuple[float, float, float]]) -> None:
    while run.poll() is None:
        workers = [
            process.pid
            for process in psutil.process_iter(["cmdline"])
            if "hdrgen_server.worker" in (process.info["cmdline"] or [])
            and process.environ().get("XDG_RUNTIME_DIR") == folder
        ]
        seen.append((time.monotonic(), resident_mib(run.pid), sum(map(resident_mib, workers))))
        time.sleep(EVERY_S)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output")
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--pack", default="bt2446")
    parser.add_argument("--data", type=Path, default=load_settings().data_folder / "hdri")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in.mp4"
        footage(source, given.frames, given.data / "lebombo.exr")
        environment = {**os.environ, "XDG_RUNTIME_DIR": folder, "HDRGEN_IDLE_EXIT_S": "20", "HDRGEN_DEVICE": "cpu"}
        command = [str(Path(sys.executable).parent / "hdrgen"), "sdr2hdr", str(source), "-o", given.output]
        answer = Path(folder) / "answer.json"
        seen: list[tuple[float, float, float]] = []
        lines: list[tuple[float, str]] = []
        with answer.open("w") as stdout:
            run = subprocess.Popen(
                [*command, "--pack", given.pack, "--json"],
                env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            watcher = threading.Thread(target=watch, args=(run, folder, seen))
            watcher.start()
            lines.extend((time.monotonic(), line.strip()) for line in run.stderr or ())
            run.wait()
            watcher.join()
        record = json.loads(answer.read_text())
    if "error" in record:
        sys.exit(record["error"]["message"])
    record.pop("results")
    print(json.dumps(record, indent=1))
    marks = [(when, text) for when, text in lines if "frames" in text]
    for when, text in marks:
        near = min(seen, key=lambda row: abs(row[0] - when))
        print(f"{text.split()[-1]:>8}  command {near[1]:6.0f} MiB  worker {near[2]:6.0f} MiB")


if __name__ == "__main__":
    main()
