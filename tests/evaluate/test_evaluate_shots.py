"""`hdrgen evaluate --temporal` on pans, with and without JOD, and what is refused before any method runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hdrgen_server.cli.main import run
from hdrgen_server.colour.interop import colourspace
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.evaluate import jod, panned, sdr_baselines
from hdrgen_server.image.exr import write_exr
from hdrgen_server.training.scenes import Scene


@pytest.fixture
def folder(scenes: list[Scene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(panned, "HEIGHT", 72)
    monkeypatch.setattr(panned, "WIDTH", 96)
    light_hwc = scenes[0].scene_linear_hwc
    write_exr(Frame(light_hwc, ("R", "G", "B"), colourspace("lin_rec709_scene")), tmp_path / "lebombo.exr")
    return tmp_path


def test_packs_and_methods_without_one_are_measured_alike(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["evaluate", "inverse_srgb", "bt2446", "--temporal", "--data", str(folder), "--count", "1", "--kinds", "a,c"]
    assert run([*call, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["temporal"]
    assert [(row["method"], row["kind"]) for row in found] == [
        (method, kind) for method in ("inverse_srgb", "bt2446") for kind in "ac"
    ]
    assert {row["scene"] for row in found} == {"lebombo"}
    assert len({json.dumps(row["truth"]) for row in found}) == 1
    clipped, toned = found[:2]
    assert clipped["jod"] is None
    assert clipped["psnr"] != toned["psnr"]
    assert clipped["result"]["peak"] < clipped["truth"]["peak"]
    assert clipped["result"]["range_stops"] < clipped["truth"]["range_stops"]
    assert run(call) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["method", "kind", "scene", "psnr", "flicker", "flutter", "frame_to_frame", "peak",
                            "range_stops"]  # fmt: skip
    assert [row.split()[:2] for row in rows] == [[row["method"], row["kind"]] for row in found]
    assert f"{clipped['result']['flicker']:.4g} ({clipped['truth']['flicker']:.4g})" in rows[0]


@pytest.mark.skipif(not jod.available(), reason="cvvdp is not installed")
def test_jod_of_the_shot_stands_beside_its_frames(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["evaluate", "inverse_srgb", "--temporal", "--jod", "--data", str(folder), "--count", "1", "--kinds", "a"]
    assert run([*call, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["temporal"]
    assert row["jod"].keys() == {"video", "images"}
    assert row["jod"]["video"] != row["jod"]["images"]
    assert max(row["jod"].values()) < 9.9
    assert run(call) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].endswith("jod")
    assert f"{row['jod']['video']:.3f} ({row['jod']['images']:.3f})" in out


@pytest.mark.parametrize("how", [["--temporal"], []])
def test_without_the_package_jod_is_refused_before_any_method_runs(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, how: list[str]
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(jod, "available", lambda: False)
    monkeypatch.setattr(panned, "over_time", lambda *_, **__: ran.append("pan"))
    monkeypatch.setattr(sdr_baselines, "srgb_decode", lambda *_: ran.append("plate"))
    assert run(["evaluate", "inverse_srgb", *how, "--jod", "--data", str(folder), "--count", "1"]) == 2
    assert "JOD needs the package cvvdp; install it with" in capsys.readouterr().err
    assert not ran


ALONE = "--flicker or --temporal goes with --data, --kinds, --count, --set and --json, and --temporal with --jod"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bt2446", "--temporal", "--kinds", "a,bt2446a/23"], "pans have no kind 'bt2446a/23'; there are: a, b, c"),
        (["bt2446", "--temporal", "--kinds", "d"], "sdr2hdr has no kind 'd'"),
        (["bt2446", "--temporal", "--flicker"], ALONE),
        (["bt2446", "--temporal", "--degradations"], ALONE),
        (["bt2446", "--temporal", "--knock-out"], ALONE),
        (["bt2446", "--flicker", "--preserve-plate"], ALONE),
        (["bt2446", "--flicker", "--jod"], ALONE),
        (["bt2446", "--temporal", "--report", "."], ALONE),
        (["merge", "--temporal"], "--flicker and --temporal are for sdr2hdr, and merge does hdrfuse"),
        (["single_mid", "--temporal"], "--flicker and --temporal are for sdr2hdr, and single_mid does hdrfuse"),
        (["bt2446", "nothing", "--temporal"], "there is no pack or method 'nothing'"),
        (["inverse_srgb", "bt2446", "--temporal", "--set", "warmth=1"], "warmth"),
        (["bt2446", "--temporal", "--data", "."], "no held-out panoramas"),
    ],
)
def test_refused_before_any_method_runs(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    ran: list[object] = []
    for name in ("over_time", "steadiness"):
        monkeypatch.setattr(panned, name, lambda *_, **__: ran.append(0))
    (folder / "empty").mkdir()
    monkeypatch.chdir(folder / "empty")
    assert run(["evaluate", "--data", str(folder), "--count", "1", *arguments]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert (captured.out, captured.err.count("\n"), ran) == ("", 1, [])
