"""How long a 4K RGBA float frame takes through the gateway's `echo`, against a bare Unix socket in the same run.

It owns the two measurements and their ratio. The bare echo is the strictest one: its server hands each chunk back as
it arrives, with the same socket buffers and the same client loop, and nothing else. Runs alternate, so that other load
on the machine meets both alike.
"""

from __future__ import annotations

import multiprocessing
import random
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nuke_hdrgen.client.address import Address, Endpoint
from nuke_hdrgen.client.connection import Connection, connect
from nuke_hdrgen.client.job import run_job
from nuke_hdrgen.wire import messages as m
from nuke_hdrgen.wire.errors import NoServer

CHANNELS = 4
BUFFER = 4 << 20
SPACE = m.Colourspace("lin_rec709_scene", "lin_rec709_scene")


def run(width: int = 3840, height: int = 2160, repeat: int = 7) -> dict[str, object]:
    """Milliseconds of both (median, best, worst), and the median and spread of their ratio over pairs of runs."""
    shape = (height, width, CHANNELS)
    size = height * width * CHANNELS * 4
    body = bytearray(random.Random(1).randbytes(size))
    back = memoryview(bytearray(size))
    with tempfile.TemporaryDirectory(prefix="hdrgen-bench-") as folder:
        gateway, hello_s = _start_gateway(Path(folder))
        ours, theirs = socket.socketpair()
        bare = multiprocessing.get_context("spawn").Process(target=_bare_server, args=(theirs,), daemon=True)
        bare.start()
        theirs.close()
        try:
            endpoint = Endpoint(Address(path=str(Path(folder) / "hdrgen.sock")))
            with connect(endpoint, "bench") as connection:
                pairs = [(_bare(ours, body, back), _gateway(connection, body, shape, n)) for n in range(repeat + 2)][2:]
        finally:
            ours.close()
            bare.join()
            gateway.terminate()
            gateway.wait()
    return {"megabytes": size / 1e6, "hello_s": round(hello_s, 3), **summary(pairs)}


def summary(pairs: list[tuple[float, float]]) -> dict[str, object]:
    """Medians, extremes and the ratio of pairs of seconds (bare, gateway)."""
    ratios = sorted(echo / bare for bare, echo in pairs)
    return {
        "bare_ms": _spread([bare for bare, _ in pairs]),
        "echo_ms": _spread([echo for _, echo in pairs]),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_best": round(ratios[0], 2),
        "ratio_worst": round(ratios[-1], 2),
        "repeat": len(pairs),
    }


def _spread(seconds: list[float]) -> dict[str, float]:
    return {
        "median": round(1e3 * statistics.median(seconds), 1),
        "best": round(1e3 * min(seconds), 1),
        "worst": round(1e3 * max(seconds), 1),
    }


def _start_gateway(folder: Path) -> tuple[subprocess.Popen[bytes], float]:
    started = time.perf_counter()
    command = [sys.executable, "-m", "hdrgen_server.gateway", "--runtime-dir", str(folder), "--device", "cpu"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    endpoint = Endpoint(Address(path=str(folder / "hdrgen.sock")))
    while True:
        try:
            connect(endpoint, "bench").close()
        except NoServer:
            if process.poll() is not None or time.perf_counter() - started > 30:
                process.kill()
                raise
        else:
            return process, time.perf_counter() - started


def _gateway(connection: Connection, body: bytearray, shape: tuple[int, int, int], number: int) -> float:
    frame = m.Frame(
        id="", index=0, number=1, format="f32", shape=shape, channels=("R", "G", "B", "A"),
        colourspace=SPACE,
    )  # fmt: skip
    request = m.Open(id=f"bench-{number}", operation="echo", frames=1, output=SPACE, pack="echo")
    started = time.perf_counter()
    for _, back in run_job(connection, request, [(frame, body)]):
        assert len(back) == len(body)
    return time.perf_counter() - started


def _bare(sock: socket.socket, body: bytearray, back: memoryview) -> float:
    """Send and receive at once, as the client does."""
    sock.setblocking(False)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, BUFFER)
    out, sent, got = memoryview(body), 0, 0
    started = time.perf_counter()
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE)
        while got < len(body):
            ((_, events),) = selector.select()
            if events & selectors.EVENT_READ:
                got += sock.recv_into(back[got:])
            if events & selectors.EVENT_WRITE:
                sent += sock.send(out[sent:])
                if sent == len(body):
                    selector.modify(sock, selectors.EVENT_READ)
    return time.perf_counter() - started


def _bare_server(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    buffer = memoryview(bytearray(BUFFER))
    while count := sock.recv_into(buffer):
        sock.sendall(buffer[:count])


if __name__ == "__main__":
    import json

    print(json.dumps(run(), indent=2))
