"""How SDR comes to be, for training: HDR frames through a tone-mapping operator, 8 bits and a real H.264 encoder.

It owns drawing at random and the codec. It must not know networks, losses or where frames come from. Source: LumaFlux
(arXiv 2604.02787), the composite degradation chain: eight operators crossed with x264 at CRF 23, 31 and 39.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from av.codec.context import CodecContext
from av.video.frame import VideoFrame
from PIL import Image

from hdrgen_server.image.movie_planes import planes
from hdrgen_server.image.movie_tags import MATRICES
from hdrgen_server.image.movie_yuv import Layout, planes_of, rgb_of
from hdrgen_server.training.tone_mapping import OPERATORS, tone_map

Array = npt.NDArray[np.float32]

CRFS = (23, 31, 39)
SPACE = "g24_rec709_scene"
"""The interop id of the codes."""
_LAYOUT = Layout(2, 2, 8)
_OPTIONS = {"preset": "medium", "threads": "1", "x264-params": "log-level=none"}


@dataclass(frozen=True, eq=False)
class Degraded:
    """SDR of one frame: `codes_hwc` (H, W, 3) float32 in [0, 1] in SPACE, as a decoder gives them, and what made it."""

    codes_hwc: Array
    operator: str
    crf: int


def degrade(
    scene_linear_hwc: Array,
    rng: np.random.Generator,
    operators: Sequence[str] = tuple(OPERATORS),
    crfs: Sequence[int] = CRFS,
) -> Degraded:
    """A frame of scene-linear Rec.709 light (1.0 at diffuse white) as SDR, by an operator and a CRF drawn from each.

    The same generator state gives the same codes.
    """
    operator = operators[int(rng.integers(len(operators)))]
    crf = int(crfs[int(rng.integers(len(crfs)))])
    return Degraded(through_x264(tone_map(scene_linear_hwc, operator), crf), operator, crf)


def through_jpeg(codes_hwc: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    """8-bit R'G'B' codes (H, W, 3) after a JPEG of this quality, 4:2:0."""
    stream = io.BytesIO()
    Image.fromarray(codes_hwc).save(stream, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(stream).convert("RGB"), np.uint8)


def through_x264(codes_hwc: Array, crf: int) -> Array:
    """R'G'B' codes in [0, 1] after 8 bits, 4:2:0 and one intra frame of x264, BT.709 limited range, cut to [0, 1]."""
    (found,) = clip_through_x264([codes_hwc], crf)
    return found


def clip_through_x264(codes: Sequence[Array], crf: int) -> list[Array]:
    """Frames (H, W, 3) of one size one after another through x264, predicted from each other as its preset does.

    As `through_x264` otherwise. An odd side is repeated for the encoder, and cut off again.
    """
    height, width = codes[0].shape[:2]
    encoder = CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
    encoder.time_base = Fraction(1, 25)
    encoder.options = {**_OPTIONS, "crf": str(crf)}
    packets = [packet for index, frame in enumerate(codes) for packet in encoder.encode(_picture(frame, index))]
    packets += encoder.encode(None)
    decoder = CodecContext.create("h264", "r")
    decoder.thread_count = 1
    decoded = [frame for packet in (*packets, None) for frame in decoder.decode(packet)]
    found: list[Array] = []
    for frame in decoded:
        _, parts = planes(frame)
        back = rgb_of((parts[0], parts[1], parts[2]), _LAYOUT, MATRICES["bt709"], full=False)
        found.append(np.clip(back[:height, :width], 0, 1))
    return found


def _picture(codes_hwc: Array, index: int) -> VideoFrame:
    """R'G'B' codes as 4:2:0 of even sides, frame `index` of a movie."""
    height, width = codes_hwc.shape[:2]
    even = np.pad(codes_hwc, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    picture = VideoFrame(even.shape[1], even.shape[0], "yuv420p")
    for plane, values in zip(picture.planes, planes_of(even, _LAYOUT, MATRICES["bt709"]), strict=True):
        rows = np.frombuffer(cast(Any, plane), np.uint8).reshape(-1, plane.line_size)
        rows[: values.shape[0], : values.shape[1]] = values
    picture.pts = index
    return picture
