"""SDR by curves that no published operator has: a camera's or a grade's, drawn at random.

It owns the family of curves and its drawing. It must not know operators, codecs, networks or where pictures come from.
A curve is given by its contrast, the slope of log output over log light: one contrast in the shadows turns smoothly
into another in the highlights, and white is where the picture's highlights end, at a fixed light, or nowhere. It acts
on each channel, or on luminance with chromaticity kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hdrgen_server.training.degradations import through_jpeg
from hdrgen_server.training.tone_mapping import DISPLAY_GAMMA
from hdrgen_server.training.views import LUMINANCE

Array = npt.NDArray[np.float32]

STOPS = np.linspace(-14, 14, 561, dtype=np.float32)
GREY_STOPS = float(np.log2(0.18))
TOE_STOPS = -5.0
UNTOUCHED, STRAIGHT, WITH_TOE, IN_CHANNELS, WITH_JPEG = 0.2, 0.25, 0.4, 0.5, 0.5
WHITE_IN_PICTURE, WHITE_FIXED = 0.5, 0.75
MOST_GAIN, GAINS = 2.0, (-0.7, 0.9)
JPEG_QUALITIES = (60, 95)


@dataclass(frozen=True)
class Curve:
    """Contrast `low` turns into `high` around `knee` (stops over diffuse white) within about `width` stops; `toe`
    multiplies it in the deep shadows, `gain` is in stops. White is the light that the picture's `white` quantile has,
    or `white` itself where it is above 1; 0 for none.
    """

    low: float
    high: float
    knee: float
    width: float
    toe: float
    gain: float
    white: float
    in_channels: bool

    @classmethod
    def random(cls, rng: np.random.Generator) -> Curve:
        """Any of the family; a fifth are light as it is, cut, and a quarter of the others have one contrast."""
        if rng.random() < UNTOUCHED:
            return cls(1, 1, 0, 1, 1, float(rng.uniform(*GAINS)), 0, True)
        low, turn = float(rng.uniform(0.85, 1.3)), rng.random()
        white = 0.0
        if turn < WHITE_IN_PICTURE:
            white = float(rng.uniform(0.97, 1.0))
        elif turn < WHITE_FIXED:
            white = float(rng.uniform(2, 16))
        return cls(
            low,
            low if rng.random() < STRAIGHT else float(rng.uniform(0.1, 0.9)),
            float(rng.uniform(-3, 1.5)),
            float(rng.uniform(0.3, 1.5)),
            float(rng.uniform(1, 1.5)) if rng.random() < WITH_TOE else 1.0,
            float(rng.uniform(*GAINS)),
            white,
            bool(rng.random() < IN_CHANNELS),
        )

    def __call__(self, scene_linear_hwc: Array) -> Array:
        """Light over the SDR display's white, (H, W, 3), of linear Rec.709; not cut at 1."""
        luminance = (scene_linear_hwc @ LUMINANCE)[..., None]
        scale = 1.0
        if self.white:
            white = self.white if self.white > 1 else float(np.quantile(scene_linear_hwc.max(axis=2), self.white))
            scale = min(1 / float(self._of(np.array([white], np.float32))[0]), MOST_GAIN)
        if self.in_channels:
            return self._of(scene_linear_hwc) * np.float32(scale)
        change = np.float32(scale) * self._of(luminance) / np.maximum(luminance, np.float32(1e-6))
        return (scene_linear_hwc * change).astype(np.float32)

    def _of(self, light: Array) -> Array:
        contrast = self.low + (self.high - self.low) / (1 + np.exp(-(STOPS - self.knee) / self.width))
        contrast = contrast * np.where(STOPS < TOE_STOPS, self.toe, 1)
        out = np.cumsum(contrast) * (STOPS[1] - STOPS[0])
        out += GREY_STOPS + self.gain - np.interp(GREY_STOPS, STOPS, out)
        found = np.interp(np.log2(np.maximum(light, 1e-5)), STOPS, out)
        return np.exp2(found).astype(np.float32)


def through_curve(scene_linear_hwc: Array, rng: np.random.Generator) -> Array:
    """Codes (H, W, 3) in [0, 1], Rec.709 for a BT.1886 display, of linear Rec.709 light with white at 1.0: a random
    curve, a hard clip, then 8 bits, or for half of the pictures a JPEG.
    """
    shown = np.clip(Curve.random(rng)(scene_linear_hwc), 0, 1)
    byte = np.round(shown ** (1 / DISPLAY_GAMMA) * 255).astype(np.uint8)
    if rng.random() < WITH_JPEG:
        byte = through_jpeg(byte, int(rng.integers(*JPEG_QUALITIES)))
    return byte.astype(np.float32) / np.float32(255)
