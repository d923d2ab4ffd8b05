"""`python -m hdrgen_server.worker`: one worker on an inherited socketpair; the gateway starts it, nobody else.

It owns arguments and the order of start: parent, allocator, settings, then everything that may import torch.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from pathlib import Path

from hdrgen_server.worker.malloc import tune_malloc


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line as a namespace."""
    parser = argparse.ArgumentParser(prog="python -m hdrgen_server.worker", description=__doc__, allow_abbrev=False)
    parser.add_argument("--device", required=True, help="cpu, cuda or cuda:N")
    parser.add_argument("--fd", type=int, required=True, help="the inherited socket")
    parser.add_argument("--slots", type=Path, required=True, help="the gateway's slot folder")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run a worker until its pipe ends; 0, or 2 when it cannot start."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    parent = os.getppid()
    tune_malloc()

    from hdrgen_server.gateway.logs import start_logging
    from hdrgen_server.settings import load_settings
    from hdrgen_server.worker.process import Process, die_with_parent

    settings = load_settings()
    start_logging(None, settings.log_level)
    if not die_with_parent(parent):
        return 0
    if options.device == "cpu" and settings.threads:
        os.environ["OMP_NUM_THREADS"] = str(settings.threads)
    sock = socket.socket(fileno=options.fd)
    Process(options.device, sock, options.slots, settings).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
