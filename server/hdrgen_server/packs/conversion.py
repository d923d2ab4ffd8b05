"""Starts the process that converts a system's own checkpoints into a pack, and says what came of it.

It owns which files need converting, the child process and its answer. It must not know any layout, and opens nothing
itself: a checkpoint may be a pickle, which can run code.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from hdrgen_server.packs.manifest import MANIFEST_NAME, PICKLE_SUFFIXES
from nuke_hdrgen.wire.errors import BadInput, from_code

# The module that converts; it says itself whether files are its own.
CONVERTER = "hdrgen_server.systems.gmodiff.convert"
TIMEOUT_S = 1800
# Names in the pack's folder, as systems that refine read them.
REFINED_FILE, BASE_FILE = "refine.safetensors", "base.safetensors"
BASE_FOLDERS, BASE_NAMES = ("unet", "vae"), ("config.json", "diffusion_pytorch_model.safetensors")
# Says what the network predicts, which its own files do not.
BASE_SCHEDULER = Path("scheduler") / "scheduler_config.json"


def checkpoints_in(path: Path) -> tuple[Path, ...]:
    """The checkpoints that must be converted before `path` can be added: itself, or those in a folder without a
    manifest; none for a pack. Raises BadInput when it does not exist.
    """
    if path.is_file():
        if path.suffix.lower() not in PICKLE_SUFFIXES:
            raise BadInput(f"{path} is no checkpoint (.pth, .pkl); give one, or a pack's folder")
        return (path,)
    if not path.is_dir():
        raise BadInput(f"{path} does not exist; give a folder with a pack.toml, or a checkpoint")
    if (path / MANIFEST_NAME).is_file():
        return ()
    return tuple(sorted(p for p in path.iterdir() if p.is_file() and p.suffix.lower() in PICKLE_SUFFIXES))


def place_base(base: Path | None, out: Path, weights: Sequence[str]) -> None:
    """Put links to a base model beside converted weights: a folder's `unet/` and `vae/`, or one file.

    Raises BadInput when the weights need one and there is none, or it is no such folder or file.
    """
    if base is None:
        if REFINED_FILE in weights:
            raise BadInput(
                "these checkpoints refine by Stable Diffusion 2.1, which they do not hold; "
                "name it with --base: its folder with unet/ and vae/, or one .safetensors file"
            )
        return
    if base.is_file() and base.suffix == ".safetensors":
        (out / BASE_FILE).symlink_to(base.resolve())
        return
    found = [base / part / name for part in BASE_FOLDERS for name in BASE_NAMES]
    missing = [path for path in found if not path.is_file()]
    if missing:
        raise BadInput(f"there is no {missing[0]}; --base is a diffusers folder with unet/ and vae/, or a .safetensors")
    for path in (*found, *(path for path in (base / BASE_SCHEDULER,) if path.is_file())):
        link = out / path.relative_to(base)
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(path.resolve())


def convert(sources: Sequence[Path], out: Path) -> list[str]:
    """Convert checkpoints into the empty folder `out`, in a process of its own; the names of the weights.

    Raises what the process reports, and BadInput when it ends without an answer.
    """
    files = [str(source.resolve()) for source in sources]
    command = [sys.executable, "-I", "-m", CONVERTER, str(out.resolve()), *files]
    try:
        ended = subprocess.run(
            command, cwd=out, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BadInput(f"{sources[0]} is not converted after {TIMEOUT_S} s; do not use it") from error
    try:
        answer = json.loads(ended.stdout.splitlines()[-1])
    except (ValueError, IndexError) as error:
        said = (ended.stderr.strip().splitlines() or ["no reason given"])[-1][:200]
        raise BadInput(
            f"{sources[0]} ended the process that converts it (status {ended.returncode}: {said}); do not use it"
        ) from error
    if "error" in answer:
        raise from_code(answer["error"], answer["message"], {})
    return list(answer["files"])
