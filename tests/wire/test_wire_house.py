"""What lives inside Nuke needs nothing but the standard library, on every Python that Nuke has shipped since 3.9."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PYTHONS = ("3.9", "3.10", "3.12", "3.13")
HOST_ONLY = {"host": {"nuke"}, "ui": {"PySide2", "PySide6", "shiboken2", "shiboken6"}}
RUN = "import sys; sys.path[:0] = {paths!r}; import unittest; unittest.main('test_wire_core', argv=['core'])"
IMPORT = "import sys, importlib; sys.path.insert(0, {root!r}); [importlib.import_module(n) for n in {names!r}]"


def interpreter(version: str) -> str | None:
    """A Python of this version on this machine."""
    found = shutil.which(f"python{version}")
    versions = Path.home() / ".pyenv" / "versions"
    choices = sorted(versions.glob(f"{version}.*/bin/python{version}"))
    return str(choices[-1]) if choices else found


def imported(path: Path) -> set[str]:
    """Top-level names of the modules that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("path", sorted((ROOT / "nuke_hdrgen").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_only_the_standard_library_is_imported(path: Path) -> None:
    room = path.relative_to(ROOT / "nuke_hdrgen").parts[0]
    allowed = set(sys.stdlib_module_names) | {"nuke_hdrgen"} | HOST_ONLY.get(room, set())
    assert imported(path) <= allowed


@pytest.mark.parametrize("version", PYTHONS)
def test_the_core_runs_on_other_pythons_without_site_packages(version: str) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no python{version} here")
    paths = [str(ROOT), str(HERE)]
    command = [python, "-I", "-S", "-B", "-W", "error", "-c", RUN.format(paths=paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"Ran \d\d+ tests", done.stderr)


@pytest.mark.parametrize("version", PYTHONS)
def test_wire_and_client_import_on_other_pythons(version: str) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no python{version} here")
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for room in ("wire", "client")
        for path in sorted((ROOT / "nuke_hdrgen" / room).glob("*.py"))
        if path.stem != "__init__"
    ]
    command = [python, "-I", "-S", "-B", "-W", "error", "-c", IMPORT.format(root=str(ROOT), names=names)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
