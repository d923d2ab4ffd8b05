"""The protocol gives the same brackets every time and ranks methods as it must."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hdrgen_server.evaluate import baselines, protocol, report
from hdrgen_server.training.scenes import Scene
from nuke_hdrgen.wire.errors import BadInput, BadParameter


def test_samples_are_seeded_and_bright(scenes: list[Scene]) -> None:
    first, again = (list(protocol.samples("dyn_2", scenes, 2)) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one.codes_nhwc, other.codes_nhwc)
        assert (one.scene_linear_hwc.max(axis=2) >= 2.0).mean() >= 0.02
        assert one.evs == (-2.0, 0.0, 2.0)
        assert np.abs(one.codes_nhwc * 255 - np.rint(one.codes_nhwc * 255)).max() < 1e-4
    assert not np.array_equal(first[0].codes_nhwc, first[1].codes_nhwc)


def test_merges_win_still_and_lose_moving(scenes: list[Scene]) -> None:
    kinds = ("static_2", "dyn_2", "static_2_cam")
    names = ("single_mid", "hat_linear", "merge", "merge_calibrated")
    found = protocol.compare({name: baselines.METHODS[name] for name in names}, scenes, kinds, 2)
    psnr = {name: {kind: row[kind].mean["psnr"] for kind in kinds} for name, row in found.items()}
    assert psnr["merge"]["static_2"] > psnr["hat_linear"]["static_2"] > psnr["single_mid"]["static_2"] + 1
    assert psnr["merge"]["dyn_2"] < psnr["merge"]["static_2"] - 3
    assert psnr["merge_calibrated"]["static_2_cam"] > psnr["merge"]["static_2_cam"]


@pytest.mark.parametrize("name", ["cv_debevec", "cv_debevec_mtb", "cv_robertson_mtb", "cv_mertens_mtb"])
def test_every_alternative_gives_a_finite_image(scenes: list[Scene], name: str) -> None:
    sample = next(protocol.samples("static_2", scenes, 1))
    scores = protocol.score_sample(baselines.METHODS[name](sample), sample)
    assert 10 < scores.psnr < 50


def test_an_unknown_kind_and_a_dull_scene_are_refused(scenes: list[Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadParameter, match="static_2"):
        next(protocol.samples("static_9", scenes, 1))
    monkeypatch.setattr(protocol, "ATTEMPTS", 2)
    flat = Scene("flat", np.full((32, 64, 3), 0.4, np.float32), 0)
    with pytest.raises(BadInput, match="flat"):
        next(protocol.samples("static_2", [flat], 1))


def test_the_report_holds_the_figures(scenes: list[Scene], tmp_path: Path) -> None:
    results = {"single_mid": protocol.run_protocol(baselines.single_mid, scenes, ("static_2",), 2)}
    table, data = report.write_report(results, tmp_path)
    mean = results["single_mid"]["static_2"].mean["psnr"]
    assert f"| single_mid | {mean:.1f}±" in table.read_text()
    row = json.loads(data.read_text())["single_mid"]["static_2"]
    assert row["mean"]["psnr"] == pytest.approx(mean, abs=1e-4)
    assert row["mean"]["jod"] is None
    assert len(row["images"]) == 2


def test_a_sheet_is_a_picture(tmp_path: Path) -> None:
    report.write_sheet([("a", np.full((20, 30, 3), 0.2)), ("b", np.full((20, 30, 3), 8.0))], tmp_path / "s.png")
    with Image.open(tmp_path / "s.png") as picture:
        assert picture.size[1] > 2 * 20
        assert np.asarray(picture).max() == 255


def test_a_missing_figure_does_not_count() -> None:
    from hdrgen_server.evaluate.metrics import Scores

    scores = [Scores(20, 0.9, 1, math.nan, math.nan), Scores(22, 0.9, 1, 0.5, -0.5)]
    summary = protocol.summarise(scores)
    assert (summary.mean["clip_rmse"], summary.mean["psnr"]) == (0.5, 21)
    assert summary.error["psnr"] == pytest.approx(1.0)
