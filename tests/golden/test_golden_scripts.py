"""Scripts saved by every release still load, with every knob as it was, and still point at the same results.

A release adds its script with UPDATE_GOLDEN=1; a script that is there is never rewritten.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nuke_hdrgen import __version__
from tests.fakes.nuke.api import FakeNuke

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent / "scripts"
CACHE = "/mnt/show/hdrgen_cache"
CHANGED: dict[str, dict[str, object]] = {
    "HDRFuse": {
        "bake_id": "0a1b2c3d4e5f", "seed": 11, "exposures": 5, "ev1": -3.5, "offset4": 9, "reference": "2",
        "source": "frames", "pack": "gmodiff-s", "quality": "final", "parameters": "tile=512", "still": False,
        "range": "1001-1010", "preserve_plate": True, "gain": 1.5, "use_ceiling": True, "ceiling": 40.0, "mix": 0.8,
    },
    "SDR2HDR": {
        "bake_id": "1a1b2c3d4e5f", "seed": 12, "mode": "shot", "encoding": "Rec.1886", "clip_threshold": 240,
        "take": 2, "unbaked": "error", "still": True, "still_frame": 1005, "colourspace": "lin_ap1_scene",
    },
    "Txt2HDR": {
        "bake_id": "2a1b2c3d4e5f", "seed": 13, "prompt": "a \"low\" sun [over] {water},\ncalm",
        "negative_prompt": "people", "size_width": 2048, "projection": "panorama", "count": 4, "variation": 3,
        "strength": 0.25, "show_result": False,
    },
}  # fmt: skip


@pytest.fixture
def nuke(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeNuke]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    fake = FakeNuke(gui=True)
    monkeypatch.setitem(sys.modules, "nuke", fake)
    monkeypatch.setitem(sys.modules, "nukescripts.panels", None)
    fake.start([ROOT])
    yield fake
    for name in [name for name in sys.modules if name.startswith("nuke_hdrgen.host")]:
        del sys.modules[name]


def settle(nuke: FakeNuke) -> None:
    import threading

    nuke.run_events(
        lambda: (
            not nuke.main_thread().pending()
            and not [thread for thread in threading.enumerate() if thread.name.startswith("hdrgen")]
        )
    )


def make(nuke: FakeNuke, path: Path) -> None:
    """The script of this release: each gizmo with other values than its own."""
    plate = nuke.createNode("Constant", inpanel=False)
    for name, values in CHANGED.items():
        node = nuke.createNode(name, inpanel=False)
        node.setInput(0, plate)
        for knob, value in {**values, "cache_root": CACHE}.items():
            node[knob].setValue(value)
    settle(nuke)
    nuke.scriptSaveAs(str(path))


def test_this_release_has_its_script(nuke: FakeNuke) -> None:
    path = SCRIPTS / f"{__version__}.nk"
    if os.environ.get("UPDATE_GOLDEN") and not path.exists():
        make(nuke, path)
    assert path.is_file(), "run with UPDATE_GOLDEN=1 and commit the script"


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.nk")), ids=lambda path: path.stem)
def test_a_script_of_a_release_loads_as_it_was(nuke: FakeNuke, path: Path) -> None:
    nuke.scriptOpen(str(path))
    settle(nuke)
    saved = {node.Class(): node for node in nuke.allNodes() if node.Class() in CHANGED}
    assert set(saved) == set(CHANGED)
    for name, values in CHANGED.items():
        node = saved[name]
        assert {knob: node[knob].value() for knob in values} == values
        before = node["result_path"].value()
        assert before.startswith(f"{CACHE}/{values['bake_id']}/")
        from nuke_hdrgen.host import pointing

        assert pointing.point(node) == before, "the same knobs must lead to the same results as ever"
