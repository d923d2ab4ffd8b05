"""A fake Nuke on a bare Python, in folders and an environment of its own, with a scripted sidecar.

It owns starting and ending those, and the nodes and waits that several tests share. It must not know what they test.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import threading
import unittest
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from tests.fakes.nuke.api import FakeNuke
from tests.fakes.nuke.errors import REFUSED
from tests.fakes.nuke.nodes import Node
from tests.fakes.nuke.plain_plates import FlatPlate
from tests.portable.bare_sidecar import BareSidecar

ROOT = Path(__file__).resolve().parents[2]
FIRST, LAST = 1001, 1003
PLATE = (48, 32)  # width, height
FOLDERS = ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR")
OF_NUKE = ("nuke", "nukescripts", "nukescripts.panels")
OURS = ("nuke_hdrgen.host", "nuke_hdrgen.ui.dock")


def forget() -> None:
    """Nothing of ours that imported another Nuke stays imported."""
    for name in [name for name in sys.modules if name.startswith(OURS)]:
        del sys.modules[name]


def _put_back(name: str, module: ModuleType | None) -> None:
    sys.modules.pop(name, None)
    if module is not None:
        sys.modules[name] = module


class _Kept(logging.Handler):
    """Log records as text."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class NukeCase(unittest.TestCase):
    """Tests in a Nuke. `start` starts one; at the end nothing may have been refused, logged as a warning or left."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hdrgen-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.cache = self.folder / "shot" / "hdrgen_cache"
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.folder)}
        for name in FOLDERS:
            (self.folder / name.lower()).mkdir(mode=0o700)
            environment[name] = str(self.folder / name.lower())
        self._patch(mock.patch.dict(os.environ, environment, clear=True))
        self._patch(mock.patch.object(sys, "path", list(sys.path)))
        for name in OF_NUKE:
            self.addCleanup(_put_back, name, sys.modules.pop(name, None))
        self.sidecar: BareSidecar = self._patch(BareSidecar(self.folder / "socket"))
        os.environ["HDRGEN_SERVER"] = self.sidecar.address
        self.log = _Kept()
        self.log.setLevel(logging.WARNING)
        logging.getLogger("nuke_hdrgen").addHandler(self.log)
        self.addCleanup(logging.getLogger("nuke_hdrgen").removeHandler, self.log)
        self.addCleanup(forget)
        del REFUSED[:]

    def tearDown(self) -> None:
        self.assertEqual([str(error) for error in REFUSED], [])
        self.assertEqual(self.log.lines, [])

    def _patch(self, context: Any) -> Any:
        entered = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return entered

    def start(self, *, gui: bool = True, **edition: bool) -> FakeNuke:
        """A Nuke that has run our init.py and menu.py, on an empty script in Nuke's own colour management."""
        forget()
        nuke = FakeNuke(gui=gui, **edition)
        for name in OF_NUKE:
            sys.modules.pop(name, None)
        sys.modules.update(nuke.modules())
        nuke.start([ROOT])
        nuke.root()["colorManagement"].setValue("Nuke")
        for name, value in (("first_frame", FIRST), ("last_frame", LAST)):
            nuke.root()[name].setValue(value)
        nuke.frame(FIRST)
        return nuke

    def save(self, nuke: FakeNuke, name: str = "comp_v001.nk") -> Path:
        """Save the script."""
        path = self.folder / "shot" / name
        path.parent.mkdir(exist_ok=True)
        nuke.scriptSaveAs(str(path), 1)
        return path

    def press(self, nuke: FakeNuke, node: Node, name: str) -> None:
        """Press a button and let Nuke go on until nothing of ours works or waits."""
        node[name].execute()
        settle(nuke)

    def files(self) -> dict[str, bytes]:
        """Every file of the cache by its path in there."""
        found = sorted(path for path in self.cache.rglob("*") if path.is_file())
        return {path.relative_to(self.cache).as_posix(): path.read_bytes() for path in found}

    def results(self) -> list[str]:
        """The names of the results in the cache."""
        return [name.rsplit("/", 1)[-1] for name in self.files()]


def settle(nuke: FakeNuke) -> None:
    """Run the event loop until no thread of ours works and no call waits."""
    if nuke.GUI:
        nuke.run_events(lambda: not _working() and not nuke.main_thread().pending())


def _working() -> bool:
    return any(thread.name.startswith("hdrgen") for thread in threading.enumerate())


def plate(nuke: FakeNuke, number: int, value: float = 0.18) -> Node:
    """A plate of one grey, a little brighter every frame."""
    return nuke.plate(
        lambda frame: FlatPlate(*PLATE, (value * (1 + 0.01 * (frame - FIRST)), value, value, 1.0)), f"Plate{number}"
    )


def hdrfuse(nuke: FakeNuke, *, still: bool = False) -> Node:
    """Three exposures."""
    plates = [plate(nuke, number, 0.18 * 4**number) for number in range(3)]
    node = nuke.createNode("HDRFuse", inpanel=False)
    for index, source in enumerate(plates):
        node.setInput(index, source)
    node["still"].setValue(still)
    return node


def sdr2hdr(nuke: FakeNuke) -> Node:
    """One plate."""
    source = plate(nuke, 1)
    node = nuke.createNode("SDR2HDR", inpanel=False)
    node.setInput(0, source)
    return node


def txt2hdr(nuke: FakeNuke) -> Node:
    """A prompt."""
    node = nuke.createNode("Txt2HDR", inpanel=False)
    for name, value in (("prompt", "a grey ramp"), ("size_width", 96), ("size_height", 64)):
        node[name].setValue(value)
    return node


MAKERS = {"HDRFuse": hdrfuse, "SDR2HDR": sdr2hdr, "Txt2HDR": txt2hdr}
