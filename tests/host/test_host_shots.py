"""A shot of LumiVid in the fake Nuke: the shipped gizmo, a real sidecar, networks of size s with random weights."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hdrgen_server.systems.lumivid.config import CONFIGS
from nuke_hdrgen.client.launch import PrivateSidecar, Start
from tests.fakes.nuke.api import FakeNuke
from tests.fakes.nuke.nodes import Node
from tests.host.conftest import FIRST, press, results, rgba_of, save, sdr2hdr

sys.path.append(str(Path(__file__).parents[1] / "systems"))
from lumivid_cases import pack_of, write_pack

COUNT = 14
WINDOWS = "window=9 overlap=4"
LOADING_S = 240.0  # torch, the pack and some windows on a busy CPU


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a sidecar that has the pack."""
    folder = tmp_path_factory.mktemp("data")
    pack = write_pack(folder / "packs" / "lumivid-tiny", CONFIGS["s"])
    manifest = pack / "pack.toml"
    manifest.write_text(manifest.read_text().replace('config = "tiny"', 'config = "s"'))
    pack_of(pack)
    command = [sys.executable, "-m", "hdrgen_server.gateway", "--device", "cpu"]
    environment = {"PATH": "/usr/bin:/bin", "HDRGEN_DATA_FOLDER": str(folder), "HOME": str(folder)}
    environment |= {"HDRGEN_PACKS_FOLDERS": str(folder / "packs"), "XDG_CONFIG_HOME": str(folder)}
    with PrivateSidecar(Start(command, environment=environment), "test") as running:
        (info,) = [pack for pack in running.connection.welcome.packs if pack.name == "lumivid-tiny"]
        assert (info.window, info.overlap) == (17, 8)
        yield str(running.connection.peer.endpoint.address)


@pytest.fixture
def shot(start_nuke, windowed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[FakeNuke, Node]:
    """A Nuke with a saved script, and an SDR2HDR whose range of 14 frames is a shot."""
    monkeypatch.setenv("HDRGEN_SERVER", windowed)
    nuke = start_nuke(gui=True)
    node = sdr2hdr(nuke)
    for name, value in (
        ("pack", "lumivid-tiny"), ("mode", "shot"), ("parameters", WINDOWS), ("range", f"{FIRST}-{FIRST + COUNT - 1}"),
    ):  # fmt: skip
        node[name].setValue(value)
    save(nuke, tmp_path)
    return nuke, node


def test_part_of_a_shot_is_all_of_it_bit_for_bit(shot: tuple[FakeNuke, Node], tmp_path: Path) -> None:
    nuke, node = shot
    nuke.frame(1007)
    press(nuke, node, "bake", LOADING_S)
    assert nuke.messages == []
    assert results(tmp_path / "hdrgen_cache") == ["out.1007.exr"]
    assert sorted({frame for _, frame, _ in nuke.executed}) == list(range(1001, 1015))  # two windows hold it
    part = rgba_of(nuke, node, 1007)
    press(nuke, node, "bake_range", LOADING_S)
    assert nuke.messages == []
    assert node["status"].value().startswith(f"{COUNT - 1} frames baked in ")
    assert "1 frame found" in node["status"].value()
    whole = [rgba_of(nuke, node, frame) for frame in range(FIRST, FIRST + COUNT)]
    assert all(np.isfinite(pixels).all() for pixels in whole)
    assert len({pixels.tobytes() for pixels in whole}) == COUNT
    np.testing.assert_array_equal(whole[6], part)
    press(nuke, node, "bake_range", LOADING_S)
    assert node["status"].value() == f"nothing to bake, {COUNT} frames found"
    node["cache_root"].setValue(f"{tmp_path}/again")
    press(nuke, node, "bake_range", LOADING_S)
    np.testing.assert_array_equal(rgba_of(nuke, node, 1007), part)


def test_a_frame_of_its_own_is_a_still(shot: tuple[FakeNuke, Node], tmp_path: Path) -> None:
    nuke, node = shot
    node["mode"].setValue("frame by frame")
    press(nuke, node, "bake", LOADING_S)
    assert nuke.messages == []
    assert results(tmp_path / "hdrgen_cache") == [f"out.{FIRST}.exr"]
    assert {frame for _, frame, _ in nuke.executed} == {FIRST}
    press(nuke, node, "bake", LOADING_S)
    assert node["status"].value() == "nothing to bake, 1 frame found"


def test_a_window_that_the_system_cannot_have_is_one_sentence(shot: tuple[FakeNuke, Node], tmp_path: Path) -> None:
    nuke, node = shot
    node["parameters"].setValue("window=300")
    press(nuke, node, "bake", LOADING_S)
    assert nuke.messages == ["window must be between 9 and 257, got 300"]
    assert not (tmp_path / "hdrgen_cache").exists() or results(tmp_path / "hdrgen_cache") == []
