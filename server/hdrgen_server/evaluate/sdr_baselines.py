"""The naive alternatives that an expansion of SDR has to beat; the classical ones are packs.

Each is a function from codes to scene-linear Rec.709, so that plates and the frames of a shot go through the same. It
must not know the protocol's figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from hdrgen_server.evaluate.protocol import Method
from hdrgen_server.systems.merge.merge import srgb_decode
from hdrgen_server.training.brackets import BracketSample

Float32 = npt.NDArray[np.float32]
Expand = Callable[[Float32], Float32]
"""From sRGB codes (H, W, 3) in [0, 1] to light."""


def inverse_srgb(codes_hwc: Float32) -> Float32:
    """The codes linearised by the sRGB curve."""
    return srgb_decode(codes_hwc)


def linear_gamma22(codes_hwc: Float32) -> Float32:
    """The codes to the power 2.2."""
    return codes_hwc ** np.float32(2.2)


def _on_samples(expand: Expand) -> Method:
    def method(sample: BracketSample) -> Float32:
        return expand(sample.codes_nhwc[sample.reference])

    return method


EXPANSIONS: Mapping[str, Expand] = MappingProxyType({e.__name__: e for e in (inverse_srgb, linear_gamma22)})
METHODS: Mapping[str, Method] = MappingProxyType({name: _on_samples(expand) for name, expand in EXPANSIONS.items()})
