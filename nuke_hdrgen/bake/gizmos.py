"""The three gizmos as tables: which knobs decide a bake, and which parameter of the operation each becomes.

It owns the knobs' names as far as planning needs them. It must not know Nuke: values come as plain mappings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Container, Dict, Mapping, Optional, Tuple

EXPOSURES_MAXIMUM = 7
MIDDLE = "middle"
COMMON_BAKED = ("pack", "quality", "seed", "parameters", "colourspace", "chromaticities", "take")
ENCODINGS: Mapping[str, str] = {"sRGB": "srgb", "Rec.1886": "rec1886", "gamma 2.2": "gamma22"}


@dataclass(frozen=True)
class Gizmo:
    """One gizmo: `mark` is a knob that no other node has, so that a copy made into a Group is known too.

    `baked` are its own knobs whose scripts decide what a bake makes; those common to all three come on top.
    `parameters` names the wire's parameter for each knob whose value is sent as it is.
    """

    name: str
    operation: str
    mark: str
    inputs: int
    has_plate: bool
    own_baked: Tuple[str, ...]
    parameters: Mapping[str, str]

    @property
    def baked(self) -> Tuple[str, ...]:
        """Every knob whose script takes part in `params8`."""
        return (*self.own_baked, *COMMON_BAKED)


def _numbered(name: str) -> Tuple[str, ...]:
    return tuple(f"{name}{number}" for number in range(1, EXPOSURES_MAXIMUM + 1))


GIZMOS: Tuple[Gizmo, ...] = (
    Gizmo(
        "HDRFuse", "hdrfuse", "ev1", EXPOSURES_MAXIMUM, True,
        ("source", "exposures", *_numbered("ev"), *_numbered("offset"), "reference"), {},
    ),
    Gizmo(
        "SDR2HDR", "sdr2hdr", "encoding", 1, True,
        ("mode", "encoding", "clip_threshold"), {"clip_threshold": "clip_threshold"},
    ),
    Gizmo(
        "Txt2HDR", "txt2hdr", "prompt", 1, False,
        ("prompt", "negative_prompt", "size_width", "size_height", "projection", "variation", "strength"),
        {
            "prompt": "prompt", "negative_prompt": "negative_prompt", "projection": "projection",
            "size_width": "width", "size_height": "height",
        },
    ),
)  # fmt: skip
OPERATIONS: Dict[str, Gizmo] = {gizmo.operation: gizmo for gizmo in GIZMOS}


def gizmo_of(knobs: Container[str]) -> Optional[Gizmo]:
    """Which gizmo a node with these knobs is, or None when it is none of ours."""
    if "bake_id" not in knobs or "result_path" not in knobs:
        return None
    return next((gizmo for gizmo in GIZMOS if gizmo.mark in knobs), None)
