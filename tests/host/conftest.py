"""A fake Nuke that has run our init.py and menu.py, a real sidecar, and scripts with our gizmos in them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from nuke_hdrgen.client.launch import PrivateSidecar, Start
from tests.fakes.nuke import errors
from tests.fakes.nuke.api import FakeNuke
from tests.fakes.nuke.nodes import Node

ROOT = Path(__file__).parents[2]
EVS = (-2.0, 0.0, 2.0)
SIZE = (24, 32)  # rows, columns
FIRST, LAST = 1001, 1010


def forget() -> None:
    """Nothing of ours that imported the nuke of another test stays imported."""
    for name in [name for name in sys.modules if name.startswith(("nuke_hdrgen.host", "nuke_hdrgen.ui.dock"))]:
        del sys.modules[name]


@pytest.fixture(scope="session")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real sidecar."""
    folder = str(tmp_path_factory.mktemp("data"))
    command = [sys.executable, "-m", "hdrgen_server.gateway", "--device", "cpu"]
    environment = {"PATH": "/usr/bin:/bin", "HDRGEN_DATA_FOLDER": folder, "XDG_CONFIG_HOME": folder, "HOME": folder}
    with PrivateSidecar(Start(command, environment=environment), "test") as running:
        yield str(running.connection.peer.endpoint.address)


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folders of their own, and no sidecar but one that a test names."""
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home" / name.lower()))
        (tmp_path / "home" / name.lower()).mkdir(parents=True, mode=0o700)
    for name in ("HDRGEN_SERVER", "HDRGEN_SIDECAR", "HDRGEN_CACHE_ROOT", "HDRGEN_PROVENANCE", "OCIO"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def start_nuke(surroundings: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., FakeNuke]]:
    """Starts a Nuke; the one started last is `nuke`. Nothing of ours survives from the one before."""

    def start(*, gui: bool = False, **edition: bool) -> FakeNuke:
        forget()
        fake = FakeNuke(gui=gui, **edition)
        monkeypatch.setitem(sys.modules, "nuke", fake)
        monkeypatch.setitem(sys.modules, "nukescripts.panels", _Panels())
        fake.start([ROOT])
        fake.root()["colorManagement"].setValue("Nuke")
        for name, value in (("first_frame", FIRST), ("last_frame", LAST)):
            fake.root()[name].setValue(value)
        fake.frame(FIRST)
        return fake

    yield start
    forget()
    assert not errors.REFUSED, "an API that this Nuke does not know was used"


class _Panels:
    """nukescripts.panels as far as a panel is registered."""

    def registerWidgetAsPanel(self, widget: str, name: str, panel_id: str) -> None:
        self.registered = (widget, name, panel_id)


@pytest.fixture
def gui(start_nuke: Callable[..., FakeNuke], sidecar: str, monkeypatch: pytest.MonkeyPatch) -> FakeNuke:
    """A Nuke with windows and a sidecar."""
    monkeypatch.setenv("HDRGEN_SERVER", sidecar)
    return start_nuke(gui=True)


def scene(frame: int, height: int = SIZE[0], width: int = SIZE[1]) -> np.ndarray:
    """scene_linear_hwc RGBA: a smooth light from 0.02 to 8, a little brighter every frame."""
    ramp = np.geomspace(0.02, 8.0, width, dtype=np.float32)[None, :, None]
    tint = np.array([1.0, 0.8, 0.6], np.float32)[None, None, :]
    rows = np.linspace(0.7, 1.0, height, dtype=np.float32)[:, None, None] * (1 + 0.01 * (frame - FIRST))
    return np.concatenate([ramp * tint * rows, np.ones((height, width, 1), np.float32)], axis=2).astype(np.float32)


def exposed(stops: float, frame: int = FIRST) -> np.ndarray:
    """What a camera that clips at 1.0 makes of the scene, linear."""
    rgba = scene(frame)
    rgba[..., :3] = np.minimum(rgba[..., :3] * np.float32(2.0**stops), 1.0)
    return rgba


def rgba_of(nuke: FakeNuke, node: Node, frame: int) -> np.ndarray:
    """What flows out of a node: (H, W, 4), 0 where it has no such channel, as in Nuke."""
    planes = nuke.pixels(node, frame).planes
    nothing = np.zeros_like(planes["rgba.red"])
    return np.stack([planes.get(f"rgba.{name}", nothing) for name in ("red", "green", "blue", "alpha")], axis=2)


def hdrfuse(nuke: FakeNuke, *, still: bool = False) -> Node:
    """An HDRFuse over three exposures, on the plain merge."""
    plates = [nuke.plate(lambda frame, stops=stops: exposed(stops, frame), f"Plate{i}") for i, stops in enumerate(EVS)]
    node = nuke.createNode("HDRFuse", inpanel=False)
    for index, plate in enumerate(plates):
        node.setInput(index, plate)
    for name, value in (("pack", "merge"), ("still", still)):
        node[name].setValue(value)
    return node


def sdr2hdr(nuke: FakeNuke) -> Node:
    """An SDR2HDR over one clipped plate."""
    plate = nuke.plate(lambda frame: exposed(0.0, frame), "Plate1")
    node = nuke.createNode("SDR2HDR", inpanel=False)
    node.setInput(0, plate)
    return node


def txt2hdr(nuke: FakeNuke, *, still: bool = True) -> Node:
    """A Txt2HDR that draws the test chart."""
    node = nuke.createNode("Txt2HDR", inpanel=False)
    for name, value in (
        ("prompt", "a grey ramp"),
        ("pack", "chart"),
        ("size_width", 96),
        ("size_height", 64),
        ("still", still),
    ):
        node[name].setValue(value)
    return node


MAKERS: dict[str, Callable[[FakeNuke], Node]] = {"HDRFuse": hdrfuse, "SDR2HDR": sdr2hdr, "Txt2HDR": txt2hdr}


def press(nuke: FakeNuke, node: Node, name: str, timeout_s: float = 30.0) -> None:
    """Press a button and let Nuke go on until the node is no longer baked."""
    node[name].execute()
    settle(nuke, timeout_s)


def settle(nuke: FakeNuke, timeout_s: float = 30.0) -> None:
    """Let the event loop run until no thread of ours works and no call waits."""
    if nuke.GUI:
        nuke.run_events(lambda: not _threads() and not nuke.main_thread().pending(), timeout_s)


def _threads() -> list[str]:
    import threading

    return [thread.name for thread in threading.enumerate() if thread.name.startswith("hdrgen")]


def save(nuke: FakeNuke, folder: Path, name: str = "shot_v001.nk") -> Path:
    """Save the script."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    nuke.scriptSaveAs(str(path), 1)
    return path


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path, with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def results(folder: Path) -> list[str]:
    """The names of the results below a cache root."""
    return [Path(name).name for name in files(folder)]
