"""Movies in: codes against the standards' own equations, tags and overrides, and every refusal by name."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from av.container import open as av_open
from av.video.frame import VideoFrame
from movie_files import Make, Tagging, ramp, write_movie

from hdrgen_server.colour.interop import colourspace
from hdrgen_server.image.movie import Overrides, open_movie, read_frames
from hdrgen_server.image.movie_tags import LUMA_WEIGHTS
from hdrgen_server.image.movie_yuv import Layout, planes_of, rgb_of
from nuke_hdrgen.wire.errors import BadInput, BadParameter

RNG = np.random.default_rng(5)


def by_the_standard(planes: list[np.ndarray], matrix: int, full: bool, bits: int = 8) -> np.ndarray:
    """H.273, equations 38 to 40 solved for R'G'B', chroma constant over its luma samples."""
    unit = 2.0 ** (bits - 8)
    luma, blue, red = (p.astype(np.float64) for p in planes)
    luma, (blue, red) = (
        (luma / (2**bits - 1), [(c - 128 * unit) / (2**bits - 1) for c in (blue, red)])
        if full
        else ((luma - 16 * unit) / (219 * unit), [(c - 128 * unit) / (224 * unit) for c in (blue, red)])
    )
    kr, kb = LUMA_WEIGHTS[matrix]
    r, b = luma + 2 * (1 - kr) * red, luma + 2 * (1 - kb) * blue
    return np.stack([r, (luma - kr * r - kb * b) / (1 - kr - kb), b], axis=2)


def flat(y: int, cb: int, cr: int, size: tuple[int, int] = (32, 16)) -> list[np.ndarray]:
    width, height = size
    half = (-(-height // 2), -(-width // 2))
    return [np.full(shape, code, np.uint8) for shape, code in (((height, width), y), (half, cb), (half, cr))]


@pytest.mark.parametrize(
    ("tags", "matrix", "full", "space"),
    [
        (Tagging(), 1, False, "g24_rec709_scene"),
        (Tagging(levels=2), 1, True, "g24_rec709_scene"),
        (Tagging(matrix=6), 6, False, "g24_rec709_scene"),
        (Tagging(transfer=13), 1, False, "srgb_rec709_scene"),
        (Tagging(transfer=4), 1, False, "g22_rec709_scene"),
    ],
)
def test_codes_follow_the_tags(tmp_path: Path, tags: Tagging, matrix: int, full: bool, space: str) -> None:
    colours = [(40, 110, 150), (180, 150, 100), (126, 128, 128)]
    path = write_movie(tmp_path / "a.mp4", [flat(*c) for c in colours], Make(tags=tags))
    movie = open_movie(path)
    assert (movie.frames, movie.rate, movie.size, movie.warnings) == (3, 25, (32, 16), ())
    assert movie.space == colourspace(space)
    for number, (colour, frame) in enumerate(zip(colours, read_frames(movie), strict=True), 1):
        wanted = by_the_standard([np.full((16, 32), c) for c in colour], matrix, full)
        np.testing.assert_allclose(frame.pixels, wanted, atol=2e-6)
        assert (frame.number, frame.channels, frame.colourspace) == (number, ("R", "G", "B"), colourspace(space))


def test_untagged_movies_are_taken_as_players_do_and_said(tmp_path: Path) -> None:
    nothing = Make(tags=Tagging(2, 2, 2, 0))
    small = open_movie(write_movie(tmp_path / "small.mp4", [flat(100, 100, 160)], nothing))
    assert small.coding.matrix == 6
    assert [w.split(" does not ")[1] for w in small.warnings] == [
        "state its transfer; taken as BT.709 shown by BT.1886", "state its matrix; taken as BT.601 by its size",
    ]  # fmt: skip
    large = open_movie(write_movie(tmp_path / "large.mp4", [flat(100, 100, 160, (1280, 720))], nothing))
    assert (large.coding.matrix, large.coding.full) == (1, False)
    over = Overrides(colourspace("srgb_rec709_scene"), "bt2020", "full")
    told = open_movie(tmp_path / "small.mp4", over)
    assert (told.coding.matrix, told.coding.full, told.space.interop_id) == (9, True, "srgb_rec709_scene")
    assert told.warnings == ()
    for bad in (Overrides(matrix="bt470"), Overrides(levels="pc")):
        with pytest.raises(BadParameter, match=r"must be"):
            open_movie(tmp_path / "small.mp4", bad)


def test_codes_outside_the_range_are_kept(tmp_path: Path) -> None:
    planes = ramp(low=16, high=254)
    (frame,) = read_frames(open_movie(write_movie(tmp_path / "a.mp4", [planes])))
    assert frame.pixels.max() > 1.08
    np.testing.assert_allclose(frame.pixels[-1, -1], (254 - 16) / 219, atol=1e-5)


@pytest.mark.parametrize(
    ("pixels", "codec", "bits", "shape"),
    [
        ("yuv422p10le", "prores_ks", 10, (2, 1)),
        ("yuv422p", "ffv1", 8, (2, 1)),
        ("yuv444p10le", "ffv1", 10, (1, 1)),
        ("yuv420p", "ffv1", 8, (2, 2)),
    ],
)
def test_ten_bits_and_other_samplings(
    tmp_path: Path, pixels: str, codec: str, bits: int, shape: tuple[int, int]
) -> None:
    unit, dtype = 2 ** (bits - 8), np.uint8 if bits == 8 else np.uint16
    half = (24 // shape[1], 32 // shape[0])
    planes = [
        np.full((24, 32), 90 * unit + 1, dtype),
        np.full(half, 110 * unit, dtype),
        np.full(half, 140 * unit, dtype),
    ]
    make = Make(codec, pixels, options={})
    movie = open_movie(write_movie(tmp_path / ("a.mov" if codec == "prores_ks" else "a.mkv"), [planes, planes], make))
    first, _ = read_frames(movie)
    wanted = by_the_standard([np.full((24, 32), p[0, 0]) for p in planes], 1, False, bits)
    np.testing.assert_allclose(first.pixels, wanted, atol=3e-3 if codec == "prores_ks" else 2e-6)


def test_odd_sizes_alpha_rgb_and_grey(tmp_path: Path) -> None:
    odd = ramp(size=(33, 17))
    (frame,) = read_frames(open_movie(write_movie(tmp_path / "a.mkv", [odd], Make("ffv1", options={}))))
    assert frame.pixels.shape == (17, 33, 3)
    np.testing.assert_allclose(frame.pixels[0, :, 1], (odd[0][0] - 16.0) / 219, atol=1e-6)
    rgb = [RNG.integers(0, 256, (16, 32), np.uint8) for _ in range(3)]
    packed = np.stack([*rgb, rgb[0]], axis=2).reshape(16, -1)
    path = tmp_path / "rgb.mkv"
    with av_open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "bgr0"
        stream.codec_context.color_trc = 13
        picture = VideoFrame(32, 16, "bgr0")
        np.frombuffer(picture.planes[0], np.uint8).reshape(16, -1)[:, : 32 * 4] = packed
        for packet in (*stream.encode(picture), *stream.encode(None)):
            container.mux(packet)
    (frame,) = read_frames(open_movie(path))
    np.testing.assert_allclose(frame.pixels, np.stack(rgb[::-1], axis=2) / 255, atol=1e-6)
    alpha = [*(np.full((16, 32), c, np.uint16) for c in (500, 512, 512)), np.full((16, 32), 512, np.uint16)]
    make = Make("prores_ks", "yuva444p10le", options={"profile": "4"})
    (frame,) = read_frames(open_movie(write_movie(tmp_path / "a.mov", [alpha], make)))
    assert frame.channels == ("R", "G", "B", "A")
    np.testing.assert_allclose(frame.pixels[..., 3], 0.5, atol=2e-3)


def test_chroma_lies_where_the_standard_says() -> None:
    """A ramp of chroma, sampled at its places, comes back as the ramp; and down and up again as it was."""
    x, y = np.meshgrid(np.arange(32.0), np.arange(24.0))
    ramp_hw = (400 + 4 * x + 2 * y).astype(np.float32)
    for layout in (Layout(2, 2, 10), Layout(2, 1, 10), Layout(1, 1, 10)):
        places_y = np.arange(24 // layout.down) * layout.down + (layout.down - 1) / 2
        coarse = (400 + 4 * np.arange(32 // layout.across)[None] * layout.across + 2 * places_y[:, None]).astype(
            np.uint16
        )
        grey = np.full((24, 32), 502, np.uint16)
        neutral = np.full(coarse.shape, 512, np.uint16)
        rgb = rgb_of((grey, coarse, neutral), layout, 9, full=False)
        blue = (rgb[..., 2] - rgb[..., 0]) / (2 * (1 - LUMA_WEIGHTS[9][1])) * 896 + 512
        inside = (slice(2, -2), slice(2, -2))
        np.testing.assert_allclose(blue[inside], ramp_hw[inside], atol=0.6)
        _, again, _ = planes_of(np.clip(rgb, 0, 1), layout, 9)
        np.testing.assert_allclose(again[2:-2, 2:-2].astype(int), coarse[2:-2, 2:-2].astype(int), atol=1)


def test_every_code_survives_there_and_back() -> None:
    luma = np.arange(64, 941, dtype=np.uint16)[None].repeat(2, 0)
    neutral = np.full(luma.shape, 512, np.uint16)
    rgb = rgb_of((luma, neutral, neutral), Layout(1, 1, 10), 9, full=False)
    assert np.array_equal(planes_of(rgb, Layout(1, 1, 10), 9)[0], luma)


REFUSED = {
    "pq": (Make("libx265", "yuv420p10le", tags=Tagging(9, 16, 9), options={}), "is tagged PQ (HDR), which is no SDR"),
    "hlg": (Make(tags=Tagging(9, 18, 9)), "is tagged HLG (HDR)"),
    "log": (Make(tags=Tagging(1, 9, 1)), "is tagged logarithmic"),
    "wide": (Make(tags=Tagging(9, 1, 9)), "has BT.2020 primaries"),
    "constant luminance": (Make(tags=Tagging(1, 1, 10)), "has matrix number 10"),
    "interlaced": (Make(interlaced=True), "is interlaced"),
    "mastered": (
        Make(
            "libx265", "yuv420p10le",
            options={"x265-params": "log-level=none:master-display=G(8500,39850)B(6550,2300)R(35400,14600)"
                     "WP(15635,16450)L(10000000,50):hdr10=1"},
        ),
        "carries HDR metadata",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(tmp_path: Path, case: str) -> None:
    make, words = REFUSED[case]
    planes = ramp() if "10" not in make.pixels else [p.astype(np.uint16) * 4 for p in ramp()]
    path = write_movie(tmp_path / "a.mp4", [planes] * 3, make)
    with pytest.raises(BadInput) as caught:
        open_movie(path)
    assert str(path) in caught.value.message
    assert words in caught.value.message
    assert "\n" not in caught.value.message


def test_log_footage(tmp_path: Path) -> None:
    path = write_movie(tmp_path / "a.mov", [ramp()], Make(options={"qp": "0", "movflags": "use_metadata_tags"}))
    with av_open(str(path)) as source, av_open(
        str(tmp_path / "b.mov"), "w", options={"movflags": "use_metadata_tags"}
    ) as target:  # fmt: skip
        target.metadata["com.camera.CaptureGammaEquation"] = "s-log3-cine"
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    with pytest.raises(BadInput, match=r"CaptureGammaEquation=s-log3-cine: log or HDR footage"):
        open_movie(tmp_path / "b.mov")
    assert open_movie(tmp_path / "b.mov", Overrides(colourspace("srgb_rec709_scene"))).frames == 1
    flat_look = [ramp(low=50, high=170)]
    assert "looks like log footage" in " ".join(open_movie(write_movie(tmp_path / "c.mp4", flat_look)).warnings)


def test_wrong_range_flags(tmp_path: Path) -> None:
    limited, full = ramp(low=16, high=235), ramp(low=0, high=255)
    wrong = write_movie(tmp_path / "limited.mp4", [full] * 2)
    with pytest.raises(BadInput, match=r"is flagged limited range, but .* % of its luma lies below black"):
        open_movie(wrong)
    assert open_movie(wrong, Overrides(levels="full")).coding.full
    assert not open_movie(wrong, Overrides(levels="limited")).coding.full
    wrong = write_movie(tmp_path / "full.mp4", [limited] * 2, Make(tags=Tagging(levels=2)))
    with pytest.raises(BadInput, match="is flagged full range, but its luma ends at the codes 16 and 235"):
        open_movie(wrong)
    assert open_movie(write_movie(tmp_path / "ok.mp4", [full] * 2, Make(tags=Tagging(levels=2)))).coding.full


def test_frame_rates(tmp_path: Path) -> None:
    for name, rate in (("a.mp4", Fraction(24000, 1001)), ("b.mkv", Fraction(30000, 1001)), ("c.mkv", Fraction(24))):
        movie = open_movie(write_movie(tmp_path / name, [ramp(i) for i in range(60)], Make(rate=rate)))
        assert (movie.frames, float(movie.rate)) == (60, pytest.approx(float(rate), rel=1e-4))
    stamps = [*range(0, 400, 40), *range(480, 800, 40)]
    path = write_movie(tmp_path / "vfr.mp4", [ramp(i) for i in range(len(stamps))], Make(), stamps)
    with pytest.raises(BadInput, match=r"variable frame rate: frame 10 lasts 0\.12 s, most last 0\.04 s"):
        open_movie(path)


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_movie_that_ends_early(tmp_path: Path, suffix: str) -> None:
    make = Make(options={"qp": "0", "preset": "ultrafast", "g": "1"}, container={"movflags": "faststart"})
    noisy = [[RNG.integers(30, 220, p.shape, np.uint8) for p in ramp()] for _ in range(12)]
    data = write_movie(tmp_path / f"whole.{suffix}", noisy, make).read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(data[: len(data) * 6 // 10])
    movie = open_movie(cut)
    assert movie.frames == 12
    seen: list[int] = []
    with pytest.raises(BadInput, match=rf"cut\.{suffix} (ends after|is damaged) .*frame"):
        seen.extend(frame.number for frame in read_frames(movie))
    assert seen == list(range(1, len(seen) + 1))
    assert 5 <= len(seen) <= 8
    (tmp_path / "none.mp4").write_bytes(b"not a movie" * 100)
    with pytest.raises(BadInput, match=r"cannot read .*none\.mp4"):
        open_movie(tmp_path / "none.mp4")


@pytest.mark.parametrize(
    ("size", "make", "words"),
    [
        ((32, 24), Make(), "changes to 32x24 at frame 41; split it there"),
        ((64, 48), Make(interlaced=True), "is interlaced from frame 41 on; deinterlace it first"),
        ((64, 48), Make(tags=Tagging(9, 16, 9)), "changes its colour tags at frame 41; split it there"),
        ((64, 48), Make(tags=Tagging(levels=2)), "changes its colour tags at frame 41; split it there"),
    ],
)
def test_a_movie_that_turns_into_another(tmp_path: Path, size: tuple[int, int], make: Make, words: str) -> None:
    parts = (
        write_movie(tmp_path / "a.h264", [ramp(n) for n in range(40)]),
        write_movie(tmp_path / "b.h264", [ramp(n, size) for n in range(3)], make),
    )
    (tmp_path / "both.h264").write_bytes(b"".join(part.read_bytes() for part in parts))
    movie = open_movie(tmp_path / "both.h264")
    seen: list[int] = []
    with pytest.raises(BadInput, match=rf"both\.h264 {words}"):
        seen.extend(frame.number for frame in read_frames(movie))
    assert seen == list(range(1, 41))


def test_an_edit_list_leaves_frames_out(tmp_path: Path) -> None:
    """A copy that starts inside a group of pictures has samples that are never shown."""
    whole = write_movie(tmp_path / "whole.mp4", [ramp(n) for n in range(12)], Make(options={"qp": "0", "g": "12"}))
    with av_open(str(whole)) as source, av_open(str(tmp_path / "cut.mp4"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        step = source.streams.video[0].time_base or Fraction(1)
        for packet in source.demux(video=0):
            if packet.dts is not None and packet.pts is not None:
                shift = int(Fraction(4, 25) / step)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = stream
                target.mux(packet)
    movie = open_movie(tmp_path / "cut.mp4")
    assert len(list(read_frames(movie))) == movie.frames
    assert movie.frames in {8, 12}


@pytest.mark.parametrize("degrees", [0, 90, -90, 180])
def test_turned_and_oblong_pictures(tmp_path: Path, degrees: int) -> None:
    planes = ramp(size=(64, 32))
    path = write_movie(tmp_path / "a.mp4", [planes] * 2)
    with av_open(str(path)) as source, av_open(str(tmp_path / "b.mp4"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        if degrees:
            stream.set_display_rotation(degrees)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    with av_open(str(tmp_path / "b.mp4")) as container:
        turn = next(container.decode(video=0)).rotation  # counter-clockwise, as FFmpeg counts
    assert abs(turn) == abs(degrees)
    movie = open_movie(tmp_path / "b.mp4")
    assert movie.size == ((32, 64) if abs(degrees) == 90 else (64, 32))
    frame = next(iter(read_frames(movie)))
    upright = np.rot90((planes[0] - 16.0) / 219, turn // 90)
    np.testing.assert_allclose(frame.pixels[..., 1].mean(), upright.mean(), atol=0.02)
    corner = frame.pixels[-1, -1, 1], frame.pixels[0, 0, 1]
    assert corner == pytest.approx((upright[-1, -1], upright[0, 0]), abs=0.02)
