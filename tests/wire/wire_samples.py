"""One valid sample of every message, with its body. Standard library only: old interpreters run it too."""

from __future__ import annotations

import hashlib

from nuke_hdrgen.wire import messages as m
from nuke_hdrgen.wire import worker_messages as w
from nuke_hdrgen.wire.codec import encode
from nuke_hdrgen.wire.messages import Message

ALL_TYPES: dict[int, type[Message]] = {**m.TYPES, **w.WORKER_TYPES}

ACESCG = m.Colourspace("ACES - ACEScg", "lin_ap1_scene")
OWN = m.Colourspace("camera", chromaticities=(0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329), range="encoded")
BODY = bytes(range(48))
EXR = b"v/1\x01" + bytes(60)
WORKER = m.WorkerInfo("cuda:0", "idle", ("merge",), 1024.0, 8192.0)
RECENT = m.ErrorInfo(3.0, "busy", "x")
PACK = m.PackInfo("gmodiff-s", "gmodiff", "a1" * 32, 3, ("hdrfuse",), True, "Apache-2.0", True, 9, 4)
OPEN = m.Open(
    "j1", "hdrfuse", 3, ACESCG, "merge", {"steps": 4, "prompt": "a \u2603\nb", "x": 0.5, "y": True}, 7, "final"
)
FRAME = m.Frame("j1", 0, 1001, "f32", (2, 2, 3), ("R", "G", "B"), ACESCG, -2.0)
RESULT = m.Result(
    "j1", 0, -5, "f16", (2, 3, 4), ("R", "G", "B", "A"), OWN, 0.0, "key", hashlib.sha256(BODY).hexdigest(),
    {"nan": 2}, ("w",),
)  # fmt: skip
EXR_RESULT = m.Result("j1", 1, 2, "exr", (7, 13, 9), (), ACESCG, sha256=hashlib.sha256(EXR).hexdigest())
PROGRESS = m.Progress("j1", "step", 0, 3, 20, 0, 4.5)

SAMPLES: list[tuple[Message, bytes]] = [
    (m.Hello("s" * 64, "nuke 15.1", token="secret-token"), b""),
    (m.Welcome("0.1.0", 4711, {"frame_bytes": 1e9}, m.QueueInfo(0, 64), (PACK,), (WORKER,), settings="abc"), b""),
    (OPEN, b""),
    (m.Open("j2", "txt2hdr", 0, ACESCG), b""),
    (FRAME, BODY),
    (m.Frame("j1", 1, 1002, "exr", (1080, 1920, 4), (), OWN), EXR),
    (m.End("j1"), b""),
    (PROGRESS, b""),
    (m.Progress("j1", "queued", position=3), b""),
    (RESULT, BODY),
    (EXR_RESULT, EXR),
    (m.Done("j1", 2, 1.5, {"clipped": 4}), b""),
    (m.Error("busy", "the queue is full; try again in 3 s", {"retry_after_s": 3.0}), b""),
    (m.Error("cancelled", "cancelled", id="j1"), b""),
    (m.Cancel("j1"), b""),
    (m.Status(), b""),
    (m.Health(True, True, {"merge": True}, 12.5, m.QueueInfo(1, 64), 2, (WORKER,), (RECENT,)), b""),
    (m.Free(), b""),
    (m.Free("merge"), b""),
    (w.WReady("cpu", 100.0, 200.0, {"torch": "2.13.0"}), b""),
    (w.WOpen(OPEN, "d" * 64, 1), b""),
    (w.WFrame(FRAME, "slot-1", 48), b""),
    (w.WEnd("1"), b""),
    (w.WCancel("1"), b""),
    (w.WTaken("1", 0), b""),
    (w.WProgress(PROGRESS), b""),
    (w.WNeed("1", 48), b""),
    (w.WSlot("1", "slot-2", 48), b""),
    (w.WResult(RESULT, "slot-2", 48, 1), b""),
    (w.WDone("1", 0.5, {"nan": 0}), b""),
    (w.WError("1", "out_of_memory", "needed more", {"needed_mib": 1, "free_mib": 0.5}, True), b""),
    (w.WBeat("idle", 100.0, ("merge",)), b""),
    (w.WFree("merge"), b""),
]  # fmt: skip


def wire_bytes(message: Message, body: bytes) -> bytes:
    """The whole message as it goes over a socket."""
    return encode(message, len(body)) + body
