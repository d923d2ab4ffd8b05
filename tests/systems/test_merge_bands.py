"""The merge operator works band by band: without seams, in bounded memory, and it stops when it is told to."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from hdrgen_server.colour.curves import CURVES
from hdrgen_server.colour.interop import colourspace
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.contracts.operator import Request
from hdrgen_server.packs.descriptors import load_descriptor
from hdrgen_server.systems import hdrfuse, layers
from hdrgen_server.systems.merge import operator as o
from nuke_hdrgen.wire.errors import BadInput, Cancelled

SRGB = colourspace("srgb_rec709_scene")
LINEAR = colourspace("lin_rec709_scene")


class Watch:
    """Notes every step; cancels at `stop`."""

    def __init__(self, stop: int = -1) -> None:
        self.steps: list[tuple[int, int]] = []
        self.stop = stop

    def step(self, done: int, total: int, frame: int = 0) -> None:
        self.steps.append((done, total))
        if done == self.stop:
            raise Cancelled("cancelled")


def bracket(height: int, width: int, channels: tuple[str, ...] = ("R", "G", "B"), *, linear: bool = False):
    light = np.exp2(np.random.default_rng(4).uniform(-7, 1.5, (height, width, len(channels)))).astype(np.float32)
    frames = []
    for ev in (-2.0, 0.0, 2.0):
        seen = np.clip(light * np.float32(2.0**ev), 0, 1)
        pixels = seen if linear else (np.rint(CURVES["srgb"].encode(seen) * 255) / 255).astype(np.float32)
        frames.append(Frame(pixels, channels, LINEAR if linear else SRGB, ev=ev))
    return frames, light


def run(frames: list[Frame], watch: Watch, **given: object) -> Frame:
    operator = o.MergeOperator(load_descriptor("merge"))
    (result,) = operator.run(Request("hdrfuse", operator.descriptor.resolve(given), aovs=True), frames, watch)
    return result


@pytest.mark.parametrize("linear", [False, True])
def test_bands_leave_no_seam_and_every_band_is_a_step(monkeypatch: pytest.MonkeyPatch, linear: bool) -> None:
    frames, _ = bracket(37, 53, linear=linear)
    whole = run(frames, Watch())
    monkeypatch.setattr(o, "BAND_PIXELS", 53 * 5)
    watch = Watch()
    banded = run(frames, watch)
    assert np.array_equal(whole.pixels, banded.pixels)
    for name in ("hdrgen.generated", "hdrgen.clipped"):
        assert np.array_equal(whole.layers[name], banded.layers[name])
    assert watch.steps == [(done, 8) for done in range(9)]


def test_a_row_wider_than_a_band_still_merges(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, light = bracket(3, 40)
    monkeypatch.setattr(o, "BAND_PIXELS", 7)
    assert np.median(run(frames, Watch()).pixels / light) == pytest.approx(1, abs=0.01)


def test_cancel_stops_between_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, _ = bracket(40, 20)
    monkeypatch.setattr(o, "BAND_PIXELS", 20)
    watch = Watch(stop=3)
    with pytest.raises(Cancelled):
        run(frames, watch)
    assert watch.steps[-1] == (3, 40)


@pytest.mark.parametrize("linear", [False, True])
def test_beside_its_result_a_taller_frame_costs_no_more(monkeypatch: pytest.MonkeyPatch, linear: bool) -> None:
    for module in (o, layers):
        monkeypatch.setattr(module, "BAND_PIXELS", 1 << 12)
    for module, name in ((o, "_clip_level"), (hdrfuse, "plate_clip_level")):
        monkeypatch.setattr(module, name, lambda frames: 1.0)  # they look at whole planes, one at a time
    extra = {}
    for height in (64, 512):
        frames, _ = bracket(height, 256, linear=linear)
        tracemalloc.start()
        result = run(frames, Watch())
        extra[height] = tracemalloc.get_traced_memory()[1] - result.pixels.nbytes
        tracemalloc.stop()
        extra[height] -= sum(result.layers[name].nbytes for name in ("hdrgen.generated", "hdrgen.clipped"))
    assert extra[512] < 1.1 * extra[64]


def test_nan_in_one_band_names_frame_and_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, _ = bracket(12, 10)
    monkeypatch.setattr(o, "BAND_PIXELS", 30)
    frames[2].pixels[7, 4, 1] = np.nan
    with pytest.raises(BadInput, match="frame 2 of the bracket holds NaN or Inf in rows 6 to 8"):
        run(frames, Watch())


@pytest.mark.parametrize("response", ["srgb", "calibrated"])
def test_grey_frames_give_three_equal_channels(response: str) -> None:
    y, x = np.mgrid[0:96, 0:128].astype(np.float32)
    light = np.exp2(-6 + 7 * x / 128 + np.sin(y / 20))[..., None]
    frames = []
    for ev in (-2.0, 0.0, 2.0):
        codes = CURVES["srgb"].encode(np.clip(light * np.float32(2.0**ev), 0, 1).astype(np.float32))
        frames.append(Frame((np.rint(codes * 255) / 255).astype(np.float32), ("Y",), SRGB, ev=ev))
    result = run(frames, Watch(), response=response)
    assert result.channels == ("R", "G", "B")
    assert np.array_equal(result.pixels[..., 0], result.pixels[..., 2])
    assert np.median(result.pixels[..., :1] / light) == pytest.approx(1, abs=0.02)
