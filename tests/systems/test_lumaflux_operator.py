"""LumaFlux from files to frames, with tiny random networks through the real loaders."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from lumaflux_cases import TINY, write_pack
from steps import Steps

from hdrgen_server.colour.curves import CURVES
from hdrgen_server.colour.interop import colourspace
from hdrgen_server.colour.ocio import convert
from hdrgen_server.contracts.frame import Box, Frame
from hdrgen_server.contracts.operator import Request
from hdrgen_server.packs.add import finished_manifest
from hdrgen_server.packs.manifest import parse_pack
from hdrgen_server.systems.lumaflux import operator as o
from hdrgen_server.systems.lumaflux.frame import ON_CPU, Drive, FrameConverter, Tiling
from nuke_hdrgen.wire.errors import BadInput, Cancelled

SRGB, LINEAR = colourspace("srgb_rec709_scene"), colourspace("lin_rec709_scene")
RNG = np.random.default_rng(11)
WHOLE = Tiling(0, 0, 0, 0)


def pack_of(folder: Path):
    (folder / "pack.toml").write_bytes(finished_manifest(folder))
    return parse_pack((folder / "pack.toml").read_bytes(), folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_pack(tmp_path_factory.mktemp("pack"))


@pytest.fixture
def operator(folder, monkeypatch) -> o.LumaFluxOperator:
    monkeypatch.setattr(o, "CONFIGS", MappingProxyType({"tiny": TINY}))
    return o.create(pack_of(folder), "cpu")


def plate(height: int = 40, width: int = 56, *, clipped: bool = True) -> Frame:
    rows, columns = np.mgrid[:height, :width]
    codes = 0.15 + 0.6 * columns / width + 0.1 * np.sin(rows / 5) + RNG.uniform(-0.05, 0.05, (height, width))
    codes = np.repeat(np.clip(codes, 0, 0.95)[..., None], 3, axis=2) * [1, 0.95, 0.9]
    if clipped:
        codes[5:20, 30:50] = 1
    return Frame(np.rint(codes * 255).astype(np.float32) / 255, ("R", "G", "B"), SRGB)


def run(operator, *frames: Frame, aovs: bool = False, seed: int = 0, quality: str = "draft", watch=None, **given):
    parameters = operator.descriptor.resolve({"steps": 2, **given})
    request = Request("sdr2hdr", parameters, seed=seed, frame_count=len(frames), aovs=aovs, quality=quality)
    return list(operator.run(request, iter(frames), watch or Steps()))


def test_a_plate_comes_back_scene_linear_with_its_own_detail(operator):
    frame = plate()
    (result,) = run(operator, frame, aovs=True)
    assert result.colourspace.interop_id == "lin_rec2020_scene"
    assert result.colourspace.range == "scene_linear"
    assert np.isfinite(result.pixels).all()
    generated = result.layers["hdrgen.generated"]
    light = convert(frame, result.colourspace).rgb
    known = generated == 0
    gain = np.stack([result.layers[f"hdrgen.gain_{c}"] for c in "rgb"], axis=2)
    np.testing.assert_allclose(result.rgb[known], (light * np.exp2(gain))[known], rtol=1e-5)
    detail = np.corrcoef(*(np.diff(np.log(x[22:].mean(axis=2)), axis=1).ravel() for x in (result.rgb, light)))[0, 1]
    assert detail > 0.95


def test_generated_is_where_the_plate_clips_and_nowhere_else(operator):
    (result,) = run(operator, plate(), aovs=True)
    generated = result.layers["hdrgen.generated"]
    inside = np.zeros_like(generated)
    inside[5:20, 30:50] = 1
    assert ((generated > 0) == (inside > 0)).all()
    assert (generated[7:18, 32:48] == 1).all()
    np.testing.assert_array_equal(generated, result.layers["hdrgen.clipped"])
    (without,) = run(operator, plate(clipped=False), aovs=True)
    assert without.layers["hdrgen.generated"].max() == 0
    assert result.metadata["counts"]["clipped"] == 15 * 20 * 3


def test_mid_grey_stays(operator):
    grey = Frame(np.full((32, 32, 3), 0.18, np.float32), ("R", "G", "B"), LINEAR)
    (result,) = run(operator, grey)
    stops = np.log2(result.rgb @ [0.2627, 0.6780, 0.0593] / 0.18)
    assert stops.mean() == pytest.approx(0, abs=0.02)


def test_linear_and_encoded_plates_are_the_same_picture(operator):
    encoded = plate()
    linear = Frame(CURVES["srgb"].decode(encoded.pixels), ("R", "G", "B"), LINEAR)
    (one,), (two,) = run(operator, encoded), run(operator, linear)
    np.testing.assert_allclose(one.pixels, two.pixels, rtol=1e-2, atol=1e-4)


def test_bars_of_black_stay_black(operator):
    frame = plate()
    frame.pixels[:8] = 0
    (result,) = run(operator, frame)
    assert np.abs(result.rgb[:8]).max() == 0


def test_alpha_layers_windows_and_metadata_pass(operator):
    base = plate()
    pixels = np.concatenate([base.pixels, RNG.uniform(0, 1, (40, 56, 1))], axis=2).astype(np.float32)
    depth = RNG.uniform(0, 9, (40, 56)).astype(np.float16)
    frame = Frame(
        pixels, ("R", "G", "B", "A"), SRGB, number=7, data_window=Box(3, 4, 58, 43), display_window=Box(0, 0, 99, 99),
        metadata={"camera": "x"}, layers={"depth.Z": depth},
    )  # fmt: skip
    (result,) = run(operator, frame)
    np.testing.assert_array_equal(result.pixels[..., 3], pixels[..., 3])
    assert result.layers["depth.Z"] is depth
    assert (result.number, result.data_window, result.display_window) == (7, frame.data_window, frame.display_window)
    assert result.metadata["camera"] == "x"


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 13), (16, 17), (33, 31)])
def test_any_size_comes_back_in_its_size(operator, size):
    codes = RNG.uniform(0, 1, (*size, 3)).astype(np.float32)
    (result,) = run(operator, Frame(codes, ("R", "G", "B"), SRGB))
    assert result.pixels.shape == (*size, 3)
    assert np.isfinite(result.pixels).all()


def test_the_seed_decides_the_noise_and_frames_of_a_job_share_it(operator):
    frame = plate()
    (one,), (same,), (other,) = run(operator, frame, seed=1), run(operator, frame, seed=1), run(operator, frame, seed=2)
    np.testing.assert_array_equal(one.pixels, same.pixels)
    assert not np.array_equal(one.pixels, other.pixels)
    first, second = run(operator, frame, frame, seed=1)
    np.testing.assert_array_equal(first.pixels, second.pixels)


def test_no_state_stays_between_jobs(operator):
    a, b = plate(), plate(24, 24)
    (before,) = run(operator, a)
    run(operator, b, b, smoothing=0.8)
    np.testing.assert_array_equal(run(operator, a)[0].pixels, before.pixels)


def test_smoothing_holds_back_what_changes_from_frame_to_frame(operator):
    bright, dark = plate(), plate(clipped=False)
    dark.pixels[...] *= np.float32(0.5)
    _, alone = run(operator, bright, dark)
    _, smooth = run(operator, bright, dark, smoothing=0.8)
    np.testing.assert_array_equal(alone.pixels, run(operator, dark)[0].pixels)
    assert not np.array_equal(smooth.pixels, alone.pixels)


def test_strength_and_steps_reach_the_model(operator):
    frame = plate()
    (base,) = run(operator, frame)
    assert not np.array_equal(run(operator, frame, strength=0.0)[0].pixels, base.pixels)
    assert not np.array_equal(run(operator, frame, steps=5)[0].pixels, base.pixels)


@pytest.mark.parametrize(("quality", "expected"), [("draft", 8), ("final", 40)])
def test_quality_decides_the_steps_when_none_are_asked_for(operator, quality, expected):
    steps = Steps()
    parameters = operator.descriptor.resolve({})
    list(operator.run(Request("sdr2hdr", parameters, quality=quality), iter([plate(16, 16)]), steps))
    assert steps.seen == [(done, expected + 3) for done in (0, *range(expected + 4))]


def test_cancel_ends_between_tiles(operator):
    steps = Steps(cancel_at=3)
    with pytest.raises(Cancelled):
        run(operator, plate(), watch=steps)
    assert steps.seen[-1][0] == 3


@torch.inference_mode()
def test_tiles_of_the_transformer_see_the_whole_pictures_conditions(operator):
    """Without attention between places, tiled and whole are the same picture: nothing else depends on the tile."""
    model = operator.model
    for name, module in model.steered.transformer.named_modules():
        if name.endswith((".to_out.0", ".proj_out")) and "blocks" in name:
            torch.nn.init.zeros_(module.weight)
    codes = RNG.uniform(0, 1, (96, 80, 3)).astype(np.float32)
    drive = Drive(2, 1.0, 0.05, 0)

    def convert_with(tiling: Tiling) -> np.ndarray:
        return FrameConverter(model, codes, tiling, drive, lambda done, total: None).run().pq_hwc

    whole, tiled = convert_with(WHOLE), convert_with(Tiling(0, 0, 32, 8))
    assert np.ptp(whole) > 0.01
    np.testing.assert_allclose(tiled, whole, atol=2e-5)


def test_rungs_make_smaller_tiles_and_the_picture_stays_close(operator):
    frame = plate(140, 150)
    (whole,) = run(operator, frame, steps=1)
    operator.set_rung(4)
    assert operator._tiles(0).vae == 128  # no smaller
    (tiled,) = run(operator, frame, tile=64, steps=1)
    operator.set_rung(0)
    assert tiled.pixels.shape == whole.pixels.shape
    assert np.abs(np.log2((tiled.rgb + 0.01) / (whole.rgb + 0.01))).mean() < 0.5


@pytest.mark.parametrize(
    ("asked", "rung", "vae"), [(0, 0, ON_CPU.vae), (0, 2, ON_CPU.vae // 2), (256, 0, 256), (256, 2, 128), (100, 0, 100)]
)
def test_tiles_by_parameter_and_rung(operator, asked, rung, vae):
    operator.set_rung(rung)
    tiling = operator._tiles(asked)
    assert tiling.vae == vae
    assert tiling.vae % TINY.cell == tiling.transformer % TINY.cell == 0
    assert 2 * tiling.vae_overlap <= tiling.vae
    assert 2 * tiling.transformer_overlap <= tiling.transformer


def test_light_outside_rec709_is_said_to_be_unseen_and_is_kept(operator):
    space = colourspace("srgb_p3d65_scene")
    codes = np.zeros((24, 24, 3), np.float32)
    codes[..., 1] = 0.8
    (result,) = run(operator, Frame(codes, ("R", "G", "B"), space))
    assert any("lie outside Rec.709" in line for line in result.metadata["warnings"])
    assert result.rgb[..., 1].mean() > 0


def test_hdr_and_nan_are_refused(operator):
    with pytest.raises(BadInput, match="no SDR encoding"):
        run(operator, Frame(plate().pixels, ("R", "G", "B"), colourspace("pq_rec2020_display")))
    bad = plate()
    bad.pixels[0, 0, 0] = np.nan
    with pytest.raises(BadInput):
        run(operator, bad)


def test_without_velocity_noise_and_strength_the_vae_is_all_that_happens(folder, operator):
    model = operator.model
    for parameter in model.steered.transformer.proj_out.parameters():
        torch.nn.init.zeros_(parameter)
    codes = RNG.uniform(0.2, 0.8, (32, 32, 3)).astype(np.float32)
    made = FrameConverter(model, codes, WHOLE, Drive(8, 0.0, 0.0, 0), lambda done, total: None).run()
    with torch.no_grad():
        decoded = model.decode(model.encode(torch.from_numpy(codes).permute(2, 0, 1)[None]))
        expected = model.adapters.rqs(decoded, made.field, 0.0)
    np.testing.assert_allclose(made.round_trip_hwc, decoded[0].permute(1, 2, 0).numpy().clip(0, 1), atol=1e-5)
    np.testing.assert_allclose(made.pq_hwc, expected[0].permute(1, 2, 0).numpy(), atol=1e-5)


def test_another_configuration_is_named(folder):
    with pytest.raises(BadInput, match="has config 'tiny', which is none of published, s"):
        o.create(pack_of(folder), "cpu")
