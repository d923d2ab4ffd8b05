"""What lives inside Nuke imports the standard library from 3.9 on, itself, and Nuke's own modules where they belong."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = (*sorted((ROOT / "nuke_hdrgen").rglob("*.py")), *(ROOT / name for name in ("init.py", "menu.py", "bake.py")))
# docs.python.org, "What's New" of 3.10 to 3.14, and PEP 594: modules that came after 3.9 or went before 3.14.
NEWER = frozenset(("annotationlib", "compression", "tomllib"))
GONE = frozenset((
    "aifc", "asynchat", "asyncore", "audioop", "binhex", "cgi", "cgitb", "chunk", "crypt", "distutils", "formatter",
    "imghdr", "imp", "lib2to3", "mailcap", "msilib", "nis", "nntplib", "ossaudiodev", "parser", "pipes", "smtpd",
    "sndhdr", "spwd", "sunau", "symbol", "telnetlib", "uu", "xdrlib",
))  # fmt: skip
STANDARD = frozenset(sys.stdlib_module_names) - NEWER - GONE
OF_NUKE = {
    "nuke_hdrgen/host/colour.py": {"PyOpenColorIO"},
    "nuke_hdrgen/ui/dock.py": {"nukescripts"},
    "nuke_hdrgen/ui/qt.py": {"PySide2", "PySide6"},
}
WITH_NUKE = ("nuke_hdrgen/host/", "init.py", "menu.py", "bake.py")
LOADERS = frozenset(("import_module", "__import__"))


def imported(source: str) -> set[str]:
    """Top-level names that a file imports, by statement or by name. Raises ValueError where that cannot be told."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source, feature_version=(3, 9))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"line {node.lineno}: a relative import")
            names.add(str(node.module).split(".")[0])
        elif isinstance(node, ast.Call) and _name(node.func) in LOADERS:
            text = node.args[0] if node.args else None
            if not isinstance(text, ast.Constant) or not isinstance(text.value, str):
                raise ValueError(f"line {node.lineno}: an import by a name that is not written there")
            names.add(text.value.split(".")[0])
    return names


def allowed(place: str) -> set[str]:
    """What a file may import."""
    nuke = {"nuke"} if place.startswith(WITH_NUKE) else set()
    return {*STANDARD, "nuke_hdrgen", *nuke, *OF_NUKE.get(place, ())}


def _name(called: ast.expr) -> str:
    return called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_but_the_standard_library_is_imported(path: Path) -> None:
    assert imported(path.read_text(encoding="utf-8")) - allowed(path.relative_to(ROOT).as_posix()) == set()


def test_every_exception_is_needed() -> None:
    """A list that allows what nothing uses would hide the next import of it."""
    used = {path.relative_to(ROOT).as_posix(): imported(path.read_text(encoding="utf-8")) for path in FILES}
    for place, names in OF_NUKE.items():
        assert names <= used[place]


@pytest.mark.parametrize(
    "source",
    [
        "import numpy",
        "import os, numpy.linalg",
        "from numpy import array",
        "def f():\n    import numpy",
        "if True:\n    from numpy.linalg import norm",
        "import importlib\nimportlib.import_module('numpy')",
        "from importlib import import_module\nimport_module('numpy.linalg')",
        "__import__('numpy')",
        "import nuke",
        "from PySide6 import QtCore",
        "import tomllib",
        "import distutils.spawn",
    ],
)
def test_the_check_sees_every_way_to_import(source: str) -> None:
    assert imported(source) - allowed("nuke_hdrgen/bake/plan.py")


@pytest.mark.parametrize("source", ["from . import x", "from ..wire import y", "import_module(name)", "__import__(*a)"])
def test_the_check_refuses_what_it_cannot_read(source: str) -> None:
    with pytest.raises(ValueError, match="line 1"):
        imported(source)
