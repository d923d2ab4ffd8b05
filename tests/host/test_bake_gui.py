"""A bake with a GUI: the shipped gizmos, a real sidecar, and Nuke's event loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.fakes.nuke.api import FakeNuke
from tests.host.conftest import FIRST, MAKERS, exposed, files, hdrfuse, press, results, rgba_of, save


@pytest.mark.parametrize("name", list(MAKERS))
def test_a_bake_of_each_gizmo_shows_its_result_and_a_second_sends_nothing(
    gui: FakeNuke, tmp_path: Path, name: str
) -> None:
    node = MAKERS[name](gui)
    save(gui, tmp_path)
    before = rgba_of(gui, node, FIRST)
    press(gui, node, "bake")
    assert gui.messages == []
    assert results(tmp_path / "hdrgen_cache") == [f"out.{FIRST}.exr"]
    after = rgba_of(gui, node, FIRST)
    assert np.isfinite(after).all()
    assert after[..., :3].max() > max(1.5, before[..., :3].max())
    assert "1 frame baked" in node["status"].value()

    kept = files(tmp_path / "hdrgen_cache")
    press(gui, node, "bake")
    assert files(tmp_path / "hdrgen_cache") == kept
    assert node["status"].value() == "nothing to bake, 1 frame found"


def test_a_range_is_fused_frame_by_frame(gui: FakeNuke, tmp_path: Path) -> None:
    node = hdrfuse(gui)
    save(gui, tmp_path)
    node["range"].setValue("1001-1004")
    press(gui, node, "bake_range")
    assert gui.messages == []
    assert results(tmp_path / "hdrgen_cache") == [f"out.{frame}.exr" for frame in range(1001, 1005)]
    for frame in range(1001, 1005):
        fused, reference = rgba_of(gui, node, frame), exposed(0.0, frame)
        well = ((reference[..., :3] > 0.05) & (reference[..., :3] < 0.9)).all(axis=2)
        np.testing.assert_allclose(fused[well], reference[well], rtol=0.02)
    np.testing.assert_array_equal(rgba_of(gui, node, 1005), exposed(0.0, 1005))


def test_the_default_pack_of_a_bracket_is_the_embedded_model(gui: FakeNuke, tmp_path: Path) -> None:
    node = hdrfuse(gui)
    node["pack"].setValue("")
    save(gui, tmp_path)
    press(gui, node, "bake")
    assert gui.messages == []
    picture = gui.pixels(node, FIRST)
    assert picture.metadata["exr/hdrgen/pack"] == "gmodiff-s"
    assert picture.planes["rgba.red"].max() > 2.0
    assert {"hdrgen.confidence", "hdrgen.gain_r", "hdrgen.clipped"} <= set(picture.planes)
