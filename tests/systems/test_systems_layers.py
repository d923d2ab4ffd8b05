"""Layers that several systems share: what preserve plate keeps, worked out in bands."""

from __future__ import annotations

import numpy as np
import pytest

from hdrgen_server.colour.interop import colourspace
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.image.finish import clipped_pixels, plate_clip_level, result_weight
from hdrgen_server.systems import layers
from hdrgen_server.systems.hdrfuse import clipped_layer

HEIGHT, WIDTH = 23, 17


def plate(ev: float, space: str, top: float) -> Frame:
    light = np.exp2(np.random.default_rng(3).uniform(-4, 4, (HEIGHT, WIDTH, 3)) + ev).astype(np.float32)
    return Frame(np.minimum(light, top).astype(np.float32), ("R", "G", "B"), colourspace(space), ev=ev)


@pytest.mark.parametrize("space", ["srgb_rec709_scene", "lin_rec709_scene"])
@pytest.mark.parametrize("band_pixels", [1, WIDTH, 3 * WIDTH, 1 << 16])
def test_bands_give_what_the_whole_plate_gives(monkeypatch: pytest.MonkeyPatch, space: str, band_pixels: int) -> None:
    monkeypatch.setattr(layers, "BAND_PIXELS", band_pixels)
    bracket = [plate(ev, space, 1.0) for ev in (-2.0, 0.0, 2.0)]
    level = plate_clip_level(bracket)
    assert level is not None
    for reference, frame in enumerate(bracket):
        found = clipped_layer(bracket, reference)["hdrgen.clipped"]
        assert found.dtype == np.float32
        assert 0 < np.count_nonzero(found) < found.size
        np.testing.assert_array_equal(found, result_weight(clipped_pixels(frame, level)))


def test_a_plate_that_clips_nowhere_is_kept_but_where_it_is_broken() -> None:
    frame = plate(0.0, "lin_rec709_scene", 100.0)
    frame.pixels[4, 5, 1] = np.nan
    weight = layers.clipped_weight(frame, None)
    assert weight[4, 5] == 0.5
    assert np.count_nonzero(weight) == 1
