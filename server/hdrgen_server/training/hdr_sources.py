"""Where HDR frames for training come from: stills, EXR shots, PQ and HLG movies, and corpora by their folders' names.

It owns finding and reading them as scene-linear Rec.709 with diffuse white (100 cd/m2) at 1.0. It must not know
degradations, crops or networks. Layouts: HDRTV1K (Chen et al., ICCV 2021) pairs `train_hdr` and `train_sdr`, 16-bit PQ
Rec.2020 PNG; HDRTV4K (Guo et al., CVPR 2023) has label frames and folders named by the degradation that made their SDR;
HIDRO-VQA, CHUG and LIVE-TMHDR are folders of movies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import av
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError

from hdrgen_server.colour.interop import colourspace
from hdrgen_server.colour.ocio import convert
from hdrgen_server.contracts.frame import Colourspace, Frame
from hdrgen_server.image.movie import codes_of
from hdrgen_server.image.movie_planes import kind_of
from hdrgen_server.image.movie_tags import FULL, LUMA_WEIGHTS, Coding
from hdrgen_server.image.reading import read_frame
from nuke_hdrgen.wire.errors import BadInput, BadParameter

STILLS = (".exr", ".png", ".tif", ".tiff")
MOVIES = (".mp4", ".mov", ".mkv", ".webm")
PQ, HLG, LINEAR = "pq_rec2020_display", "hlg_rec2020_display", "lin_rec709_scene"
HDR_TRANSFERS: Mapping[int, str] = MappingProxyType({16: PQ, 18: HLG})
REC2020 = 9


@dataclass(frozen=True)
class Layout:
    """How a corpus lies in its folder: patterns of its HDR files; `pairs` names the folder of SDR beside that of HDR.

    `encoded` is the interop id of PNG and TIFF files that say nothing themselves.
    """

    patterns: tuple[str, ...]
    encoded: str = PQ
    pairs: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])


_ANY_STILL = tuple(f"**/*{suffix}" for suffix in STILLS)
_ANY_MOVIE = tuple(f"**/*{suffix}" for suffix in MOVIES)
_HDRTV4K_SDR = ("OCIO2", "2446c+GM", "HC+GM", "2446a", "Reinhard", "YouTube", "DaVinci")
LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "stills": Layout(_ANY_STILL),
        "shots": Layout(("**/*.exr",)),
        "movies": Layout(_ANY_MOVIE),
        "hdrtv1k": Layout(
            ("train_hdr/*.png", "test_hdr/*.png"),
            pairs=MappingProxyType({"train_hdr": ("train_sdr",), "test_hdr": ("test_sdr",)}),
        ),
        "hdrtv4k": Layout(
            ("HDR/*.tif", "HDR/*.png", "GT/*.tif", "GT/*.png"),
            pairs=MappingProxyType({"HDR": _HDRTV4K_SDR, "GT": _HDRTV4K_SDR}),
        ),
        "hidro-vqa": Layout(_ANY_MOVIE),
        "chug": Layout(_ANY_MOVIE),
        "live-tmhdr": Layout(_ANY_MOVIE),
    }
)


@dataclass(frozen=True)
class HdrFile:
    """One HDR still or movie, and the SDR files that the corpus pairs with it, by the name of their folder."""

    path: Path
    space: Colourspace
    sdr: Mapping[str, Path] = field(default_factory=dict[str, Path])

    @property
    def is_movie(self) -> bool:
        """Whether it has frames after one another."""
        return self.path.suffix.lower() in MOVIES


@dataclass(frozen=True, eq=False)
class HdrPicture:
    """(H, W, 3) float32, scene-linear Rec.709, diffuse white 1.0; colours outside Rec.709 have negative channels."""

    scene_linear_hwc: npt.NDArray[np.float32]
    name: str


def hdr_files(folder: Path, layout: str) -> tuple[HdrFile, ...]:
    """The HDR files of a corpus in its folder, sorted by path.

    Raises BadParameter for a layout that there is none of, BadInput when the folder has no such file.
    """
    if layout not in LAYOUTS:
        raise BadParameter(f"there is no layout {layout!r}; there are: {', '.join(LAYOUTS)}")
    how = LAYOUTS[layout]
    paths = sorted({path for pattern in how.patterns for path in folder.glob(pattern) if path.is_file()})
    if not paths:
        raise BadInput(f"{folder} has no HDR files as {layout} has them ({', '.join(how.patterns[:3])}, …)")
    return tuple(HdrFile(path, colourspace(how.encoded), _pairs(path, how)) for path in paths)


def shots(files: Sequence[HdrFile]) -> Mapping[Path, tuple[HdrFile, ...]]:
    """Stills by the folder that they are in: each a shot, in the order of its names."""
    found: dict[Path, tuple[HdrFile, ...]] = {}
    for file in files:
        found[file.path.parent] = (*found.get(file.path.parent, ()), file)
    return found


def read_pictures(file: HdrFile, stride: int = 1) -> Iterator[HdrPicture]:
    """The frames of a file, every `stride`-th of a movie.

    Raises BadInput for what cannot be read, 8-bit stills, and movies that are not PQ or HLG in BT.2020.
    """
    if file.is_movie:
        yield from _movie_pictures(file.path, stride)
        return
    frame = read_frame(file.path)
    if frame.colourspace.range != "scene_linear":
        if int(frame.metadata.get("bits", 16)) <= 8:
            raise BadInput(f"{file.path} has 8 bits and so is no HDR; name 16-bit PQ or HLG stills, or EXRs")
        tagged = frame.colourspace.interop_id in HDR_TRANSFERS.values()
        frame = frame if tagged else replace(frame, colourspace=file.space)
    yield HdrPicture(_light(frame), file.path.name)


def _movie_pictures(path: Path, stride: int) -> Iterator[HdrPicture]:
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            context = stream.codec_context
            transfer, kind = HDR_TRANSFERS.get(int(context.color_trc)), kind_of(str(context.pix_fmt))
            if transfer is None or int(context.color_primaries) != REC2020 or kind is None:
                raise BadInput(f"{path} is not tagged PQ or HLG in BT.2020; leave it out, or correct its tags")
            matrix = int(context.colorspace) if int(context.colorspace) in LUMA_WEIGHTS else REC2020
            how = Coding(matrix, int(context.color_range) == FULL, transfer)
            for index, decoded in enumerate(container.decode(stream)):
                if index % stride == 0:
                    codes = codes_of(decoded, how)[..., :3]
                    frame = Frame(np.ascontiguousarray(codes), ("R", "G", "B"), colourspace(transfer))
                    yield HdrPicture(_light(frame), f"{path.name}:{index}")
    except FFmpegError as error:
        raise BadInput(f"{path} cannot be decoded: {' '.join(str(error).split())[:160]}; leave it out") from error


def _light(frame: Frame) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(convert(frame, colourspace(LINEAR)).rgb)


def _pairs(path: Path, how: Layout) -> Mapping[str, Path]:
    found: dict[str, Path] = {}
    for name in how.pairs.get(path.parent.name, ()):
        beside = sorted((path.parent.parent / name).glob(f"{path.stem}.*"))
        if beside:
            found[name] = beside[0]
    return MappingProxyType(found)
