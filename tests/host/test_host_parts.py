"""Small parts of the host: timings, words, the working space, exposures in metadata, the start-up files."""

from __future__ import annotations

import json
import logging
import os
import runpy
import sys
from pathlib import Path

import pytest

from nuke_hdrgen.wire.errors import BadParameter
from nuke_hdrgen.wire.messages import Progress
from tests.host.conftest import ROOT, hdrfuse, press, save, sdr2hdr


def test_timings_are_remembered_for_a_device(start_nuke, tmp_path: Path) -> None:
    start_nuke()
    from nuke_hdrgen.host.timings import Timing, remember, timing

    path = str(tmp_path / "deep" / "timings.json")
    assert timing(path, "hdrfuse", "", "draft") is None
    remember(path, "hdrfuse", "", "draft", Timing(2.0, "cpu"))
    remember(path, "hdrfuse", "", "draft", Timing(4.0, "cpu"))
    assert timing(path, "hdrfuse", "", "draft") == Timing(3.0, "cpu")
    remember(path, "hdrfuse", "", "draft", Timing(0.5, "cuda:0"))
    assert timing(path, "hdrfuse", "", "draft") == Timing(0.5, "cuda:0")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["timings.json"]
    for text in ("", "[]", "{", json.dumps({"hdrfuse/default/draft": {"seconds_per_megapixel": "2"}})):
        Path(path).write_text(text)
        assert timing(path, "hdrfuse", "", "draft") is None
    remember("/proc/nowhere/timings.json", "hdrfuse", "", "draft", Timing(1.0, "cpu"))


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "1 s"), (59.4, "59 s"), (60, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_how_long(start_nuke, seconds: float, said: str) -> None:
    start_nuke()
    from nuke_hdrgen.host.reports import duration

    assert duration(seconds) == said


def test_lines_of_progress_never_hold_the_word_error(start_nuke) -> None:
    start_nuke()
    from nuke_hdrgen.host.reports import WORDS, LineReport

    assert "error" not in " ".join(WORDS.values()).lower()
    lines: list[str] = []
    now = iter([0.0, 0.5, 2.0])
    report = LineReport(lines.append, lambda: next(now))
    report.begin(2, "merge", "cpu")

    class Piece:
        class task:
            frame = 12

    report.step(Piece, Progress("j", "step", 0, 8, 30))  # type: ignore[arg-type]
    report.step(Piece, Progress("j", "step", 0, 9, 30))  # type: ignore[arg-type]
    report.step(Piece, Progress("j", "queued", 0, 0, 0, 3))  # type: ignore[arg-type]
    report.ready(Piece, "", 1, True)  # type: ignore[arg-type]
    assert lines == [
        "HDRGEN 2 frames with merge on cpu",
        "HDRGEN frame 12 step 8/30",
        "HDRGEN frame 12 waiting behind 3",
        "HDRGEN frame 12 baked (1/2)",
    ]


@pytest.mark.parametrize(
    "config",
    [
        "ocio://cg-config-v1.0.0_aces-v1.3_ocio-v2.1",
        "ocio://studio-config-v2.2.0_aces-v1.3_ocio-v2.4",
        "ocio://studio-config-latest",
    ],
)
def test_the_working_space_of_an_ocio_script(start_nuke, monkeypatch: pytest.MonkeyPatch, config: str) -> None:
    """ACEScg; its chromaticities: Academy S-2014-004."""
    nuke = start_nuke()
    nuke.root()["colorManagement"].setValue("OCIO")
    monkeypatch.setenv("OCIO", config)
    from nuke_hdrgen.host.colour import working_space

    found = working_space()
    assert found is not None
    if found.interop_id:
        assert found.interop_id == "lin_ap1_scene"
    else:
        ap1 = (0.713, 0.293, 0.165, 0.83, 0.128, 0.044, 0.32168, 0.33767)
        assert found.chromaticities == pytest.approx(ap1, abs=1e-5)


def test_a_config_that_cannot_be_read_leaves_the_space_to_the_knob(start_nuke, monkeypatch: pytest.MonkeyPatch) -> None:
    nuke = start_nuke()
    nuke.root()["colorManagement"].setValue("OCIO")
    monkeypatch.setenv("OCIO", "/nowhere/config.ocio")
    from nuke_hdrgen.host.colour import stated_space, working_space

    assert working_space() is None
    with pytest.raises(BadParameter, match="colourspace is empty"):
        stated_space("", "")
    monkeypatch.setitem(sys.modules, "PyOpenColorIO", None)
    assert working_space() is None


@pytest.mark.parametrize(
    ("metadata", "ev"),
    [
        ({"exr/expTime": 0.25, "exr/aperture": 2.0, "exr/isoSpeed": 400.0}, -2.0),
        ({"exif/2/ExposureTime": "1/64", "exif/2/FNumber": "1", "exif/2/ISOSpeedRatings": "100"}, -6.0),
        ({"exr/expTime": "2"}, 1.0),
        ({"exif/ExposureTime": 0.5, "exif/FNumber": 0}, -1.0),
        ({"exr/aperture": 2.0}, None),
        ({"exr/expTime": "1/0"}, None),
        ({"exr/expTime": "soon"}, None),
        ({}, None),
    ],
)
def test_exposure_of_metadata(start_nuke, metadata: dict[str, object], ev: float | None) -> None:
    start_nuke()
    from nuke_hdrgen.host.colour import exposure_ev

    assert exposure_ev(metadata) == ev


def test_ev_from_metadata_fills_the_knobs(gui, tmp_path: Path) -> None:
    from tests.fakes.nuke.pixels import from_array
    from tests.host.conftest import exposed

    node = hdrfuse(gui)
    for index, seconds in enumerate((0.01, 0.04, 0.16)):
        gui.plates[f"Plate{index}"] = from_array(exposed(0.0), {"exr/expTime": seconds})
    press(gui, node, "ev_from_metadata")
    assert gui.messages == []
    assert [node[f"ev{n}"].value() for n in (1, 2, 3)] == pytest.approx([-2.0, 0.0, 2.0], abs=1e-3)
    assert node["status"].value() == "EV of 3 exposures read from metadata"
    gui.plates["Plate1"] = exposed(0.0)
    press(gui, node, "ev_from_metadata")
    assert "exposure 2 of HDRFuse1 states no exposure time; type its EV into ev2" in gui.messages[0]


def test_how_long_a_bake_will_take(gui, tmp_path: Path) -> None:
    node = sdr2hdr(gui)
    save(gui, tmp_path)
    press(gui, node, "estimate")
    assert node["status"].value() == "not measured on this machine yet; bake one frame, then ask again"
    press(gui, node, "bake")
    press(gui, node, "estimate")
    assert node["status"].value().startswith("10 frames: about ")
    assert node["status"].value().endswith(" on cpu")


@pytest.mark.parametrize("name", ["init.py", "menu.py"])
def test_starting_goes_on_where_nuke_does_not_know_us(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in [module for module in sys.modules if module.startswith("nuke_hdrgen.host")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "nuke", None)
    with caplog.at_level(logging.WARNING):
        runpy.run_path(str(ROOT / name))
    (record,) = caplog.records
    assert "not available" in record.getMessage()


def test_menus_and_panel(start_nuke) -> None:
    nuke = start_nuke(gui=True)
    for name in ("HDRFuse", "SDR2HDR", "Txt2HDR"):
        nuke.run_menu(f"Nodes/HDRGen/{name}")
    made = {node.Class(): node for node in nuke.allNodes()}
    assert sorted(made) == ["HDRFuse", "SDR2HDR", "Txt2HDR"]
    assert made["SDR2HDR"].input(0) is made["HDRFuse"]
    assert made["Txt2HDR"].input(0) is None
    assert sys.modules["nukescripts.panels"].registered[1] == "HDRGen"  # type: ignore[attr-defined]


def test_the_menu_starts_a_sidecar_with_a_clean_environment(
    start_nuke, surroundings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = ROOT / "tests" / "fakes" / "fake_gateway.py"
    monkeypatch.setenv("HDRGEN_SIDECAR", f"{sys.executable} {gateway}")
    for name in ("PYTHONHOME", "PYTHONPATH", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, "/opt/nuke")
    nuke = start_nuke(gui=True)
    nuke.run_menu("Nuke/HDRGen/Start sidecar")
    nuke.run_events(lambda: nuke.messages)
    (line,) = nuke.messages
    assert line.startswith("The sidecar runs: version ")
    seen = json.loads((surroundings / "home" / "xdg_runtime_dir" / "hdrgen" / "environment.json").read_text())
    assert not {"PYTHONHOME", "PYTHONPATH", "LD_LIBRARY_PATH"} & set(seen)
    os.kill(int(line.rsplit("pid ", 1)[1].rstrip(".")), 15)
