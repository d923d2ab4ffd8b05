"""`python -m nuke_hdrgen.ui`: the panel in a window of its own, outside Nuke.

It owns the command line and the application object. It must not know what the panel shows.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import Sequence

MISSING_QT = "the panel needs PySide6 or PySide2; install one with `pip install PySide6-Essentials`\n"


def main(arguments: Sequence[str]) -> int:
    """Show the panel until its window is closed; the exit status, 2 where there is no Qt."""
    parser = argparse.ArgumentParser("python -m nuke_hdrgen.ui", description="Watch the HDRGen sidecar in a window.")
    parser.add_argument("--server", metavar="ADDRESS", help="the sidecar to watch; else $HDRGEN_SERVER, else found")
    options = parser.parse_args(arguments)
    try:
        from nuke_hdrgen.ui import panel, qt
    except ImportError:
        sys.stderr.write(MISSING_QT)
        return 2
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it: Qt's loop would not let Python see the signal
    application = qt.QtWidgets.QApplication([sys.argv[0]])
    window = panel.HealthPanel(target=panel.Target(f"panel-{os.getpid()}", options.server))
    window.show()
    return qt.run(application)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
