"""The test of SDR expansion: its curves, its samples, and that what knows the curve wins."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hdrgen_server.cli.main import run
from hdrgen_server.colour.curves import CURVES
from hdrgen_server.colour.interop import colourspace
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.evaluate import protocol, sdr_baselines, sdr_protocol
from hdrgen_server.evaluate.flicker import flicker_index
from hdrgen_server.image.exr import write_exr
from hdrgen_server.training.scenes import Scene
from nuke_hdrgen.wire.errors import BadInput, BadParameter


def grey(values: list[float]) -> np.ndarray:
    return np.array(values, np.float32)[None, :, None].repeat(8, 0).repeat(3, 2)


def test_the_curves() -> None:
    srgb = CURVES["srgb"]
    light = [0.0, 0.05, 0.18, 0.5, 1.0, 4.0]
    clip = sdr_protocol.hard_clip(grey(light))[0, :, 0]
    assert list(clip) == [round(255 * float(srgb.encode(min(v, 1.0)))) for v in light]
    # Hable: f(2 x 0.18) / f(11.2), by hand.
    f = lambda v: (v * (0.15 * v + 0.05) + 0.004) / (v * (0.15 * v + 0.5) + 0.06) - 0.02 / 0.3  # noqa: E731
    wanted = [round(255 * float(srgb.encode(min(f(2 * v) / f(11.2), 1.0)))) for v in light]
    assert np.abs(sdr_protocol.hable(grey(light))[0, :, 0].astype(int) - wanted).max() <= 1
    # Reinhard: 1.4 x 0.5 with white 1.5, at least: 0.7 (1 + 0.7 / 2.25) / 1.7.
    flat = np.full((32, 32, 3), 0.5, np.float32)
    code = round(255 * float(srgb.encode(0.7 * (1 + 0.7 / 2.25) / 1.7)))
    assert np.abs(sdr_protocol.reinhard_jpeg(flat).astype(int) - code).max() <= 1
    noisy = flat * np.random.default_rng(1).uniform(0.5, 1.5, flat.shape).astype(np.float32)
    assert np.abs(np.diff(sdr_protocol.reinhard_jpeg(noisy).astype(int), axis=1)).mean() > 5


def test_samples_are_the_same_views_under_each_curve(scenes: list[Scene]) -> None:
    found = {kind: list(sdr_protocol.samples(kind, scenes, 2)) for kind in sdr_protocol.KINDS}
    again = list(sdr_protocol.samples("b", scenes, 2))
    for index in range(2):
        a, b, c = (found[kind][index] for kind in "abc")
        assert a.scene_linear_hwc.tobytes() == b.scene_linear_hwc.tobytes() == c.scene_linear_hwc.tobytes()
        assert b.codes_nhwc.tobytes() == again[index].codes_nhwc.tobytes()
        assert a.codes_nhwc.shape == (1, 256, 256, 3)
        assert (a.codes_nhwc >= 250 / 255).mean() > (c.codes_nhwc >= 250 / 255).mean()
        assert (a.scene_linear_hwc.max(axis=2) >= 2.0).mean() >= 0.02
    with pytest.raises(BadParameter, match=r"no tone curve 'd'; there are: a, b, c"):
        next(sdr_protocol.samples("d", scenes, 1))


def test_what_knows_the_curve_wins(scenes: list[Scene]) -> None:
    methods = {**sdr_baselines.METHODS, "oracle": lambda s: s.scene_linear_hwc * 3}
    found = protocol.compare(methods, scenes, ("a", "c"), 2, draw=sdr_protocol.samples)
    assert found["oracle"]["a"].mean["psnr"] > 90  # the scale is aligned
    for kind in ("a", "c"):
        assert found["inverse_srgb"][kind].mean["psnr"] < 40
        assert found["inverse_srgb"][kind].mean["clip_bias"] < -0.3 or kind == "c"
    assert found["inverse_srgb"]["a"].mean["psnr"] > found["linear_gamma22"]["a"].mean["psnr"]


def test_the_command(scenes: list[Scene], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_exr(
        Frame(scenes[0].scene_linear_hwc, ("R", "G", "B"), colourspace("lin_rec709_scene")), tmp_path / "lebombo.exr"
    )
    call = ["evaluate", "bt2446", "inverse_srgb", "--data", str(tmp_path), "--count", "1", "--kinds", "a", "--json"]
    assert run(call) == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    assert set(scores) == {"bt2446", "inverse_srgb"}
    assert scores["bt2446"]["a"]["mean"]["clip_rmse"] < scores["inverse_srgb"]["a"]["mean"]["clip_rmse"]
    for wrong, words in (
        (["bt2446", "merge"], "bt2446 does sdr2hdr and merge hdrfuse; score them in two runs"),
        (["bt2446", "--kinds", "static_2"], "sdr2hdr has no kind 'static_2'; there are: a, b, c"),
        (["chart"], "chart is no pack of qwenlog or qwenlinear"),
        (["nothing"], "there is no pack or method 'nothing'"),
    ):
        assert run(["evaluate", *wrong, "--data", str(tmp_path)]) == 2
        assert words in capsys.readouterr().err


def shot(count: int = 6, wave: float = 0.0, speed: int = 2) -> list[np.ndarray]:
    """A pan over a smooth picture, brighter and darker by `wave` stops in turn."""
    x = np.linspace(0, 12, 160)
    wide = np.exp2(-2.5 + 1.5 * np.sin(x))[None, :, None].repeat(64, 0).repeat(3, 2)
    return [wide[:, speed * t : speed * t + 96] * 2.0 ** (wave * (-1) ** t) for t in range(count)]


def test_flicker_rises_with_what_flickers_alone() -> None:
    still = flicker_index(shot(speed=0))
    pan = flicker_index(shot())
    assert still == 0
    assert 0 < pan < 0.02
    indices = [flicker_index(shot(wave=wave)) for wave in (0.01, 0.05, 0.2)]
    assert indices == sorted(indices)
    assert indices[0] > pan
    # 0.2 stops up and down: 0.4 from the mean of the neighbours, over a spread of about one stop.
    assert indices[2] == pytest.approx(0.4 / np.std([np.log2(f[:, :, 1]) for f in shot(wave=0.2)]), rel=0.05)
    # A gain or a power is no flicker.
    assert flicker_index([4 * f for f in shot(wave=0.05)]) == pytest.approx(indices[1], rel=1e-6)
    assert flicker_index([f**1.5 for f in shot(wave=0.05)]) == pytest.approx(indices[1], rel=1e-3)
    # One area that flickers counts too.
    local = shot()
    for frame in local[::2]:
        frame[:16, :16] *= 1.5
    assert flicker_index(local) > 2 * pan


def test_flicker_needs_a_shot() -> None:
    with pytest.raises(BadInput, match=r"three frames or more, got 2"):
        flicker_index(shot(2))
    with pytest.raises(BadInput, match=r"frame 2 is of another size"):
        flicker_index([*shot(2), shot(1)[0][:32]])
    with pytest.raises(BadInput, match=r"one brightness"):
        flicker_index([np.ones((16, 16, 3))] * 3)
    with pytest.raises(BadInput, match=r"NaN or Inf"):
        flicker_index([np.full((16, 16, 3), np.nan)] * 3)
    assert flicker_index([np.full((4, 4, 3), v) for v in (0.1, 0.2, 0.1)]) > 1
