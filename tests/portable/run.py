"""Runs what old and bare Pythons can run of the tests: `PYTHON -I -S -B -W error tests/portable/run.py`.

It owns which tests these are and the module path, on which the repository stands alone. It must not know what they
test.
"""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WIRE = ROOT / "tests" / "wire"


def suite() -> unittest.TestSuite:
    """Every test here that needs the standard library alone, and the codec's own."""
    sys.path[:0] = [str(ROOT), str(HERE), str(WIRE)]
    names = ["test_wire_core", *sorted(path.stem for path in HERE.glob("test_portable_*.py"))]
    return unittest.defaultTestLoader.loadTestsFromNames(names)


if __name__ == "__main__":
    sys.exit(not unittest.TextTestRunner(verbosity=1).run(suite()).wasSuccessful())
