"""`python -m tests.fakes.nuke`, or this file by its path: the fake Nuke's command line.

It owns the module path: the folder of the tests is on it only until the fake is loaded, so that a script finds what
NUKE_PATH and the installed packages give it, and nothing else.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[3])


def _command_line() -> int:
    here = str(Path(__file__).resolve().parent)
    sys.path[:] = [ROOT, *(entry for entry in sys.path if entry not in {"", ROOT, here})]
    from tests.fakes.nuke.cli import main

    sys.path.remove(ROOT)
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(_command_line())
