"""colour-science as an oracle. Where matplotlib is missing it leaves a stand-in without a spec among the modules, on
which other libraries stumble when they ask whether matplotlib is there; so that is taken away again.
"""

from __future__ import annotations

import sys

import colour

for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
    if getattr(sys.modules[name], "__spec__", None) is None:
        del sys.modules[name]

__all__ = ["colour"]
