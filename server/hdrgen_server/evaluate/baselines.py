"""The classical alternatives that a learned fusion has to beat, each a function from a bracket to scene-linear light.

It owns how each is called. OpenCV's (Debevec and Malik 1997; Robertson et al. 2003; Mertens et al. 2007; median
threshold bitmaps of Ward 2003) need the `train` extra. It must not know the protocol or metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from hdrgen_server.colour.interop import colourspace
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.evaluate.protocol import Method
from hdrgen_server.image.calibrate import calibrate, linearise
from hdrgen_server.systems.merge.merge import hat, merge_bracket, srgb_decode
from hdrgen_server.training.brackets import BracketSample

Float32 = npt.NDArray[np.float32]
Byte = npt.NDArray[np.uint8]


def single_mid(sample: BracketSample) -> Float32:
    """The reference alone, linearised by the sRGB curve."""
    return srgb_decode(sample.codes_nhwc[sample.reference])


def hat_linear(sample: BracketSample) -> Float32:
    """The merge with a triangle over the codes, sRGB curve."""
    merged = merge_bracket(list(sample.codes_nhwc), sample.evs, sample.reference, weigh=hat)
    return merged.scene_linear_hwc


def merge(sample: BracketSample) -> Float32:
    """The system `merge`, sRGB curve."""
    return merge_bracket(list(sample.codes_nhwc), sample.evs, sample.reference).scene_linear_hwc


def merge_calibrated(sample: BracketSample) -> Float32:
    """The system `merge` with the camera's curve recovered from the bracket."""
    space = colourspace("srgb_rec709_scene")
    frames = [Frame(np.ascontiguousarray(codes), ("R", "G", "B"), space) for codes in sample.codes_nhwc]
    curve = calibrate(frames, sample.evs).curve
    merged = merge_bracket(
        list(sample.codes_nhwc), sample.evs, sample.reference, decode=lambda codes: linearise(codes, curve)
    )
    return merged.scene_linear_hwc


def cv_debevec(sample: BracketSample) -> Float32:
    """OpenCV's CalibrateDebevec and MergeDebevec."""
    return _debevec(_bytes(sample), sample.evs)


def cv_debevec_mtb(sample: BracketSample) -> Float32:
    """The same after AlignMTB."""
    return _debevec(_aligned(sample), sample.evs)


def cv_robertson(sample: BracketSample) -> Float32:
    """OpenCV's CalibrateRobertson and MergeRobertson."""
    return _robertson(_bytes(sample), sample.evs)


def cv_robertson_mtb(sample: BracketSample) -> Float32:
    """The same after AlignMTB."""
    return _robertson(_aligned(sample), sample.evs)


def cv_mertens_mtb(sample: BracketSample) -> Float32:
    """AlignMTB and MergeMertens: a fusion of codes, linearised by the sRGB curve though it is not light."""
    import cv2

    fused = np.asarray(cv2.createMergeMertens().process(_aligned(sample)), np.float32)
    return srgb_decode(np.clip(_finite(fused), 0, 1))


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.__name__: method
        for method in (
            single_mid, hat_linear, merge, merge_calibrated, cv_debevec, cv_debevec_mtb, cv_robertson,
            cv_robertson_mtb, cv_mertens_mtb,
        )
    }
)  # fmt: skip


def _bytes(sample: BracketSample) -> list[Byte]:
    return [np.rint(codes * 255).astype(np.uint8) for codes in sample.codes_nhwc]


def _aligned(sample: BracketSample) -> list[Byte]:
    """The exposures shifted to the middle one, which AlignMTB takes as its pivot and the protocol as reference."""
    import cv2

    images = _bytes(sample)
    aligned = [image.copy() for image in images]
    cv2.createAlignMTB().process(images, aligned)
    return aligned


def _debevec(images: list[Byte], evs: Sequence[float]) -> Float32:
    import cv2

    times = np.exp2(np.asarray(evs, np.float32))
    response = cv2.createCalibrateDebevec().process(images, times)
    return _finite(cv2.createMergeDebevec().process(images, times, response))


def _robertson(images: list[Byte], evs: Sequence[float]) -> Float32:
    import cv2

    times = np.exp2(np.asarray(evs, np.float32))
    response = cv2.createCalibrateRobertson().process(images, times)
    return _finite(cv2.createMergeRobertson().process(images, times, response))


def _finite(light: npt.NDArray[Any]) -> Float32:
    """OpenCV divides by weights that can be 0; what comes of that counts as black here."""
    return np.nan_to_num(np.asarray(light, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
