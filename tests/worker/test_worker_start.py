"""What a worker does with its settings before torch is there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_the_setting_decides_the_torch_threads_of_a_cpu_worker(tmp_path: Path) -> None:
    code = (
        "import socket, sys\n"
        "from hdrgen_server.worker.__main__ import main\n"
        "ours, theirs = socket.socketpair()\n"
        "ours.shutdown(socket.SHUT_WR)\n"
        "assert main(['--device', 'cpu', '--fd', str(theirs.detach()), '--slots', sys.argv[1]]) == 0\n"
        "import torch\n"
        "print(torch.get_num_threads())\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "HDRGEN_THREADS": "1"}
    environment.pop("OMP_NUM_THREADS", None)
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False, env=environment
    )
    assert ended.stdout.split() == ["1"], ended.stderr
