"""Joins of windows: found where they are, whatever the camera does, and told from drift; and the benchmark of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_lumivid_shot
from hdrgen_server.evaluate.joins import Joins, Steps, joins
from hdrgen_server.systems.lumivid.config import CONFIGS
from hdrgen_server.systems.lumivid.shot import weights_of
from nuke_hdrgen.wire.errors import BadInput
from nuke_hdrgen.wire.windows import Windows

sys.path.append(str(Path(__file__).parents[1] / "systems"))
from lumivid_cases import pack_of, write_pack

FRAMES = 60
RNG = np.random.default_rng(4)
WIDE = np.exp2(RNG.uniform(-4, 3, (3, 40))).repeat(8, axis=0).repeat(8, axis=1)[..., None].repeat(3, axis=2)
SPEEDS = RNG.integers(1, 4, FRAMES)
PLATE = [WIDE[:, at : at + 96] for at in np.cumsum(SPEEDS)]


def steps(frames) -> list[float]:
    found = Steps()
    for frame in frames:
        found.take(frame)
    return found.sizes


def measured(stops: np.ndarray, plan: Windows) -> Joins:
    """The joins of the plate with a gain in stops put on each frame."""
    return joins(steps(frame * 2.0**gain for frame, gain in zip(PLATE, stops, strict=True)), steps(PLATE), plan)


def blended(plan: Windows, size: float) -> np.ndarray:
    """The gain of windows that are alternately so much too bright and too dark, blended as LumiVid blends them."""
    stops = np.zeros(FRAMES)
    for number in range(FRAMES):
        if not plan.exists(number, FRAMES):
            break
        start = number * plan.hop
        length, after = min(plan.size, FRAMES - start), plan.exists(number + 1, FRAMES)
        weights = weights_of(length, plan, after=after, before=number > 0)
        stops[start : start + length] += size * (-1) ** number * np.array(weights)
    return stops


@pytest.mark.parametrize("plan", [Windows(17, 8), Windows(17, 4), Windows(17, 0), Windows(9, 4)])
def test_what_is_as_its_plate_has_no_joins(plan: Windows) -> None:
    found = measured(np.full(FRAMES, 1.5), plan)
    assert found.median == pytest.approx(1)
    assert found.worst == pytest.approx(1)


def test_a_jump_is_found_where_it_is() -> None:
    hard = Windows(17, 0)
    found = measured(blended(hard, 0.5), hard)
    assert found.count == 3
    assert found.median > 1.2
    one = np.zeros(FRAMES)
    one[34:] = 2.0
    found = measured(one, hard)
    assert found.worst_after == 33
    assert found.worst > 2
    assert found.median < 1.1


@pytest.mark.parametrize("plan", [Windows(17, 8), Windows(9, 4)])
def test_a_blend_hides_what_a_hard_join_shows(plan: Windows) -> None:
    hard = Windows(plan.hop, 0)
    assert measured(blended(plan, 0.5), plan).median < 1.2 < measured(blended(hard, 0.5), hard).median


@pytest.mark.parametrize("where", ["enters", "leaves"])
def test_both_ends_of_a_blend_are_joins(where: str) -> None:
    plan = Windows(17, 8)
    stops = np.zeros(FRAMES)
    stops[18 if where == "enters" else 26 :] = 2.0
    found = measured(stops, plan)
    assert found.worst_after == (17 if where == "enters" else 25)
    assert found.worst > 2
    elsewhere = np.zeros(FRAMES)
    elsewhere[22:] = 2.0  # inside the blend: no join
    assert measured(elsewhere, plan).worst < 1.1


def test_refused() -> None:
    plan = Windows(17, 8)
    moving = steps(PLATE)
    with pytest.raises(BadInput, match="has 58 steps, its plate 59"):
        joins(moving[1:], moving, plan)
    with pytest.raises(BadInput, match="the plate stands still after frame 4"):
        joins(moving, [*moving[:4], 0.0, *moving[5:]], plan)
    with pytest.raises(BadInput, match="17 frames in windows of 17 have no joins"):
        joins(moving[:16], moving[:16], plan)
    with pytest.raises(BadInput, match="have no joins with steps between"):
        joins(moving, moving, Windows(2, 1))
    with pytest.raises(BadInput, match="NaN or Inf"):
        Steps().take(np.full((8, 8, 3), np.nan))


def test_the_benchmark_measures_a_pack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_pack(tmp_path / "lumivid-tiny", CONFIGS["s"])
    manifest = folder / "pack.toml"
    manifest.write_text(manifest.read_text().replace('config = "tiny"', 'config = "s"'))
    pack_of(folder)
    bench_lumivid_shot.main(
        [str(folder), "--frames", "24", "--size", "64x48", "--set", "window=9", "--set", "overlap=4"]
    )
    found = json.loads(capsys.readouterr().out)
    assert (found["pack"], found["window"], found["overlap"], found["frames"]) == ("lumivid-tiny", 9, 4, 24)
    assert len(found["rss_mib"]) == 4  # windows begin at 0, 5, 10 and 15
    assert found["peak_mib"] >= max(found["rss_mib"]) > 100
    assert found["joins"]["count"] == 6
    assert 0 < found["joins"]["median"] <= found["joins"]["worst"]
    assert found["steps_over_plate"] > 0
