"""LumiVid from files to frames, with tiny random networks through the real loaders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from lumivid_cases import FROM_PLATE, TINY, TWO_STAGES, pack_of, write_pack
from steps import Steps

from hdrgen_server.colour.interop import colourspace
from hdrgen_server.colour.ocio import convert
from hdrgen_server.contracts.frame import Box, Frame
from hdrgen_server.contracts.operator import Request
from hdrgen_server.systems.lumivid import operator as o
from nuke_hdrgen.wire.errors import BadInput, BadParameter, Cancelled

SRGB, LINEAR = colourspace("srgb_rec709_scene"), colourspace("lin_rec709_scene")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_pack(tmp_path_factory.mktemp("pack"))


@pytest.fixture
def operator(folder, monkeypatch) -> o.LumiVidOperator:
    monkeypatch.setattr(o, "CONFIGS", MappingProxyType({"tiny": TINY}))
    return o.create(pack_of(folder), "cpu")


def plates(count: int, first: int = 1, height: int = 32, width: int = 40, scene: int = 0) -> list[Frame]:
    """A pan over a seeded picture with a window that clips."""
    rng = np.random.default_rng((3, scene))
    rows, columns = np.mgrid[:height, : width + count]
    wide = 0.15 + 0.6 * ((columns * (1 + scene)) % width) / width + 0.1 * np.sin(rows / (5 - 2 * scene))
    wide = np.clip(wide + rng.uniform(-0.05, 0.05, wide.shape), 0, 0.95)
    wide[5:15, 10:25] = 1
    wide = wide if scene == 0 else 0.5 * (1 - wide)
    codes = np.rint(np.repeat(wide[..., None], 3, axis=2) * 255).astype(np.float32) / 255
    return [
        Frame(np.ascontiguousarray(codes[:, i : i + width]), ("R", "G", "B"), SRGB, number=first + i)
        for i in range(count)
    ]


def run(operator, frames, *, aovs: bool = False, seed: int = 0, quality: str = "draft", watch=None, **given):
    return list(stream(operator, iter(frames), aovs=aovs, seed=seed, quality=quality, watch=watch, **given))


def stream(operator, frames: Iterator[Frame], *, aovs=False, seed=0, quality="draft", watch=None, **given):
    parameters = operator.descriptor.resolve({"window": 9, "overlap": 4, **given})
    request = Request("sdr2hdr", parameters, seed=seed, aovs=aovs, quality=quality)
    return operator.run(request, frames, watch or Steps())


def pixels(results) -> np.ndarray:
    return np.stack([result.pixels for result in results])


def test_a_shot_comes_back_frame_by_frame_with_its_own_detail(operator):
    shot = plates(13)
    results = run(operator, shot, aovs=True)
    assert [result.number for result in results] == [frame.number for frame in shot]
    for frame, result in zip(shot, results, strict=True):
        assert result.colourspace.interop_id == "lin_rec2020_scene"
        light, known = convert(frame, result.colourspace).rgb, result.layers["hdrgen.generated"] == 0
        gain = np.stack([result.layers[f"hdrgen.gain_{c}"] for c in "rgb"], axis=2)
        np.testing.assert_allclose(result.rgb[known], (light * np.exp2(gain))[known], rtol=1e-4)
        assert np.isfinite(result.pixels).all()


def test_part_of_a_shot_is_the_same_as_all_of_it(operator):
    shot = plates(24)
    whole = pixels(run(operator, shot, shot_start=1))
    for first in (5, 10, 15):  # windows begin at indices 0, 5, 10, 15
        part = pixels(run(operator, shot[first:], shot_start=1))
        alone = 0 if first == 0 else 4  # the window before shares these
        np.testing.assert_array_equal(part[alone:], whole[first + alone :])
    head = pixels(run(operator, shot[:14], shot_start=1))
    np.testing.assert_array_equal(head[:10], whole[:10])


def test_frames_come_as_soon_as_no_later_window_looks_at_them(operator):
    taken: list[int] = []

    def source() -> Iterator[Frame]:
        for frame in plates(30):
            taken.append(frame.number)
            yield frame

    results = stream(operator, source())
    ahead = [len(taken) - done for done, _ in enumerate(results, 1)]
    assert len(ahead) == 30
    assert max(ahead) <= 9  # a window, and one frame that says whether another follows


def test_a_cut_parts_what_windows_see(operator):
    one, other = plates(6), plates(7, first=7, scene=1)
    whole = pixels(run(operator, [*one, *other]))
    alone = pixels(run(operator, one))
    np.testing.assert_array_equal(whole[:5], alone[:5])


def test_a_cut_in_every_frame_is_a_still_each(operator):
    shot = [replace(plates(1, scene=i % 2)[0], number=i) for i in range(5)]
    results = pixels(run(operator, shot))
    np.testing.assert_array_equal(results[1], results[3])
    np.testing.assert_allclose(results[0], pixels(run(operator, shot[:1]))[0], rtol=1e-6)


@pytest.mark.parametrize(("count", "size"), [(1, (17, 33)), (2, (1, 1)), (3, (40, 16))])
def test_few_frames_of_any_size(operator, count, size):
    results = run(operator, plates(count, height=size[0], width=size[1]))
    assert [r.pixels.shape for r in results] == [(*size, 3)] * count
    assert np.isfinite(pixels(results)).all()


def test_nothing_makes_nothing(operator):
    assert run(operator, []) == []


def test_alpha_layers_windows_and_metadata_pass(operator):
    (base,) = plates(1)
    rgba = np.concatenate([base.pixels, base.pixels[..., :1] * 0.5], axis=2).astype(np.float32)
    frame = Frame(
        rgba, ("R", "G", "B", "A"), SRGB, number=7, data_window=Box(3, 4, 42, 35), display_window=Box(0, 0, 99, 99),
        metadata={"camera": "x"}, layers={"depth.Z": rgba[..., 0].astype(np.float16)},
    )  # fmt: skip
    (result,) = run(operator, [frame])
    np.testing.assert_array_equal(result.pixels[..., 3], rgba[..., 3])
    assert (result.data_window, result.display_window) == (frame.data_window, frame.display_window)
    assert result.layers["depth.Z"] is frame.layers["depth.Z"]
    assert result.metadata["camera"] == "x"


def test_mid_grey_stays_and_black_stays_black(operator):
    grey = np.full((32, 48, 3), 0.18, np.float32)
    grey[:8] = 0
    shot = [Frame(grey.copy(), ("R", "G", "B"), LINEAR, number=i) for i in range(3)]
    for result in run(operator, shot):
        stops = np.log2(result.rgb[10:] @ [0.2627, 0.6780, 0.0593] / 0.18)
        assert stops.mean() == pytest.approx(0, abs=0.25)  # the random model's own unevenness
        assert np.abs(result.rgb[:6]).max() == 0


def test_the_seed_decides_and_quality_changes_the_second_stage(tmp_path, monkeypatch):
    monkeypatch.setattr(o, "CONFIGS", MappingProxyType({"tiny": TWO_STAGES}))
    operator = o.create(pack_of(write_pack(tmp_path, TWO_STAGES, lora=True)), "cpu")
    shot = plates(9)
    steps = {name: Steps() for name in ("draft", "final")}
    made = {name: pixels(run(operator, shot, seed=1, quality=name, watch=steps[name])) for name in steps}
    np.testing.assert_array_equal(made["draft"], pixels(run(operator, shot, seed=1)))
    assert not np.array_equal(made["draft"], pixels(run(operator, shot, seed=2)))
    assert not np.array_equal(made["draft"], made["final"])
    for seen in steps.values():
        assert [done for done, _ in seen.seen] == list(range(seen.seen[0][1] + 1))
    assert steps["final"].seen[0][1] == steps["draft"].seen[0][1] + 1


def test_a_flow_from_the_plate_that_goes_nowhere_leaves_the_plate(tmp_path, monkeypatch):
    monkeypatch.setattr(o, "CONFIGS", MappingProxyType({"tiny": FROM_PLATE}))
    operator = o.create(pack_of(write_pack(tmp_path, FROM_PLATE)), "cpu")
    shot, watch = plates(3), Steps()
    moved = pixels(run(operator, shot, watch=watch))
    assert [done for done, _ in watch.seen] == list(range(watch.seen[0][1] + 1))
    assert np.array_equal(moved, pixels(run(operator, shot, seed=5)))  # no noise to draw
    operator.model.transformer.proj_out.weight.data.zero_()
    operator.model.transformer.proj_out.bias.data.zero_()
    found = run(operator, shot, aovs=True)
    for frame, result in zip(shot, found, strict=True):
        known = result.layers["hdrgen.generated"] == 0
        np.testing.assert_allclose(result.rgb[known], convert(frame, result.colourspace).rgb[known], rtol=1e-4)
    assert not np.allclose(moved, pixels(found))


def test_a_smaller_reference_is_shown_where_the_lora_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(o, "CONFIGS", MappingProxyType({"tiny": TINY}))
    operator = o.create(pack_of(write_pack(tmp_path, lora=True, scale=2)), "cpu")
    assert operator.model.scale == 2
    watch = Steps()
    results = run(operator, plates(3), watch=watch)
    assert np.isfinite(pixels(results)).all()
    assert watch.seen[-1][0] == watch.seen[-1][1]


def test_the_models_own_light_is_another_picture(operator):
    shot = plates(3)
    plate, model = pixels(run(operator, shot)), pixels(run(operator, shot, detail="model"))
    assert not np.allclose(plate, model)
    assert (model >= -1e-3).all()


def test_tiles_and_rungs_keep_the_size(operator):
    shot = plates(2, height=150, width=170)
    whole = pixels(run(operator, shot))
    operator.set_rung(2)
    assert pixels(run(operator, shot, tile=256)).shape == whole.shape
    tiled = pixels(run(operator, shot, tile=128))
    assert np.isfinite(tiled).all()
    operator.set_rung(0)


def test_cancel_ends_it_between_steps(operator):
    with pytest.raises(Cancelled):
        run(operator, plates(3), watch=Steps(cancel_at=2))


@pytest.mark.parametrize(
    ("frames", "given", "error", "says"),
    [
        ([*plates(2), *plates(1, first=9)], {}, BadInput, "frame 9 follows 2: frames are missing"),
        ([*plates(2), *plates(1, first=3, width=48)], {}, BadInput, "48x32, the one before it 40x32"),
        (plates(2, first=4), {"shot_start": 1}, BadParameter, "frame 4 begins no window"),
        (plates(2), {"window": 12}, BadParameter, "multiple of 8 and 1, got 12"),
        (plates(2), {"overlap": 5}, BadParameter, "at most half a window"),
    ],
)
def test_what_is_no_shot_is_refused_by_name(operator, frames, given, error, says):
    with pytest.raises(error, match=says):
        run(operator, frames, **given)


def test_a_pack_of_another_kind_is_named(folder, monkeypatch):
    pack = pack_of(folder)
    with pytest.raises(BadInput, match="config 'tiny', which is none of published, s"):
        o.create(pack, "cpu")
    monkeypatch.setattr(o, "CONFIGS", MappingProxyType({"tiny": TINY}))
    with pytest.raises(BadInput, match="transform 'gamma'"):
        o.create(replace(pack, options={**pack.options, "transform": "gamma"}), "cpu")
