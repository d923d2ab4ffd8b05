"""The wheel: one folder of it is all that a Nuke needs, and it says which."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKS = (
    "from hdrgen_server.packs.registry import load_registry\nfrom hdrgen_server.settings import load_settings\n"
    "print(*sorted(pack.name for pack in load_registry(load_settings()).all()))"
)
IMPORT = (
    "import json, sys, nuke_hdrgen.client.launch as launch; print(json.dumps([launch.__file__, sorted(sys.modules)]))"
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as pip would lay it out, built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, capture_output=True, check=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def python(path: Path, *arguments: str) -> str:
    """A Python that finds packages in `path` first; the checkout's own come after it, if at all."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    result = subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_an_installed_wheel_names_its_own_nuke_folder(installed: Path) -> None:
    folder = Path(python(installed, "-c", "from hdrgen_server.cli.main import main; main()", "nuke-path"))
    assert folder == installed / "hdrgen_server" / "nuke"
    shipped = {p.relative_to(ROOT / "nuke_hdrgen") for p in (ROOT / "nuke_hdrgen").rglob("*.py")}
    assert {p.relative_to(folder / "nuke_hdrgen") for p in (folder / "nuke_hdrgen").rglob("*.py")} == shipped
    gizmos = {p.name for p in (ROOT / "gizmos").glob("*.gizmo")}
    assert {p.name for p in (folder / "gizmos").glob("*.gizmo")} == gizmos


def test_nukes_python_imports_from_that_folder_with_nothing_installed(installed: Path) -> None:
    folder = installed / "hdrgen_server" / "nuke"
    # -S: no site-packages, as in a Nuke that has none of ours.
    file, modules = json.loads(python(folder, "-S", "-c", IMPORT))
    assert Path(file) == folder / "nuke_hdrgen" / "client" / "launch.py"
    assert not {"numpy", "msgspec", "hdrgen_server"} & set(modules)


def test_the_wheel_holds_what_the_sidecar_reads(installed: Path) -> None:
    names = python(installed, "-c", PACKS)
    embedded = ROOT / "server" / "hdrgen_server" / "packs" / "embedded"
    assert names.split() == sorted(p.parent.name for p in embedded.glob("*/pack.toml"))
