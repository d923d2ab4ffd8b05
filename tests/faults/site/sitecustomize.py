"""Registers the tests' own system `faulty` in the processes that tests start; shipped code knows nothing of it."""

import os
from pathlib import Path

import hdrgen_server.systems
from hdrgen_server.packs import descriptors

HERE = Path(__file__).parent
hdrgen_server.systems.__path__.append(str(HERE))
descriptors.SYSTEMS_FOLDER = Path(os.environ["FAULTY_SYSTEMS"])
