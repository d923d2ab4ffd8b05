"""What the shipped gizmos promise, as tables: knobs with their kind and first value, buttons, inner nodes.

It owns the promises that scripts, farms and nuke_hdrgen rely on. It must not know how a gizmo's text is parsed.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parents[2] / "gizmos"
NAMES = ("HDRFuse", "SDR2HDR", "Txt2HDR")
LAYER = ("generated", "confidence", "clipped", "gain_r", "gain_g", "gain_b")

# name: (number of the kind in addUserKnob, first value as in a script)
Knobs = dict[str, tuple[int, str]]
COMMON: Knobs = {
    "pack": (1, ""),
    "quality": (4, "draft"),
    "seed": (3, "-1"),
    "parameters": (1, ""),
    "still_frame": (3, "1"),
    "range": (1, ""),
    "status": (1, ""),
    "show_result": (6, "true"),
    "unbaked": (4, "plate in GUI, error on farm"),
    "gain": (7, "1"),
    "use_ceiling": (6, "false"),
    "ceiling": (7, "100"),
    "cache_root": (2, ""),
    "bake_id": (1, ""),
    "take": (3, "0"),
    "colourspace": (1, ""),
    "chromaticities": (1, ""),
    "result_path": (2, ""),
    "upstream": (1, ""),
    "baked": (3, "0"),
}
WITH_PLATE: Knobs = {"preserve_plate": (6, "false"), "mix": (7, "1")}
FIRST_EVS = (-2, 0, 2, 4, 6, 8, 10)
OWN: dict[str, Knobs] = {
    "HDRFuse": {
        "source": (4, "inputs"),
        "exposures": (3, "3"),
        **{f"ev{number}": (7, str(ev)) for number, ev in enumerate(FIRST_EVS, 1)},
        **{f"offset{number}": (3, str(number - 1)) for number in range(1, 8)},
        "reference": (4, "middle"),
        "plate_input": (3, "0"),
        "plate_offset": (3, "0"),
        "still": (6, "true"),
        **WITH_PLATE,
    },
    "SDR2HDR": {
        "mode": (4, "frame by frame"),
        "encoding": (4, "sRGB"),
        "clip_threshold": (3, "250"),
        "still": (6, "false"),
        **WITH_PLATE,
    },
    "Txt2HDR": {
        "prompt": (28, ""),
        "negative_prompt": (28, ""),
        "size_width": (3, "1024"),
        "size_height": (3, "1024"),
        "projection": (4, "perspective"),
        "count": (3, "1"),
        "variation": (3, "1"),
        "strength": (7, "0.6"),
        "still": (6, "true"),
    },
}
ITEMS = {
    "quality": ["draft", "final"],
    "unbaked": ["plate in GUI, error on farm", "error"],
    "source": ["inputs", "frames"],
    "reference": ["middle", "1", "2", "3", "4", "5", "6", "7"],
    "mode": ["frame by frame", "shot"],
    "encoding": ["sRGB", "Rec.1886", "gamma 2.2"],
    "projection": ["perspective", "panorama"],
}
BUTTONS = {
    "bake": "Bake frame",
    "bake_range": "Bake range",
    "bake_stale": "Bake stale",
    "cancel": "Cancel",
    "estimate": "How long?",
    "refresh": "Find bakes",
    "new_id": "New bake id",
    "make_read": "Make Read",
    "copy_to_group": "Copy to Group",
    "free_gpu": "Free GPU",
    "troubleshoot": "Troubleshoot",
}
OWN_BUTTONS = {"HDRFuse": {"ev_from_metadata": "EV from metadata"}, "SDR2HDR": {}, "Txt2HDR": {}}
HIDDEN = {"upstream", "baked", "plate_input", "plate_offset"}
INPUTS = {"HDRFuse": 7, "SDR2HDR": 1, "Txt2HDR": 1}


def knobs(gizmo: str) -> Knobs:
    """Every value knob that a gizmo must have."""
    return {**COMMON, **OWN[gizmo]}


def buttons(gizmo: str) -> dict[str, str]:
    """Every button that a gizmo must have, with its label."""
    return {**BUTTONS, **OWN_BUTTONS[gizmo]}
