"""The fixed test of SDR expansion: seeded views of held-out scenes under three tone curves that no method is told.

It owns the curves and the samples. It must not know methods, nor how they are scored: `protocol` does that. A sample is
a bracket of one exposure: the SDR codes, and the light that they were made of. The same views can also go through the
chain that training draws from: an operator of `tone_mapping`, 8 bits and x264, kinds such as `bt2446a/23`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from hdrgen_server.evaluate.protocol import bright_sample
from hdrgen_server.training.brackets import Array, BracketSample, Camera
from hdrgen_server.training.degradations import CRFS, SPACE, through_jpeg, through_x264
from hdrgen_server.training.scenes import Scene
from hdrgen_server.training.tone_mapping import OPERATORS, tone_map
from hdrgen_server.training.views import LUMINANCE
from nuke_hdrgen.wire.errors import BadParameter

REINHARD_GAIN, REINHARD_WHITE = 1.4, (1.5, 16.0)
JPEG_QUALITY = 85
HABLE_BIAS, HABLE_WHITE = 2.0, 11.2
# Hable, "Uncharted 2: HDR Lighting" (GDC 2010): A to F.
HABLE = (0.15, 0.50, 0.10, 0.20, 0.02, 0.30)

Byte = npt.NDArray[np.uint8]


def hard_clip(scene_linear_hwc: Array) -> Byte:
    """sRGB codes of light cut at diffuse white."""
    return _srgb(scene_linear_hwc)


def reinhard_jpeg(scene_linear_hwc: Array) -> Byte:
    """Extended Reinhard on luminance (Reinhard et al. 2002, equation 4), then JPEG of quality 85, 4:2:0."""
    light = REINHARD_GAIN * scene_linear_hwc
    luminance = (light @ LUMINANCE)[..., None]
    white = float(np.clip(np.percentile(luminance, 99.9), *REINHARD_WHITE))
    shown = light * (1 + luminance / white**2) / (1 + luminance)
    return through_jpeg(_srgb(shown), JPEG_QUALITY)


def hable(scene_linear_hwc: Array) -> Byte:
    """Hable's filmic curve, channel by channel."""
    return _srgb(_hable(HABLE_BIAS * scene_linear_hwc) / _hable(np.full(1, HABLE_WHITE, np.float32)))


KINDS: Mapping[str, Callable[[Array], Byte]] = MappingProxyType({"a": hard_clip, "b": reinhard_jpeg, "c": hable})
DEGRADATIONS = tuple(f"{operator}/{crf}" for operator in OPERATORS for crf in CRFS)


def samples(kind: str, scenes: Sequence[Scene], count: int) -> Iterator[BracketSample]:
    """The first `count` plates of a kind, the scenes in turn: the same views under each. Raises BadParameter for an
    unknown kind, BadInput for a scene without a bright view.
    """
    if kind not in KINDS and kind not in DEGRADATIONS:
        raise BadParameter(f"there is no tone curve {kind!r}; there are: {', '.join((*KINDS, *DEGRADATIONS))}")
    for index in range(count):
        view = bright_sample(scenes[index % len(scenes)], index, (0.0,), 0)
        light_hwc = view.scene_linear_hwc
        if kind in KINDS:
            codes, encoding = codes_of(kind, light_hwc), view.encoding
        else:
            operator, crf = kind.split("/")
            codes, encoding = through_x264(tone_map(light_hwc, operator), int(crf)), SPACE
        yield BracketSample(codes[None], (0.0,), 0, light_hwc, view.scene, encoding=encoding)


def codes_of(kind: str, scene_linear_hwc: Array) -> Array:
    """Light under one of the three curves as 8-bit sRGB codes, (H, W, 3) float32 in [0, 1]."""
    return KINDS[kind](scene_linear_hwc).astype(np.float32) / np.float32(255)


def _srgb(light_hwc: npt.NDArray[np.floating]) -> Byte:
    codes = Camera().encode(np.clip(light_hwc, 0, 1).astype(np.float32))
    return np.rint(np.clip(codes, 0, 1) * 255).astype(np.uint8)


def _hable(x: Array) -> Array:
    a, b, c, d, e, f = HABLE
    return ((x * (a * x + c * b) + d * e) / (x * (a * x + b) + d * f) - e / f).astype(np.float32)
