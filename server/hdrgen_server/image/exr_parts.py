"""Plans the reading of an EXR from its header alone: sizes, windows, which channel is colour and which is a
layer.

It owns the limits and every refusal that needs no pixels. It must not decode or write anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import OpenEXR

from hdrgen_server.contracts.frame import Box
from nuke_hdrgen.wire.errors import BadInput, TooLarge


@dataclass(frozen=True)
class Limits:
    """The largest EXR that is decoded: sides in pixels, parts, channels of one part, and bytes of all
    decoded channels.
    """

    side: int = 32768
    parts: int = 64
    channels: int = 512
    decoded_bytes: int = 4 << 30


@dataclass(frozen=True)
class ViewPlan:
    """One view of one part: its name, the file's channels for colour, and the rest as {layer name: channel
    name}.
    """

    view: str
    colour: Mapping[str, str]
    layers: Mapping[str, str]


@dataclass(frozen=True)
class PartPlan:
    """One part of a file: header, windows and views; nothing is decoded yet."""

    index: int
    name: str
    header: Mapping[str, Any]
    data_window: Box
    display_window: Box
    pixel_aspect: float
    views: tuple[ViewPlan, ...]


def plan_parts(headers: Sequence[Mapping[str, Any]], limits: Limits, source: str) -> list[PartPlan]:
    """Plan every part of a file.

    Raises BadInput naming `source` for deep parts, subsampled channels, unusable windows or no parts, and
    TooLarge when a side, count or the decoded size is over `limits`.
    """
    if not headers:
        raise BadInput(f"{source} holds no image part; export it again")
    if len(headers) > limits.parts:
        raise TooLarge(f"{source} holds {len(headers)} parts, over the limit of {limits.parts}")
    plans = [_plan_part(index, header, limits, source) for index, header in enumerate(headers)]
    decoded = sum(plan.data_window.width * plan.data_window.height * 4 * len(plan.header["channels"]) for plan in plans)
    if decoded > limits.decoded_bytes:
        raise TooLarge(
            f"{source} needs {decoded >> 20} MiB decoded, over the limit of {limits.decoded_bytes >> 20} MiB"
        )
    return plans


def _plan_part(index: int, header: Mapping[str, Any], limits: Limits, source: str) -> PartPlan:
    name = str(header.get("name") or "")
    where = f"{source}, part {name or index}" if name or index else source
    if header.get("type") in (OpenEXR.deepscanline, OpenEXR.deeptile):
        raise BadInput(f"{where} is deep data, which cannot be used here; flatten it (DeepToImage) first")
    data = _box(header.get("dataWindow"), "data window", limits, where)
    display = _box(header.get("displayWindow"), "display window", limits, where)
    aspect = float(header.get("pixelAspectRatio", 1.0))
    if not (math.isfinite(aspect) and 1e-3 <= aspect <= 1e3):
        raise BadInput(f"{where} has a pixel aspect of {aspect}; export it again")
    channels: list[Any] = list(header.get("channels") or ())
    if not channels:
        raise BadInput(f"{where} has no channels; export it again")
    if len(channels) > limits.channels:
        raise TooLarge(f"{where} has {len(channels)} channels, over the limit of {limits.channels}")
    for channel in channels:
        if (channel.xSampling, channel.ySampling) != (1, 1):
            raise BadInput(f"{where} has the subsampled channel {channel.name}; export it as full-size RGB")
    names = [str(channel.name) for channel in channels]
    return PartPlan(index, name, header, data, display, aspect, _views(header, names))


def _box(value: object, what: str, limits: Limits, where: str) -> Box:
    if not isinstance(value, tuple) or len(value) != 2:
        raise BadInput(f"{where} has no {what}; export it again")
    low, high = value
    box = Box(int(low[0]), int(low[1]), int(high[0]), int(high[1]))
    if box.width < 1 or box.height < 1:
        raise BadInput(f"{where} has an empty {what} of {box.width}x{box.height} pixels; export it again")
    if box.width > limits.side or box.height > limits.side:
        raise TooLarge(f"{where} has a {what} of {box.width}x{box.height} pixels, over {limits.side} on a side")
    return box


def _views(header: Mapping[str, Any], channels: Sequence[str]) -> tuple[ViewPlan, ...]:
    """Split the channels of a part by view: in a multi-view part all but the first view carry their name.

    The naming rule (`layer.view.channel`, default view plain) is OpenEXR's, "Multi-View OpenEXR".
    """
    names: list[str] = [str(view) for view in header.get("multiView") or ()]
    default = names[0] if names else str(header.get("view") or "")
    members: dict[str, dict[str, str]] = {view: {} for view in names or [default]}
    for channel in channels:
        *path, last = channel.split(".")
        if path and path[-1] in names:
            members[path[-1]][".".join([*path[:-1], last])] = channel
        else:
            members[default][channel] = channel
    return tuple(_view(view, own) for view, own in members.items() if own)


def _view(view: str, channels: Mapping[str, str]) -> ViewPlan:
    colour: tuple[str, ...] = ()
    for wanted in (("R", "G", "B"), ("Y",)):
        if channels.keys() >= set(wanted):
            colour = (*wanted, "A") if "A" in channels else wanted
            break
    return ViewPlan(
        view,
        {name: channels[name] for name in colour},
        {name: channel for name, channel in channels.items() if name not in colour},
    )
