"""What `hdrgen doctor` looks at, each check a function that returns findings: what is wrong, and what to do.

It owns the checks that need no server. It must not know the terminal, and imports no torch: torch is asked in
a process of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from hdrgen_server.cli.inputs import config_name
from hdrgen_server.packs.registry import load_registry
from hdrgen_server.packs.verify import verify
from hdrgen_server.settings import Settings, origins, unknown_variables
from nuke_hdrgen.wire.errors import HDRGenError

Level = Literal["problem", "warning", "ok"]

GIB = 1 << 30
LEAST_DISK = 2 * GIB
LEAST_MEMORY = 2 * GIB
VERIFY_UP_TO = 64 << 20
READ_INSIDE_NUKE = ("HDRGEN_CACHE_ROOT",)
TORCH_PROBE_S = 120.0
TORCH_PROBE = """
import json
try:
    import torch
    found = {"version": torch.__version__, "cuda_build": torch.version.cuda or "", "cuda": torch.cuda.is_available(),
             "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]}
except Exception as error:
    found = {"failure": f"{type(error).__name__}: {error}"}
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Finding:
    """One sentence about what was found, and what to do where something is wrong."""

    level: Level
    topic: str
    what: str
    do: str = ""

    def as_dict(self) -> dict[str, str]:
        """For `--json`."""
        return asdict(self)


def probe_torch() -> dict[str, Any]:
    """What torch says about itself, from a process of its own; `failure` when it cannot be imported."""
    command = [sys.executable, "-c", TORCH_PROBE]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TORCH_PROBE_S)
    except subprocess.TimeoutExpired:
        return {"failure": f"importing it took over {TORCH_PROBE_S:g} s"}
    try:
        return json.loads(result.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return {"failure": f"the process that imports it ended with status {result.returncode}"}


def graphics_cards() -> tuple[str, ...]:
    """NVIDIA cards that the driver knows, by name, without torch."""
    tool = shutil.which("nvidia-smi")
    if tool is not None:
        command = [tool, "--query-gpu=name", "--format=csv,noheader"]
        try:
            result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
        except subprocess.TimeoutExpired:
            return ()
        if result.returncode == 0:
            return tuple(line.strip() for line in result.stdout.splitlines() if line.strip())
    return tuple(path.name for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*")))


def gpu(settings: Settings, torch: Mapping[str, Any], cards: tuple[str, ...]) -> list[Finding]:
    """The unused GPU first, then the torch build."""
    if "failure" in torch:
        return [Finding("problem", "torch", f"torch does not import: {torch['failure']}", "reinstall nuke-hdrgen")]
    version = torch["version"]
    if not cards and not torch["cuda"]:
        return [Finding("ok", "gpu", f"no NVIDIA GPU here; torch {version} works on the CPU")]
    if torch["cuda"]:
        names = ", ".join(torch["devices"])
        if settings.device == "cpu":
            origin = origins()["device"]
            return [Finding("warning", "gpu", f"{names} is unused: device is cpu by {origin}", "set device to auto")]
        return [Finding("ok", "gpu", f"torch {version} sees {names}")]
    names = ", ".join(cards)
    if not torch["cuda_build"]:
        what, do = f"{names} is unused: torch {version} is a CPU build", "install torch's CUDA build for this driver"
    else:
        what = f"{names} is unused: torch {version} is built for CUDA {torch['cuda_build']}, but finds no device"
        do = "update the NVIDIA driver, or check CUDA_VISIBLE_DEVICES"
    return [Finding("problem", "gpu", what, do)]


def ocio(settings: Settings) -> list[Finding]:
    """Whether the OCIO config that would be used loads."""
    from hdrgen_server.colour.ocio_config import load_config
    from hdrgen_server.colour.ocio_spaces import resolve

    try:
        config = load_config(config_name(settings))
        space = resolve(config)
    except HDRGenError as error:
        return [Finding("problem", "ocio", error.message, "correct $OCIO, or unset it for the built-in config")]
    return [Finding("ok", "ocio", f"{config.source} loads; scene_linear is {space.name}")]


def runtime_folder(folder: Path) -> list[Finding]:
    """Whether the folder of the socket and the slots is ours alone, and can be made."""
    found: list[Finding] = []
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if not base:
        found.append(Finding("ok", "runtime", f"XDG_RUNTIME_DIR is not set; {folder} is used"))
    elif not Path(base).is_dir():
        found.append(Finding("problem", "runtime", f"XDG_RUNTIME_DIR is {base}, which is no folder", "unset it"))
    try:
        status = folder.lstat()
    except FileNotFoundError:
        parent = next(p for p in folder.parents if p.exists())
        if not os.access(parent, os.W_OK):
            found.append(Finding("problem", "runtime", f"{folder} cannot be made", f"make {parent} writable"))
        return found
    except OSError as error:
        return [*found, Finding("problem", "runtime", f"{folder}: {error.strerror}", "make it reachable or remove it")]
    if not stat.S_ISDIR(status.st_mode):
        found.append(Finding("problem", "runtime", f"{folder} is no folder", "remove it"))
    elif status.st_uid != os.getuid():
        found.append(Finding("problem", "runtime", f"{folder} belongs to user {status.st_uid}", "remove it"))
    elif status.st_mode & 0o077:
        what = f"{folder} is open to others (mode {stat.S_IMODE(status.st_mode):o})"
        found.append(Finding("warning", "runtime", what, f"chmod 700 {folder}, unless a socket group uses it"))
    return found


def packs(settings: Settings) -> list[Finding]:
    """Broken manifests, and the files of packs small enough to hash now."""
    registry = load_registry(settings)
    problems = list(registry.problems.values())
    small = [pack for pack in registry.all() if pack.size_bytes <= VERIFY_UP_TO]
    problems += [line for pack in small for line in verify(pack)]
    found = [Finding("problem", "packs", line, "add the pack again with `hdrgen packs add`") for line in problems]
    large = ", ".join(pack.name for pack in registry.all() if pack not in small)
    if large:
        found.append(Finding("ok", "packs", f"too large to hash here: {large}; `hdrgen packs verify` does"))
    names = ", ".join(pack.name for pack in small)
    return found or [Finding("ok", "packs", f"{names}: every file is as its manifest says")]


def space(folders: Mapping[str, Path]) -> list[Finding]:
    """Free space where slots, packs, caches and temporary files go, and free memory."""
    found: list[Finding] = []
    seen: set[int] = set()
    for what, folder in {**folders, "temporary files": Path(tempfile.gettempdir())}.items():
        place = next(p for p in (folder, *folder.parents) if p.exists())
        device, free = place.stat().st_dev, shutil.disk_usage(place).free
        if device not in seen and free < LEAST_DISK:
            text = f"{free / GIB:.1f} GiB free at {place}, where {what} go"
            found.append(Finding("warning", "disk", text, "free some, or move it in the settings"))
        seen.add(device)
    available = psutil.virtual_memory().available
    if available < LEAST_MEMORY:
        text = f"{available / GIB:.1f} GiB of memory free; a 4K bracket needs more"
        found.append(Finding("warning", "memory", text, "close something, or set memory_budget_mib"))
    return found or [Finding("ok", "disk", f"space enough; {available / GIB:.1f} GiB of memory free")]


def environment() -> list[Finding]:
    """What sets options, and the HDRGEN_* variables that nothing reads."""
    found = [
        Finding("warning", "settings", f"{name} is set, but no option has that name", "`hdrgen config` lists them")
        for name in unknown_variables()
        if name not in READ_INSIDE_NUKE
    ]
    used = sorted({origin for origin in origins().values() if origin != "default"})
    return [*found, Finding("ok", "settings", f"set by {', '.join(used)}" if used else "all settings are defaults")]
