"""The knobs of the Nuke node classes that the gizmos and the tests use: names, kinds, enum items, script defaults.

It owns these facts and nothing else: it must not know a node, a graph or a picture. Names, kinds and items are those of
Nuke 17.0v3, read from the dump in the public repository kirkjr2/nuke-python-reference, files data/nodes/<Class>.json,
commit 570019a95c08a6c35c90a78fa49645432cadca34. The knobs of Write that appear only once `file_type` is exr are not in
that dump; they are in Foundry's reference of the Write node and in published scripts. Knobs that we never touch are
left out, and so are long lists of items (colourspaces, file types), which depend on the installation.

A kind is "bool", "int", "double", "text", "file", "script" (Python or Tcl that is run), "channels" (one or several, as
"rgba.red", "rgba", "hdrgen" or "none"), "format", "colour" (four numbers), "box" (four numbers), "range" (read only),
or a tuple of the items of an enum. `DEFAULTS` holds what `toScript()` of a fresh node says.

What differs between Nuke 14 and 17, where it is known:

- FrameHold: `firstFrame` in 17, `first_frame` before (17 keeps the old name as an obsolete knob). Hence no FrameHold in
  the gizmos; a TimeWarp holds a frame with knobs that kept their names.
- TimeOffset and FrameHold: `rounding_mode` and the path masks are new; older ones work in whole frames.
- Switch: `condition` is obsolete; `which` is in all versions.
- Group: `show_group_view`, `disable_group_view` and `group_view_position` came with 16.
- Write: `transformType`, `display` and `view` came with the OCIO displays (13); `raw` on makes them moot.
- Root: the name of the OCIO knobs, see `ROOT_OCIO_KNOBS`.
"""

from __future__ import annotations

from typing import Tuple, Union  # noqa: UP035

Kind = Union[str, Tuple[str, ...]]  # noqa: UP006

COMMON: dict[str, Kind] = {
    "name": "text",
    "label": "text",
    "xpos": "int",
    "ypos": "int",
    "disable": "bool",
    "selected": "bool",
    "tile_color": "int",
    "gl_color": "int",
    "note_font": "text",
    "note_font_size": "double",
    "note_font_color": "int",
    "hide_input": "bool",
    "postage_stamp": "bool",
    "cached": "bool",
    "bookmark": "bool",
    "dope_sheet": "bool",
    "useLifetime": "bool",
    "lifetimeStart": "int",
    "lifetimeEnd": "int",
    "icon": "file",
    "help": "text",
    "onCreate": "script",
    "onDestroy": "script",
    "knobChanged": "script",
    "updateUI": "script",
    "autolabel": "script",
}

# Knobs of COMMON that these classes lack.
LACKING: dict[str, frozenset[str]] = {
    **{
        name: frozenset({"disable", "hide_input", "postage_stamp", "cached", "bookmark", "dope_sheet"})
        for name in ("Input", "Root")
    },
    **{name: frozenset({"hide_input"}) for name in ("Read", "Constant")},
}

# How many inputs a class takes: least and most. A class that is not here takes one.
INPUTS: dict[str, tuple[int, int]] = {
    "Constant": (0, 0),
    "Copy": (2, 3),
    "CopyMetaData": (2, 2),
    "Crop": (1, 1),
    "Dissolve": (2, 10001),
    "Expression": (1, 2),
    "Grade": (1, 2),
    "Group": (0, 0),
    "Input": (0, 0),
    "MergeExpression": (2, 3),
    "Multiply": (1, 2),
    "Read": (0, 0),
    "Root": (0, 0),
    "Switch": (1, 10000),
}

_OUTSIDE: Kind = ("hold", "loop", "bounce", "black")
_ON_ERROR: Kind = ("error", "black", "checkerboard", "nearest frame")
_FRAME_MODE: Kind = ("expression", "start at", "offset")
_WITHIN: Kind = ("keys and values", "keys only", "values only")
_ROUNDING: Kind = ("Whole frames", "Fractional time")

_MASK: dict[str, Kind] = {
    "maskChannelInput": "channels",
    "maskChannelMask": "channels",
    "maskFromFlag": "bool",
    "inject": "bool",
    "invert_mask": "bool",
    "fringe": "bool",
}
_MIX: dict[str, Kind] = {"unpremult": "channels", "invert_unpremult": "bool", "mix": "double"}
_MASK_DEFAULTS = {
    "maskChannelInput": "none",
    "maskChannelMask": "rgba.alpha",
    "maskFromFlag": "false",
    "inject": "false",
    "invert_mask": "false",
    "fringe": "false",
}
_MIX_DEFAULTS = {"unpremult": "none", "invert_unpremult": "false", "mix": "1"}

_EXPRESSION: dict[str, Kind] = {
    **{f"temp_name{index}": "text" for index in range(4)},
    **{f"temp_expr{index}": "text" for index in range(4)},
    **{f"channel{index}": "channels" for index in range(4)},
    **{f"expr{index}": "text" for index in range(4)},
}
_EXPRESSION_DEFAULTS = {
    **dict.fromkeys(_EXPRESSION, ""),
    "channel0": "rgba.red -rgba.green -rgba.blue",
    "channel1": "-rgba.red rgba.green -rgba.blue",
    "channel2": "-rgba.red -rgba.green rgba.blue",
    "channel3": "none none none rgba.alpha",
}
_GRADE_COLOURS = ("blackpoint", "whitepoint", "black", "white", "multiply", "add", "gamma")

CLASSES: dict[str, dict[str, Kind]] = {
    "Constant": {"channels": "channels", "color": "colour", "format": "format", "first": "double", "last": "double"},
    "Copy": {
        **{f"from{index}": "channels" for index in range(4)},
        **{f"to{index}": "channels" for index in range(4)},
        "channels": "channels",
        "bbox": ("union", "B", "A"),
        "metainput": ("B", "A", "All"),
        "rangeinput": "text",
        **_MASK,
        **_MIX,
    },
    "CopyMetaData": {
        "mergeMode": ("Image+Meta", "Meta only", "Meta+Image", "Image only"),
        "metadatafilter": "text",
        "metadatafilterMode": _WITHIN,
        "imageMetadatafilter": "text",
        "imageMetadatafilterMode": _WITHIN,
    },
    "Crop": {
        "box": "box",
        "softness": "text",
        "reformat": "bool",
        "intersect": "bool",
        "crop": "bool",
        "preset": ("format", "square", "4:3", "16:9", "14:9", "1.66:1", "1.85:1", "2.35:1"),
    },
    "Dissolve": {"which": "double", "channels": "channels", "metainput": "double", "mergerange": "bool", **_MASK},
    "Dot": {},
    "Expression": {**_EXPRESSION, **_MASK, **_MIX, "mix_luminance": "double", "enable_mix_luminance": "bool"},
    "FrameHold": {"firstFrame": "double", "increment": "double", "rounding_mode": _ROUNDING},
    "Grade": {
        "channels": "channels",
        **dict.fromkeys(_GRADE_COLOURS, "colour"),
        "reverse": "bool",
        "black_clamp": "bool",
        "white_clamp": "bool",
        **_MASK,
        **_MIX,
    },
    "Group": {"lock_connections": "bool", "show_group_view": "bool", "disable_group_view": "bool"},
    "Input": {"number": "double"},
    "MergeExpression": {**_EXPRESSION, **_MASK, **_MIX},
    "Multiply": {"channels": "channels", "value": "colour", **_MASK, **_MIX},
    "NoOp": {},
    "Output": {},
    "Premult": {"channels": "channels", "alpha": "channels", "invert": "bool"},
    "Read": {
        "file": "file",
        "proxy": "file",
        "file_type": "text",
        "format": "format",
        "proxy_format": "format",
        "first": "int",
        "last": "int",
        "origfirst": "int",
        "origlast": "int",
        "origset": "bool",
        "before": _OUTSIDE,
        "after": _OUTSIDE,
        "frame_mode": _FRAME_MODE,
        "frame": "text",
        "on_error": _ON_ERROR,
        "colorspace": "text",
        "premultiplied": "bool",
        "raw": "bool",
        "auto_alpha": "bool",
        "localizationPolicy": ("on", "fromAutoLocalizePath", "onDemand", "off"),
        "metadatafilter": "text",
        "reload": "script",
    },
    "Root": {
        "first_frame": "int",
        "last_frame": "int",
        "frame": "int",
        "fps": "double",
        "lock_range": "bool",
        "format": "format",
        "proxy": "bool",
        "proxy_scale": "double",
        "views": "text",
        "project_directory": "file",
        "colorManagement": ("Nuke", "OCIO"),
        "OCIO_config": "text",
        "customOCIOConfigPath": "file",
        "workingSpaceLUT": "text",
        "onScriptLoad": "script",
        "onScriptSave": "script",
    },
    "Switch": {"which": "double"},
    "TimeOffset": {"time_offset": "double", "reverse_input": "bool", "rounding_mode": _ROUNDING, "time": "range"},
    "TimeWarp": {"lookup": "double", "length": "double", "filter": ("none", "nearest", "box"), "time": "range"},
    "Unpremult": {"channels": "channels", "alpha": "channels", "invert": "bool"},
    "Write": {
        "channels": "channels",
        "file": "file",
        "proxy": "file",
        "frame_mode": _FRAME_MODE,
        "frame": "text",
        "file_type": "text",
        "datatype": ("16 bit half", "32 bit float"),
        "compression": (
            "none",
            "Zip (1 scanline)",
            "Zip (16 scanlines)",
            "PIZ Wavelet (32 scanlines)",
            "RLE",
            "B44",
            "B44A",
            "DWAA",
            "DWAB",
        ),
        "autocrop": "bool",
        "interleave": (
            "channels, layers and views",
            "channels and layers",
            "channels",
        ),
        "metadata": (
            "no metadata",
            "default metadata",
            "default metadata and exr/*",
            "all metadata except input/*",
            "all metadata",
        ),
        "heroview": "text",
        "colorspace": "text",
        "raw": "bool",
        "premultiplied": "bool",
        "transformType": ("colorspace", "display"),
        "create_directories": "bool",
        "checkHashOnRead": "bool",
        "reading": "bool",
        "read_all_lines": "bool",
        "on_error": _ON_ERROR,
        "render_order": "double",
        "use_limit": "bool",
        "first": "int",
        "last": "int",
        "views": "text",
        "beforeRender": "script",
        "beforeFrameRender": "script",
        "afterFrameRender": "script",
        "afterRender": "script",
        "renderProgress": "script",
        "reload": "script",
        "Render": "script",
    },
}

# The knob that says which OCIO config a script uses, in the order in which a reader tries them.
ROOT_OCIO_KNOBS = ("OCIO_config", "customOCIOConfigPath")

DEFAULTS: dict[str, dict[str, str]] = {
    "Constant": {"channels": "rgb", "color": "0", "format": "0", "first": "1", "last": "1"},
    "Copy": {
        "from0": "rgba.alpha",
        "to0": "rgba.alpha",
        **{f"{side}{index}": "none" for side in ("from", "to") for index in (1, 2, 3)},
        "channels": "none",
        "bbox": "union",
        "metainput": "B",
        **_MASK_DEFAULTS,
        **_MIX_DEFAULTS,
    },
    "CopyMetaData": {
        "mergeMode": "Image+Meta",
        "metadatafilter": "",
        "metadatafilterMode": "keys and values",
        "imageMetadatafilter": "",
        "imageMetadatafilterMode": "keys and values",
    },
    "Crop": {"box": "0 0 2048 1556", "softness": "0", "reformat": "false", "intersect": "false", "crop": "true"},
    "Dissolve": {"which": "0", "channels": "all", "metainput": "0", "mergerange": "false", **_MASK_DEFAULTS},
    "Expression": {**_EXPRESSION_DEFAULTS, **_MASK_DEFAULTS, **_MIX_DEFAULTS, "enable_mix_luminance": "true"},
    "FrameHold": {"firstFrame": "1", "increment": "0", "rounding_mode": "Whole frames"},
    "Grade": {
        "channels": "rgb",
        **dict.fromkeys(("blackpoint", "black", "add"), "0"),
        **dict.fromkeys(("whitepoint", "white", "multiply", "gamma"), "1"),
        "reverse": "false",
        "black_clamp": "true",
        "white_clamp": "false",
        **_MASK_DEFAULTS,
        **_MIX_DEFAULTS,
    },
    "Group": {"lock_connections": "false", "show_group_view": "false", "disable_group_view": "false"},
    "Input": {"number": "0"},
    "MergeExpression": {**_EXPRESSION_DEFAULTS, **_MASK_DEFAULTS, **_MIX_DEFAULTS},
    "Multiply": {"channels": "all", "value": "1", **_MASK_DEFAULTS, **_MIX_DEFAULTS},
    "Premult": {"channels": "rgb", "alpha": "rgba.alpha", "invert": "false"},
    "Read": {
        "file": "",
        "proxy": "",
        "file_type": "",
        "format": "0",
        "first": "1",
        "last": "1",
        "origset": "false",
        "before": "hold",
        "after": "hold",
        "frame_mode": "expression",
        "frame": "",
        "on_error": "error",
        "colorspace": "default",
        "premultiplied": "false",
        "raw": "false",
        "auto_alpha": "false",
        "localizationPolicy": "fromAutoLocalizePath",
    },
    "Root": {
        "first_frame": "1",
        "last_frame": "100",
        "frame": "1",
        "fps": "24",
        "lock_range": "false",
        "proxy": "false",
        "colorManagement": "Nuke",
        "OCIO_config": "nuke-default",
        "customOCIOConfigPath": "",
    },
    "Switch": {"which": "0"},
    "TimeOffset": {"time_offset": "0", "reverse_input": "false", "rounding_mode": "Whole frames"},
    "TimeWarp": {"lookup": "0", "length": "1", "filter": "box"},
    "Unpremult": {"channels": "rgb", "alpha": "rgba.alpha", "invert": "false"},
    "Write": {
        "channels": "rgb",
        "file": "",
        "proxy": "",
        "frame_mode": "expression",
        "frame": "",
        "file_type": "",
        "datatype": "16 bit half",
        "compression": "Zip (1 scanline)",
        "autocrop": "false",
        "interleave": "channels, layers and views",
        "metadata": "default metadata",
        "colorspace": "default",
        "raw": "false",
        "premultiplied": "false",
        "transformType": "colorspace",
        "create_directories": "false",
        "checkHashOnRead": "true",
        "reading": "false",
        "on_error": "error",
        "render_order": "1",
        "use_limit": "false",
        "first": "1",
        "last": "1",
        "beforeRender": "",
        "beforeFrameRender": "",
        "afterFrameRender": "",
        "afterRender": "",
    },
}
