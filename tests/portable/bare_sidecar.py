"""A sidecar for tests on a bare Python: it answers every job with one small EXR under the key that the job should have,
or with one a frame where the pack looks at windows of frames.

It owns what it saw and what it answers. It must not know Nuke, and makes no picture: the real sidecar does, elsewhere.
"""

from __future__ import annotations

import hashlib
import struct
import threading
from pathlib import Path

from nuke_hdrgen.wire import messages as m
from nuke_hdrgen.wire.identity import input_identity, result_key
from nuke_hdrgen.wire.windows import Windows
from tests.fakes.fake_gateway import HEALTH, FakeGateway, Gone, Side

DEVICE = "cuda:0"
SIZE = (4, 6)  # rows, columns
PACKS = (
    m.PackInfo("merge", "merge", "a1" * 32, 3, ("hdrfuse",), False, "Apache-2.0", True),
    m.PackInfo("expand", "bt2446", "b2" * 32, 1, ("sdr2hdr",), False, "Apache-2.0", True),
    m.PackInfo("chart", "chart", "c3" * 32, 1, ("txt2hdr",), False, "Apache-2.0", True),
    m.PackInfo("shut", "merge", "d4" * 32, 1, ("hdrfuse",), False, "Own-1.0", False),
    m.PackInfo("steady", "lumivid", "e5" * 32, 1, ("sdr2hdr",), False, "Apache-2.0", True, 5, 2),
)
DEFAULTS = {
    "hdrfuse/draft": "merge", "sdr2hdr/draft": "expand", "sdr2hdr/final": "expand", "sdr2hdr.shot/final": "steady",
    "txt2hdr/draft": "chart",
}  # fmt: skip


def exr(value: float = 0.5, **text: str) -> bytes:
    """An uncompressed float32 RGB scanline EXR of one value ("OpenEXR File Layout", openexr.com) with text attributes.

    An attribute's name has __ where the file has /.
    """
    rows, columns = SIZE
    window = struct.pack("<4i", 0, 0, columns - 1, rows - 1)
    channels = b"".join(name + b"\0" + struct.pack("<iB3xii", 2, 0, 1, 1) for name in (b"B", b"G", b"R")) + b"\0"
    attributes = [
        ("channels", "chlist", channels), ("compression", "compression", b"\0"), ("dataWindow", "box2i", window),
        ("displayWindow", "box2i", window), ("lineOrder", "lineOrder", b"\0"),
        ("pixelAspectRatio", "float", struct.pack("<f", 1)), ("screenWindowCenter", "v2f", bytes(8)),
        ("screenWindowWidth", "float", struct.pack("<f", 1)),
        *((name.replace("__", "/"), "string", said.encode()) for name, said in text.items()),
    ]  # fmt: skip
    header = b"\x76\x2f\x31\x01\x02\x00\x00\x00" + b"".join(
        name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(data)) + data
        for name, kind, data in attributes
    )
    line = struct.pack("<f", value) * (3 * columns)
    start = len(header) + 1 + 8 * rows
    offsets = struct.pack(f"<{rows}Q", *(start + row * (8 + len(line)) for row in range(rows)))
    return header + b"\0" + offsets + b"".join(struct.pack("<ii", row, len(line)) + line for row in range(rows))


class BareSidecar(FakeGateway):
    """Listens on a Unix socket. `hold` keeps jobs computing until they are cancelled; `key` spoils the results' key;
    `breaks_after` results of a job the connection ends, as when a sidecar crashes.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, self._serve)
        self.jobs: list[m.Open] = []
        self.inputs: list[tuple[m.Frame, bytes]] = []
        self.hold = False
        self.key = ""
        self.breaks_after = 0
        self.computing = threading.Event()
        self._stop: dict[str, threading.Event] = {}

    def _serve(self, side: Side) -> None:
        workers = (m.WorkerInfo(DEVICE, "ready", ("merge",), 1024.0, 2048.0),)
        side.greet(packs=PACKS, defaults=DEFAULTS, workers=workers)
        identities: list[str] = []
        job = None
        while True:
            received = side.receive()
            message = received.message
            if isinstance(message, m.Open):
                job, identities = message, []
                self._stop.setdefault(job.id, threading.Event())
                self.jobs.append(job)
            elif isinstance(message, m.Frame):
                body = bytes(received.body)
                self.inputs.append((message, body))
                identities.append(input_identity(message, body))
            elif isinstance(message, m.End):
                assert job is not None
                self._answer(side, job, identities)
                job = None
            elif isinstance(message, m.Cancel):
                self._stop.setdefault(message.id, threading.Event()).set()
                if job is not None and job.id == message.id:
                    side.send(m.Error("cancelled", "the job was cancelled", id=job.id))
                    job = None
            else:
                side.send(HEALTH)

    def _answer(self, side: Side, job: m.Open, identities: list[str]) -> None:
        side.send(m.Progress(job.id, "step", 0, 1, 2))
        self.computing.set()
        if self.hold:
            assert self._stop[job.id].wait(20), "nobody cancelled"
            side.send(m.Error("cancelled", "the job was cancelled", id=job.id))
            return
        pack = next(pack for pack in PACKS if pack.name == job.pack)
        results = self._of_windows(job, pack, identities) if pack.window > 1 else [(identities, 0)]
        for place, (made_from, index) in enumerate(results):
            key = self.key or result_key(job, pack.digest, pack.revision, job.output, made_from, index)
            body = exr(hdrgen__key=key, hdrgen__seed=str(job.seed))
            number = int(job.attributes.get("frame", 0))
            side.send(m.Result(
                job.id, place, number, "exr", (*SIZE, 3), (), job.output, key=key,
                sha256=hashlib.sha256(body).hexdigest(),
                warnings=("three pixels were not finite",) if job.seed == 3 else (),
            ), body)  # fmt: skip
            if place + 1 == self.breaks_after:
                raise Gone
        side.send(m.Done(job.id, len(results), 0.5))

    def _of_windows(self, job: m.Open, pack: m.PackInfo, identities: list[str]) -> list[tuple[list[str], int]]:
        """What each result is made from, and its place among it, as the worker has it."""
        given = job.parameters
        windows = Windows(int(given.get("window", pack.window)), int(given.get("overlap", pack.overlap)))
        first = self.inputs[-len(identities)][0].number
        assert (first - int(given.get("shot_start", first))) % windows.hop == 0, "the job begins no window"
        found: list[tuple[list[str], int]] = []
        for index in range(len(identities)):
            inputs = windows.inputs(index, len(identities))
            found.append((identities[inputs.start : inputs.stop], index - inputs.start))
        return found
