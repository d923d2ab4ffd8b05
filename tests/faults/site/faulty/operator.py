"""An operator that fails on purpose: it hands frames back, and does what its `fault` parameter says before the frame
whose index is `at`, while the memory ladder stands above rung `until`.
"""

import ctypes
import os
import signal
import sys
import threading
from pathlib import Path


class Faulty:
    def __init__(self, descriptor):
        self.descriptor = descriptor
        self.rung = 0

    def set_rung(self, rung):
        self.rung = rung

    def run(self, request, frames, progress):
        given = request.parameters
        for frame in frames:
            index = frame.number - 1001
            progress.step(0, 1, index)
            if given["fault"] and index == given["at"] and self.rung < given["until"]:
                misbehave(given["fault"], given["gate"], progress)
            yield frame


def misbehave(fault, gate, progress):  # noqa: C901  # a list of ways to fail
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "exit":
        sys.exit(7)
    elif fault == "quit":
        os._exit(7)
    elif fault == "abort":
        os.abort()
    elif fault == "raise":
        raise ZeroDivisionError("a secret path /home/somebody/else")
    elif fault == "memory":
        raise MemoryError("no more")
    elif fault == "torch-memory":
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
    elif fault == "hold":  # the interpreter's lock is never given back, so that not even the beat gets through
        if gate:
            Path(gate).touch()
        ctypes.PyDLL(None).sleep(3600)
    elif fault == "slow":
        while not Path(gate).exists():
            progress.step(0, 1)
            threading.Event().wait(0.005)


def create(pack, device):
    return Faulty(pack.descriptor)
