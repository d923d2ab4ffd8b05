"""The portable tests on every Python that Nuke has shipped since 3.9, as bare as Nuke's own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

VERSIONS = ("3.9", "3.10", "3.11", "3.12", "3.13")
RUN = Path(__file__).with_name("run.py")
AT_LEAST = 80  # tests that the suite has; fewer means that some were not found


def pyenv_roots() -> Iterator[Path]:
    """Where pyenv keeps its Pythons, if it is here."""
    pyenv = shutil.which("pyenv")
    if pyenv is not None:
        said = subprocess.run([pyenv, "root"], capture_output=True, text=True, timeout=30, check=False).stdout.strip()
        if said:
            yield Path(said)
    if os.environ.get("PYENV_ROOT"):
        yield Path(os.environ["PYENV_ROOT"])
    yield Path.home() / ".pyenv"


def candidates(version: str) -> Iterator[str]:
    """What may be this Python: newest of pyenv's first, then what PATH has, which may be a shim of nothing."""
    for root in dict.fromkeys(pyenv_roots()):
        found = root.glob(f"versions/{version}.*/bin/python{version}")
        yield from map(str, sorted(found, key=lambda path: [int(n) for n in re.findall(r"\d+", path.parts[-3])])[::-1])
    named = shutil.which(f"python{version}")
    if named is not None:
        yield named


def interpreter(version: str) -> str | None:
    """A Python of this version on this machine that starts."""
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    for python in candidates(version):
        said = subprocess.run([python, "-I", "-S", "-c", ask], capture_output=True, text=True, timeout=30, check=False)
        if said.returncode == 0 and said.stdout.strip() == version:
            return python
    return None


@pytest.mark.parametrize("version", VERSIONS)
def test_the_portable_tests_pass_on_a_bare_python(version: str, tmp_path: Path) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no working python{version} on PATH or under pyenv")
    environment = {"PATH": os.defpath, "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [python, "-I", "-S", "-B", "-W", "error", str(RUN)], cwd=tmp_path, env=environment,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ran = re.search(r"Ran (\d+) tests", done.stderr)
    assert ran is not None, done.stderr
    assert int(ran[1]) >= AT_LEAST
    assert "Exception ignored" not in done.stderr, done.stderr
    assert "Exception in thread" not in done.stderr, done.stderr
