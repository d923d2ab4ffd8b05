"""SDR plates through the operator: mid-grey, codes, counts, masks, and what passes untouched."""

from __future__ import annotations

import numpy as np
import pytest

from hdrgen_server.colour.curves import CURVES
from hdrgen_server.colour.interop import colourspace
from hdrgen_server.colour.ocio import convert
from hdrgen_server.contracts.frame import Box, Colourspace, Frame
from hdrgen_server.contracts.operator import Request
from hdrgen_server.image.finish import clipped_pixels, result_weight
from hdrgen_server.packs.descriptors import load_descriptor
from hdrgen_server.systems import curve
from hdrgen_server.systems.bt2446 import operator as o
from nuke_hdrgen.wire.errors import BadInput, BadParameter, Cancelled

LINEAR = colourspace("lin_rec709_scene")
SRGB = colourspace("srgb_rec709_scene")
KINDS = {("Y",): 1, ("Y", "A"): 2, ("R", "G", "B"): 3, ("R", "G", "B", "A"): 4}
RNG = np.random.default_rng(8)


class Steps:
    def __init__(self, cancel_at: int = -1) -> None:
        self.seen: list[tuple[int, int, int]] = []
        self._cancel_at = cancel_at

    def step(self, done: int, total: int, frame: int = 0) -> None:
        self.seen.append((done, total, frame))
        if done == self._cancel_at:
            raise Cancelled("the job was cancelled")


def run(*frames: Frame, aovs: bool = False, steps: Steps | None = None, **given: object) -> list[Frame]:
    operator = o.BT2446Operator(load_descriptor("bt2446"))
    request = Request("sdr2hdr", operator.descriptor.resolve(given), frame_count=len(frames), aovs=aovs)
    return list(operator.run(request, iter(frames), steps or Steps()))


def codes(height: int = 9, width: int = 13) -> np.ndarray:
    return (RNG.integers(0, 256, (height, width, 3)) / 255).astype(np.float32)


def grey(value: float, space: Colourspace = LINEAR) -> Frame:
    return Frame(np.full((4, 5, 3), value, np.float32), ("R", "G", "B"), space)


def in_rec709(frame: Frame) -> np.ndarray:
    return convert(frame, LINEAR).rgb


@pytest.mark.parametrize("given", [{}, {"method": "c"}, {"peak_nits": 300.0}, {"encoding": "gamma22"}], ids=str)
def test_mid_grey_stays_and_white_opens(given):
    (result,) = run(grey(0.18), **given)
    assert in_rec709(result) == pytest.approx(0.18, rel=1e-5)
    (white,) = run(grey(1.0), **given)
    assert in_rec709(white).min() > 1.5
    assert result.colourspace.interop_id == "lin_rec2020_scene"
    assert result.colourspace.range == "scene_linear"


def test_method_c_leaves_everything_below_its_knee():
    light = np.linspace(0, 0.5, 4 * 5 * 3, dtype=np.float32).reshape(4, 5, 3)
    (result,) = run(Frame(light, ("R", "G", "B"), LINEAR), method="c")
    np.testing.assert_allclose(in_rec709(result), light, rtol=1e-4, atol=1e-6)


def test_linear_and_encoded_plates_are_the_same_picture():
    encoded = Frame(codes(), ("R", "G", "B"), SRGB)
    linear = Frame(CURVES["srgb"].decode(encoded.pixels), ("R", "G", "B"), LINEAR)
    one, two = run(encoded, linear)
    np.testing.assert_allclose(one.pixels, two.pixels, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize(("light", "clipped"), [(0.954, {"rec1886"}), (0.9565, {"rec1886", "srgb"})])
def test_the_encoding_decides_what_counts_as_clipped_and_not_the_light(light, clipped):
    """Code 250 is linear 0.9536 of Rec.1886, 0.9560 of sRGB and 0.9574 of the power 2.2."""
    results = {name: run(grey(light), encoding=name)[0] for name in ("srgb", "rec1886", "gamma22")}
    assert {name for name, result in results.items() if result.metadata["counts"]["clipped"]} == clipped
    for result in results.values():
        np.testing.assert_allclose(result.pixels, results["srgb"].pixels, rtol=1e-5)


@pytest.mark.parametrize("channels", KINDS, ids="".join)
def test_every_kind_of_plate_becomes_rgb_and_keeps_its_alpha(channels):
    pixels = RNG.random((6, 7, KINDS[channels]), dtype=np.float32)
    (result,) = run(Frame(pixels, channels, LINEAR), aovs=True)
    assert result.channels == (("R", "G", "B", "A") if "A" in channels else ("R", "G", "B"))
    assert result.pixels.shape == (6, 7, len(result.channels))
    assert result.pixels.dtype == np.float32
    assert np.isfinite(result.pixels).all()
    if "A" in channels:
        np.testing.assert_array_equal(result.pixels[..., 3], pixels[..., -1])
    if "Y" in channels:
        np.testing.assert_allclose(result.pixels[..., 0], result.pixels[..., 2], rtol=1e-4, atol=1e-6)


def test_layers_windows_numbers_and_metadata_pass():
    depth = RNG.random((9, 13)).astype(np.float16)
    frame = Frame(
        codes(), ("R", "G", "B"), SRGB, number=1007, data_window=Box(3, 4, 15, 12), display_window=Box.of_size(40, 30),
        pixel_aspect=2.0, metadata={"camera": "x"}, layers={"depth.Z": depth},
    )  # fmt: skip
    (result,) = run(frame)
    assert result.layers == {"depth.Z": depth}
    assert (result.number, result.pixel_aspect, result.metadata["camera"]) == (1007, 2.0, "x")
    assert (result.data_window, result.display_window) == (frame.data_window, frame.display_window)


@pytest.mark.parametrize("threshold", [255, 250, 128, 1])
def test_aovs_say_what_is_clipped_and_what_is_a_guess(threshold):
    frame = Frame(codes(30, 40), ("R", "G", "B"), SRGB)
    frame.pixels[:5, :5] = 1 / 255
    frame.pixels[10:20, 10:20] = 1.0
    (result,) = run(frame, aovs=True, clip_threshold=threshold)
    clipped = (frame.pixels >= threshold / 255 - 1e-5).any(axis=2)
    crushed = (frame.pixels <= 2 / 255 + 1e-5).all(axis=2)
    np.testing.assert_array_equal(result.layers["hdrgen.generated"], (clipped | crushed).astype(np.float32))
    expected = result_weight(clipped_pixels(frame, threshold / 255))
    np.testing.assert_array_equal(result.layers["hdrgen.clipped"], expected)
    assert set(run(frame)[0].layers) == set()


def test_what_lies_outside_is_cut_counted_and_warned_about():
    frame = grey(0.5)
    frame.pixels[0, 0] = 7.0
    frame.pixels[1, 1] = -0.25
    (result,) = run(frame)
    assert result.metadata["counts"] == {"clipped": 3, "crushed": 3, "above": 3, "below": 3, "samples": 60}
    assert in_rec709(result)[0, 0] == pytest.approx(in_rec709(run(grey(1.0))[0])[0, 0], rel=1e-5)
    (warning,) = result.metadata["warnings"]
    assert "the input encoding is probably wrong" in warning
    assert run(grey(1.0))[0].metadata["warnings"] == ()


def test_frames_stream_one_by_one_and_bands_change_nothing(monkeypatch):
    frames = [Frame(codes(), ("R", "G", "B"), SRGB, number=n) for n in (1, 2)]
    whole = run(*frames)
    monkeypatch.setattr(curve, "BAND_PIXELS", 13)
    steps = Steps()
    operator = o.BT2446Operator(load_descriptor("bt2446"))
    assert operator.descriptor.streams
    pulled: list[int] = []

    def feed():
        for frame in frames:
            pulled.append(frame.number)
            yield frame

    results = operator.run(Request("sdr2hdr", operator.descriptor.resolve({})), feed(), steps)
    first = next(results)
    assert pulled == [1]
    second = next(results)
    for banded, plain in zip((first, second), whole, strict=True):
        np.testing.assert_array_equal(banded.pixels, plain.pixels)
    assert steps.seen == [(done, 9, index) for index in (0, 1) for done in range(10)]
    with pytest.raises(Cancelled):
        run(frames[0], steps=Steps(cancel_at=4))


def test_what_is_no_sdr_is_refused():
    with pytest.raises(BadInput, match="no SDR encoding"):
        run(grey(0.5, colourspace("pq_rec2020_display")))
    with pytest.raises(BadInput, match="no SDR encoding"):
        run(grey(0.5, colourspace("data")))
    broken = grey(0.5)
    broken.pixels[0, 0, 0] = np.nan
    with pytest.raises(BadInput, match="NaN"):
        run(broken)
    with pytest.raises(BadParameter, match="method c has one fixed curve"):
        run(grey(0.5), method="c", peak_nits=600.0)
