"""Stage two made ready to run: faster convolutions, number formats and kept features stay within their bounds."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from refine_cases import TINY, localised, random_initial, random_inputs, random_refiner, stirred
from torch import Tensor, nn

from hdrgen_server.systems.gmodiff.final import SecondStage
from hdrgen_server.systems.gmodiff.refine.bands import BandedRefinement, BandedResnet, BandedUpsample, use_bands
from hdrgen_server.systems.gmodiff.refine.config import REFINERS, RefinerConfig
from hdrgen_server.systems.gmodiff.refine.frame import FrameRefiner
from hdrgen_server.systems.gmodiff.refine.lora import add_lora
from hdrgen_server.systems.gmodiff.refine.model import Refiner
from hdrgen_server.systems.gmodiff.refine.prepare import LIMIT_DB, LOWEST, parts, prepare
from hdrgen_server.systems.gmodiff.refine.tiling import Tiling
from hdrgen_server.systems.gmodiff.refine.winograd import Winograd, convolve, use_winograd

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
# Wide enough that its large convolutions are replaced.
WIDE = replace(TINY, vae=replace(TINY.vae, block_out_channels=(96, 96), norm_num_groups=8), merge="decoded")


def db(found: Tensor, expected: Tensor) -> float:
    """10 log10 of 1 over the mean squared difference of two gain maps."""
    return -10 * math.log10(max(float(((found - expected) ** 2).mean()), 1e-12))


def smooth_inputs(config: RefinerConfig, side: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `random_inputs`, the maps smooth and everywhere doubted."""
    *_, prior = random_inputs(config, side, side)
    rows, columns = torch.meshgrid(torch.arange(side) / 20, torch.arange(side) / 20, indexing="ij")
    gain = (0.5 + 0.4 * torch.sin(rows + 2 * torch.cos(columns))).expand(1, 3, side, side).contiguous()
    return gain, torch.ones(1, 1, side, side), 1 - gain, prior


def adapted_refiner(config: RefinerConfig) -> Refiner:
    refiner = random_refiner(config)
    add_lora(refiner)
    return stirred(refiner, amount=0.02)


@pytest.mark.parametrize(
    ("batch", "channels_in", "channels_out", "height", "width", "bias"),
    [(1, 8, 12, 16, 24, True), (2, 5, 3, 33, 14, True), (1, 96, 100, 3, 2, False), (1, 4, 4, 70, 1041, True)],
)
def test_winograd_is_the_plain_convolution(
    batch: int, channels_in: int, channels_out: int, height: int, width: int, bias: bool
) -> None:
    torch.manual_seed(0)
    image = torch.randn(batch, channels_in, height, width)
    plain = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=bias).double()
    with torch.no_grad():
        expected = plain(image.double())
        plain.float()
        for given in (image, image.contiguous(memory_format=torch.channels_last)):
            found = convolve(given, plain.weight, plain.bias)
            assert found.is_contiguous(memory_format=torch.channels_last)
            assert (found - expected).abs().max() < 2e-5 * expected.abs().max()


def test_gradients_go_the_plain_way() -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(96, 96, 3, padding=1)
    image = torch.randn(1, 96, 32, 32, requires_grad=True)
    expected = torch.autograd.grad(plain(image).square().sum(), [image, *plain.parameters()])
    found = torch.autograd.grad(Winograd(plain)(image).square().sum(), [image, *plain.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_only_large_plain_3x3_convolutions_are_replaced() -> None:
    refiner = random_refiner(WIDE)
    names = list(refiner.state_dict())
    replaced = use_winograd(refiner)
    found = [module for module in refiner.modules() if isinstance(module, Winograd)]
    assert replaced == len(found) > 10
    assert all(min(m.in_channels, m.out_channels) >= 96 and m.stride == (1, 1) for m in found)
    assert list(refiner.state_dict()) == names
    assert use_winograd(refiner) == 0
    assert use_winograd(random_refiner(TINY)) == 0


@pytest.mark.parametrize("config", [TINY, WIDE], ids=["tiny", "wide"])
def test_a_prepared_refiner_gives_the_same_map(config: RefinerConfig) -> None:
    refiner, inputs = adapted_refiner(config), random_inputs(config, 64, 64)
    with torch.inference_mode():
        expected = refiner(*inputs)
    prepare(refiner, CPU, torch.float32)
    assert {p.dtype for p in refiner.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in refiner.parameters())
    with torch.inference_mode():
        found, again = refiner(*inputs), refiner(*inputs)
    assert not torch.equal(expected, inputs[0])
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)
    assert torch.equal(found, again)


@pytest.mark.parametrize("size", [(33, 50), (64, 24), (26, 25)])
def test_blocks_in_bands_are_the_plain_ones(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    refiner = stirred(random_refiner(WIDE), amount=0.1).requires_grad_(requires_grad=False)
    up: Any = refiner.vae.decoder.up_blocks[0]
    plain = nn.ModuleDict({"resnet": up.resnets[0], "up": up.upsamplers[0], "refinement": refiner.blocks[0]})
    picture, features = torch.randn(1, 96, *size) + 3, torch.randn(1, 96, *size)
    prior = torch.randn(1, WIDE.unet.cross_attention_dim, 4, 3)
    expected = [plain["resnet"](picture, None), plain["up"](picture), plain["refinement"](picture, features, prior)]
    names = list(plain.state_dict())
    use_winograd(plain)
    assert use_bands(plain) == 3
    assert list(plain.state_dict()) == names
    with torch.inference_mode():
        found = [plain["resnet"](picture), plain["up"](picture), plain["refinement"](picture.clone(), features, prior)]
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() < 5e-5 * other.abs().max()
    assert torch.equal(plain["resnet"](picture.requires_grad_(requires_grad=True)), plain["resnet"](picture))


def test_only_blocks_of_the_autoencoder_run_in_bands() -> None:
    refiner = prepare(adapted_refiner(WIDE), CPU, torch.float32)
    banded = (BandedResnet, BandedUpsample, BandedRefinement)
    kinds = {type(m) for part in (refiner.vae, refiner.condition, refiner.blocks) for m in part.modules()}
    assert kinds.issuperset(banded)
    assert not any(isinstance(m, banded) for m in refiner.unet.modules())


def test_bfloat16_is_used_where_it_holds_and_nowhere_else() -> None:
    config, low = REFINERS["s"], [name for name, dtype in LOWEST.items() if dtype == torch.bfloat16]
    inputs = smooth_inputs(config, 64)
    refiner = stirred(random_refiner(config), amount=0.02)
    with torch.inference_mode():
        expected = refiner(*inputs)
        for names, holds in ((low, True), (["encoder"], False), (["decoder"], False)):
            changed = stirred(random_refiner(config), amount=0.02)
            for name in names:
                parts(changed)[name].to(torch.bfloat16)
            assert (db(changed(*inputs), expected) > LIMIT_DB) == holds, names
    assert low == ["condition", "unet"]


def test_a_prepared_refiner_has_the_formats_of_the_table() -> None:
    refiner = prepare(adapted_refiner(TINY), CPU, torch.bfloat16)
    assert set(parts(refiner)) == set(LOWEST)
    for name, part in parts(refiner).items():
        assert {parameter.dtype for parameter in part.parameters()} == {LOWEST[name]}


def test_a_refiner_of_mixed_formats_takes_and_gives_float32() -> None:
    refiner = prepare(adapted_refiner(TINY), CPU, torch.bfloat16)
    gain, mask, under, prior = random_inputs(TINY, 64, 64)
    with torch.inference_mode():
        features = refiner.features(gain)
        initial, condition = refiner.latent(features), refiner.condition_latent(under)
        refined = refiner.denoise(initial, condition, prior)
        made = (
            initial,
            condition,
            refined,
            refiner.decode(refined, features, prior),
            refiner(gain, mask, under, prior),
        )
    assert {tensor.dtype for tensor in made} == {torch.float32}


@pytest.mark.parametrize("merge", ["masked", "decoded"])
def test_kept_features_are_made_once_and_change_nothing(merge: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refiner = stirred(random_refiner(replace(TINY, merge=merge)), amount=0.02)
    initial = random_initial(refiner, 96, 96)
    made: list[int] = []
    features = refiner.features

    def counted(gain: Tensor) -> list[Tensor]:
        found = features(gain)
        made.append(sum(f.nbytes for f in found))
        return found

    monkeypatch.setattr(refiner, "features", counted)
    results: list[tuple[np.ndarray, int]] = []
    small = Tiling(latents=32, latent_overlap=12, pixels=64, pixel_overlap=24)
    for room in (0, 1 << 30):
        made.clear()
        work = FrameRefiner(refiner, initial, replace(small, keep_bytes=room), CPU, lambda done, total: None)
        results.append((work.run(), len(made)))
    (again, twice), (kept, once) = results
    assert np.array_equal(again, kept)
    assert twice == 2 * once == 8
    work = FrameRefiner(refiner, initial, replace(small, keep_bytes=2 * made[0] - 1), CPU, lambda done, total: None)
    made.clear()
    work.run()
    assert len(made) == 2 * once - 1


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("merge", ["masked", "decoded"])
def test_cuda_gives_the_cpu_s_map(merge: str) -> None:
    config = replace(TINY, merge=merge)
    maps: list[np.ndarray] = []
    for device, dtype in (("cpu", torch.float32), ("cuda", torch.bfloat16)):
        refiner = localised(stirred(random_refiner(config), amount=0.02))
        add_lora(refiner)
        second = SecondStage(prepare(refiner, torch.device(device), dtype), device)
        maps.append(second.refine(random_initial(refiner, 90, 71), second.tiling(0, 0), lambda done, total: None))
    assert db(torch.from_numpy(maps[1]), torch.from_numpy(maps[0])) > 40


def test_the_benchmark_compares_both_ways() -> None:
    command = [sys.executable, "-m", "benchmarks.bench_gmodiff_refine", "--config", "s", "--size", "70x50"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    report = json.loads(done.stdout)
    assert report["db"] > 60
    assert report["ours"]["peak_gib"] > 0.1
    for way in ("plain", "ours"):
        assert sum(report[way]["phases"].values()) <= sum(report[way]["cpu_seconds"]) * 1.05
        assert report[way]["steps"] > 1
