"""Previews: known light gives known codes, labels stand beside tiles, broken pixels show, and PNG files are whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hdrgen_server.contracts.frame import Colourspace, Frame
from hdrgen_server.image.preview import (
    BANDS,
    GAP,
    LABEL_HEIGHT,
    NOT_FINITE,
    area_downscale,
    exposure_ladder,
    false_colour,
    save_png,
    tile_sheet,
)
from hdrgen_server.image.tags import LIN_REC709_SCENE, SRGB_REC709_SCENE
from nuke_hdrgen.wire.errors import BadInput, StorageError


def grey(value: float, height: int = 8, width: int = 12, space: Colourspace = LIN_REC709_SCENE) -> Frame:
    return Frame(np.full((height, width, 3), value, np.float32), ("R", "G", "B"), space)


def test_mid_grey_has_its_srgb_code_at_every_ev() -> None:
    sheet = exposure_ladder(grey(0.18, 8, 200), evs=(-2, 0, 2, 4), columns=1)
    step = 8 + LABEL_HEIGHT + GAP
    seen = [int(sheet[GAP + LABEL_HEIGHT + 4 + index * step, GAP + 100, 1]) for index in range(4)]
    assert seen == [60, 118, 221, 255]


def test_the_sheet_holds_every_tile_and_label() -> None:
    sheet = exposure_ladder(grey(0.5, 100, 200), columns=2)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (2 * (100 + LABEL_HEIGHT + GAP) + GAP, 2 * (200 + GAP) + GAP, 3)
    label = sheet[GAP : GAP + LABEL_HEIGHT, GAP : GAP + 60]
    assert label.max() > 150


def test_large_frames_are_averaged_in_linear_light_and_small_ones_kept() -> None:
    checks = np.indices((64, 64)).sum(axis=0) % 2
    pixels = np.repeat(checks[..., None], 3, axis=2).astype(np.float32)
    sheet = exposure_ladder(Frame(pixels, ("R", "G", "B"), LIN_REC709_SCENE), evs=(0,), tile_width=16)
    assert int(sheet[GAP + LABEL_HEIGHT + 8, GAP + 8, 0]) == 188
    assert sheet.shape[0] == 16 + LABEL_HEIGHT + 2 * GAP


def test_area_downscale_keeps_the_mean_for_odd_sizes() -> None:
    array = np.random.default_rng(0).random((37, 101, 3), np.float32)
    for size in ((37, 101), (5, 7), (1, 1), (36, 100)):
        small = area_downscale(array, *size)
        assert small.shape == (*size, 3)
        np.testing.assert_allclose(small.mean(axis=(0, 1)), array.mean(axis=(0, 1)), rtol=1e-5)
    np.testing.assert_array_equal(area_downscale(array, 37, 101), array)


def test_other_primaries_are_brought_to_rec709() -> None:
    red = np.zeros((4, 4, 3), np.float32)
    red[..., 0] = 0.5
    ap1 = Colourspace("ACEScg", "lin_ap1_scene", (0.713, 0.293, 0.165, 0.83, 0.128, 0.044, 0.32168, 0.33767))
    code = exposure_ladder(Frame(red, ("R", "G", "B"), ap1), evs=(0,))[GAP + LABEL_HEIGHT + 2, GAP + 2]
    assert code[0] > 188
    assert code[1] == 0


@pytest.mark.parametrize(
    ("stops", "band"), [(-12, 0), (-7, 1), (-5, 2), (-3, 3), (-1, 4), (0, 5), (1, 6), (2, 7), (3, 8), (5, 9), (12, 12)]
)
def test_false_colour_bands(stops: float, band: int) -> None:
    assert tuple(false_colour(grey(0.18 * 2.0**stops))[0, 0]) == BANDS[band][1]


def test_false_colour_of_black_and_negative_is_the_lowest_band() -> None:
    for value in (0.0, -1.0):
        assert tuple(false_colour(grey(value))[0, 0]) == BANDS[0][1]


def test_false_colour_has_a_legend_below() -> None:
    picture = false_colour(grey(0.18, 100, 900))
    assert picture.shape[1] == 900
    legend = picture[100:].reshape(-1, 3)
    for _, colour in BANDS:
        assert (legend == colour).all(axis=1).any()


def test_broken_pixels_are_magenta_in_both() -> None:
    pixels = np.full((8, 12, 3), 0.18, np.float32)
    pixels[0, 0, 1], pixels[0, 1, 2] = np.nan, np.inf
    frame = Frame(pixels, ("R", "G", "B"), LIN_REC709_SCENE)
    ladder, colours = exposure_ladder(frame, evs=(0,)), false_colour(frame)
    for column in (0, 1):
        assert tuple(ladder[GAP + LABEL_HEIGHT, GAP + column]) == NOT_FINITE
        assert tuple(colours[0, column]) == NOT_FINITE
    assert tuple(ladder[GAP + LABEL_HEIGHT, GAP + 2]) == (118, 118, 118)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (1000, 1)])
def test_odd_sizes_have_previews(size: tuple[int, int]) -> None:
    assert exposure_ladder(grey(0.5, *size)).ndim == 3
    assert false_colour(grey(0.5, *size)).ndim == 3


def test_grey_frames_have_previews() -> None:
    frame = Frame(np.full((4, 4, 1), 0.18, np.float32), ("Y",), LIN_REC709_SCENE)
    assert tuple(exposure_ladder(frame, evs=(0,))[GAP + LABEL_HEIGHT, GAP]) == (118, 118, 118)


def test_encoded_frames_are_refused() -> None:
    for draw in (exposure_ladder, false_colour):
        with pytest.raises(BadInput, match="scene-linear"):
            draw(grey(0.5, space=SRGB_REC709_SCENE))


def test_png_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    sheet = tile_sheet([("one", np.full((4, 30, 3), 7, np.uint8))])
    save_png(sheet, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(image), sheet)
    with pytest.raises(StorageError):
        save_png(sheet, tmp_path / "none" / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
