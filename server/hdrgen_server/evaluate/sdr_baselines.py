"""The naive alternatives that an expansion of SDR has to beat; the classical ones are packs.

Each is a function from a plate to scene-linear Rec.709. It must not know the protocol or metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from hdrgen_server.evaluate.protocol import Method
from hdrgen_server.systems.merge.merge import srgb_decode
from hdrgen_server.training.brackets import BracketSample

Float32 = npt.NDArray[np.float32]


def inverse_srgb(sample: BracketSample) -> Float32:
    """The codes linearised by the sRGB curve."""
    return srgb_decode(sample.codes_nhwc[sample.reference])


def linear_gamma22(sample: BracketSample) -> Float32:
    """The codes to the power 2.2."""
    return sample.codes_nhwc[sample.reference] ** np.float32(2.2)


METHODS: Mapping[str, Method] = MappingProxyType({m.__name__: m for m in (inverse_srgb, linear_gamma22)})
