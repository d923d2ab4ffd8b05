"""What a movie's stream says of its codes: matrix, range, transfer and primaries, as numbers of ITU-T H.273.

It owns the tables, and which of them this project takes as SDR Rec.709 footage. It must not know decoding or pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from nuke_hdrgen.wire.errors import BadInput, BadParameter

UNSAID = frozenset({0, 2, 3})  # reserved, unspecified: nothing is said
# H.273, table 4: (Kr, Kb) of each matrix, by its number; 0 is RGB.
RGB_MATRIX = 0
LUMA_WEIGHTS: Mapping[int, tuple[float, float]] = MappingProxyType(
    {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087),
     9: (0.2627, 0.0593)}
)  # fmt: skip
MATRICES: Mapping[str, int] = MappingProxyType({"bt709": 1, "bt601": 6, "bt2020": 9})
# H.273, table 3. What a display shows of 1, 6, 14 and 15 is BT.1886, whatever the camera's own curve was.
REC1886, SRGB, GAMMA22 = "g24_rec709_scene", "srgb_rec709_scene", "g22_rec709_scene"
TRANSFERS: Mapping[int, str] = MappingProxyType(
    {1: REC1886, 6: REC1886, 14: REC1886, 15: REC1886, 4: GAMMA22, 13: SRGB}
)
NOT_SDR: Mapping[int, str] = MappingProxyType(
    {16: "PQ (HDR)", 18: "HLG (HDR)", 9: "logarithmic", 10: "logarithmic", 8: "linear light", 17: "digital cinema"}
)
REC709_PRIMARIES = 1
PRIMARIES: Mapping[int, str] = MappingProxyType(
    {4: "BT.470 M", 5: "BT.601 (625 lines)", 6: "BT.601 (525 lines)", 7: "SMPTE 240M", 8: "film", 9: "BT.2020",
     10: "XYZ", 11: "DCI-P3", 12: "Display P3", 22: "EBU 3213"}
)  # fmt: skip
LIMITED, FULL = 1, 2
LEVELS: Mapping[str, int] = MappingProxyType({"limited": LIMITED, "full": FULL})
# Above this size a stream without a matrix is taken as BT.709, below as BT.601, as players do.
SD_SIDES = (1024, 576)
# What cameras write into a movie's metadata when they record a log curve that no tag has a number for.
LOG_WORDS = (
    "s-log", "slog", "logc", "log-c", "log c", "v-log", "vlog", "c-log", "clog", "canon log", "f-log", "flog", "n-log",
    "d-log", "dlog", "redlog", "log3g10", "bmdfilm", "hlg", "hybrid log", "st2084", "smpte2084",
)  # fmt: skip
COLOUR_KEYS = ("gamma", "transfer", "look", "curve", "colorspace", "color_s")


@dataclass(frozen=True)
class Tags:
    """The numbers of one stream; 2 is unspecified, and 0 for `levels`."""

    primaries: int = 2
    transfer: int = 2
    matrix: int = 2
    levels: int = 0


@dataclass(frozen=True)
class Coding:
    """How codes are made: `matrix` a key of LUMA_WEIGHTS or RGB_MATRIX, full range or limited, and the interop id of
    what R'G'B' is.
    """

    matrix: int
    full: bool
    space: str
    warnings: tuple[str, ...] = ()


def coding(
    name: str, tags: Tags, size: tuple[int, int], *, rgb: bool, space: str = "", matrix: str | None, levels: str | None
) -> Coding:
    """How the codes of a stream `name` of (width, height) are made: what the overrides say, else its tags, else what
    players assume, with a warning.

    `space` is the interop id that a user gives, "" when none; `rgb` whether the codes are RGB. Raises BadInput for tags
    that are no SDR Rec.709, BadParameter for overrides that are none.
    """
    for option, given, known in (("--matrix", matrix, MATRICES), ("--levels", levels, LEVELS)):
        if given is not None and given not in known:
            raise BadParameter(f"{option} must be {', '.join(known)}, got {given!r}")
    warnings: list[str] = []
    if not space:
        space = _space(name, tags, warnings)
    number = RGB_MATRIX if rgb else MATRICES[matrix] if matrix else _matrix(name, tags, size, warnings)
    said = LEVELS[levels] if levels else tags.levels
    full = rgb if said not in LEVELS.values() else said == FULL
    return Coding(number, full, space, tuple(warnings))


def _space(name: str, tags: Tags, warnings: list[str]) -> str:
    if tags.transfer in NOT_SDR:
        raise BadInput(
            f"{name} is tagged {NOT_SDR[tags.transfer]}, which is no SDR; sdr2hdr takes BT.709 footage: "
            "correct a wrong tag with --input-colourspace"
        )
    if tags.primaries not in UNSAID | {REC709_PRIMARIES}:
        known = PRIMARIES.get(tags.primaries, f"number {tags.primaries}")
        raise BadInput(
            f"{name} has {known} primaries; convert it to BT.709, or say what it is with --input-colourspace"
        )
    if tags.transfer in UNSAID:
        warnings.append(f"{name} does not state its transfer; taken as BT.709 shown by BT.1886")
        return REC1886
    if tags.transfer not in TRANSFERS:
        raise BadInput(
            f"{name} has transfer number {tags.transfer}, which is not read; say it with --input-colourspace"
        )
    return TRANSFERS[tags.transfer]


def _matrix(name: str, tags: Tags, size: tuple[int, int], warnings: list[str]) -> int:
    if tags.matrix in LUMA_WEIGHTS:
        return tags.matrix
    if tags.matrix not in UNSAID:
        raise BadInput(f"{name} has matrix number {tags.matrix}, which is not read; correct a wrong tag with --matrix")
    high = size[0] > SD_SIDES[0] or size[1] > SD_SIDES[1]
    warnings.append(f"{name} does not state its matrix; taken as {'BT.709' if high else 'BT.601'} by its size")
    return MATRICES["bt709" if high else "bt601"]


def log_word(texts: Mapping[str, str]) -> str:
    """The first "key=value" of a movie's metadata that names a log or HDR curve, "" when none does."""
    for key, value in texts.items():
        about_colour = any(word in key.lower() for word in COLOUR_KEYS)
        if about_colour and any(word in value.lower() for word in LOG_WORDS):
            return f"{key}={value}"
    return ""
