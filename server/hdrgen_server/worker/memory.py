"""How much memory the worker's device has, and whether an exception says that it ran out.

It owns the two questions for a CPU (the machine's memory, or the control group's when that is less) and for CUDA. It
imports torch only for a CUDA device. It must not know packs or jobs.
"""

from __future__ import annotations

import gc
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from hdrgen_server.worker.malloc import return_free_memory

MIB = 1 << 20
CGROUP = Path("/sys/fs/cgroup")
# What torch's CPU and CUDA allocators say; the CPU one raises a plain RuntimeError.
_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|bad_alloc", re.IGNORECASE)


@dataclass(frozen=True)
class MemoryState:
    """Free and total MiB of a device."""

    free_mib: float
    total_mib: float


def memory_state(device: str, budget_mib: int = 0) -> MemoryState:
    """What is free and what there is; a budget of the settings lowers both, 0 means none."""
    state = _cuda_state(device) if device.startswith("cuda") else _cpu_state()
    if not budget_mib:
        return state
    used = _own_mib() if device == "cpu" else state.total_mib - state.free_mib
    total = min(state.total_mib, float(budget_mib))
    return MemoryState(max(0.0, min(state.free_mib, total - used)), total)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is a device or machine running out of memory, by type or by what torch's allocators say."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and bool(_OUT_OF_MEMORY.search(str(error)))


def free_caches() -> None:
    """Give back what is cached and unused: Python's garbage, torch's CUDA cache, the C heap."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return_free_memory()


def _own_mib() -> float:
    return psutil.Process().memory_info().rss / MIB


def _cpu_state() -> MemoryState:
    machine = psutil.virtual_memory()
    free, total = machine.available / MIB, machine.total / MIB
    limit, used = _cgroup_bytes("memory.max"), _cgroup_bytes("memory.current")
    if limit is not None and used is not None:
        free, total = min(free, max(0.0, (limit - used) / MIB)), min(total, limit / MIB)
    return MemoryState(free, total)


def _cgroup_bytes(name: str) -> int | None:
    try:
        text = (CGROUP / name).read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _cuda_state(device: str) -> MemoryState:
    import torch

    free, total = torch.cuda.mem_get_info(torch.device(device))
    reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return MemoryState((free + reusable) / MIB, total / MIB)
