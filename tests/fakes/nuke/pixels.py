"""Pictures and how they are pulled through the graph, node by node.

It owns the picture type and the walk: disabled nodes, groups, Inputs. What each class does to a picture is
`pixel_nodes`; files are `exr_files`. Pixels are scene-linear as they come, float32, one plane (H, W) a channel, top row
first; nothing is converted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tests.fakes.nuke.errors import NukeError
from tests.fakes.nuke.nodes import Group

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.fakes.nuke.nodes import Node
    from tests.fakes.nuke.plain_plates import FlatPlate

Plane = npt.NDArray[np.float32]
RGBA = ("rgba.red", "rgba.green", "rgba.blue", "rgba.alpha")
SHORT = {"rgb": RGBA[:3], "rgba": RGBA, "alpha": RGBA[3:], "red": RGBA[:1], "green": RGBA[1:2], "blue": RGBA[2:3]}


@dataclass(frozen=True)
class Picture:
    """Planes by channel name, of the data window's size; `box` is its (x, y, width, height), y down from the top."""

    planes: dict[str, Plane]
    box: tuple[int, int, int, int]
    format: tuple[int, int]
    metadata: dict[str, Any]

    def plane(self, name: str) -> Plane:
        """A channel, black where the picture has none."""
        found = self.planes.get(name)
        return np.zeros((self.box[3], self.box[2]), np.float32) if found is None else found

    def rgba(self) -> Plane:
        """scene_linear_hwc, (H, W, 4)."""
        return np.stack([self.plane(name) for name in RGBA], axis=2)

    def with_planes(self, planes: dict[str, Plane]) -> Picture:
        """The picture with some channels replaced or added."""
        return replace(self, planes={**self.planes, **planes})

    def within(self, box: tuple[int, int, int, int]) -> Picture:
        """The picture over another data window; black where there was none."""
        if box == self.box:
            return self
        x, y, width, height = box
        left, top = max(x, self.box[0]), max(y, self.box[1])
        right = min(x + width, self.box[0] + self.box[2])
        bottom = min(y + height, self.box[1] + self.box[3])
        planes: dict[str, Plane] = {}
        for name, plane in self.planes.items():
            planes[name] = np.zeros((height, width), np.float32)
            if right > left and bottom > top:
                planes[name][top - y : bottom - y, left - x : right - x] = plane[
                    top - self.box[1] : bottom - self.box[1], left - self.box[0] : right - self.box[0]
                ]
        return replace(self, planes=planes, box=box)

    def nuke_box(self) -> tuple[int, int, int, int]:
        """The data window as Nuke counts: y of the lower edge, up from the format's bottom."""
        x, y, width, height = self.box
        return x, self.format[1] - y - height, width, height


def from_array(hwc: npt.NDArray[Any], metadata: dict[str, Any] | None = None) -> Picture:
    """An (H, W, 3 or 4) array as a picture that fills its format."""
    height, width, channels = hwc.shape
    planes = {name: np.ascontiguousarray(hwc[..., at], np.float32) for at, name in enumerate(RGBA[:channels])}
    return Picture(planes, (0, 0, width, height), (width, height), dict(metadata or {}))


def flat(plate: FlatPlate) -> Picture:
    """A plate of one colour as a picture."""
    size = (plate.width, plate.height)
    planes = {name: np.full(size[::-1], value, np.float32) for name, value in zip(RGBA, plate.colour)}
    return Picture(planes, (0, 0, *size), size, dict(plate.metadata))


def black(node: Node) -> Picture:
    """Nothing, in the script's format."""
    width, height = format_size(node, node._nuke._root._knobs["format"]._state)
    return Picture({}, (0, 0, width, height), (width, height), {})


def format_size(node: Node, text: str) -> tuple[int, int]:
    """Width and height of a format knob's text; the script's own format where it says none."""
    if text in {"", "0"}:
        text = node._nuke._root._knobs["format"]._state
    words = text.split()
    if len(words) < 2 or not all(word.isdigit() for word in words[:2]):
        raise NukeError(f"{node._path()}: this Nuke does not know the format {text!r}")
    return int(words[0]), int(words[1])


def union(boxes: Iterable[tuple[int, int, int, int]]) -> tuple[int, int, int, int]:
    """The smallest data window around several."""
    found = list(boxes)
    x, y = min(box[0] for box in found), min(box[1] for box in found)
    right, bottom = max(box[0] + box[2] for box in found), max(box[1] + box[3] for box in found)
    return x, y, right - x, bottom - y


def channels(node: Node, knob: str, *pictures: Picture) -> list[str]:
    """The channels that a channel knob names, in order; `all` is what the pictures have."""
    found: list[str] = []
    for word in node._knobs[knob]._state.replace("{", " ").replace("}", " ").split():
        if word.startswith("-") or word in {"none", "false"}:
            continue
        if word == "all":
            found += [name for picture in pictures for name in picture.planes]
        elif word in SHORT:
            found += SHORT[word]
        elif "." in word:
            found.append(word)
        elif word in node._nuke._layers:
            found += node._nuke._layers[word]
        else:
            raise NukeError(f"{node._path()}.{knob}: no channel or layer {word!r}")
    known = {name for layer in node._nuke._layers.values() for name in layer}
    known |= {name for picture in pictures for name in picture.planes}
    unknown = [name for name in found if name not in known]
    if unknown:
        raise NukeError(f"{node._path()}.{knob}: no channel {unknown[0]!r}; add_layer makes layers known")
    return list(dict.fromkeys(found))


class Pull:
    """One walk through the graph; a node's picture at a frame is made once."""

    def __init__(self) -> None:
        self._made: dict[tuple[Node, float], Picture] = {}

    def picture(self, node: Node, frame: float) -> Picture:
        """What flows out of a node. Raises RuntimeError as a render does."""
        key = (node, frame)
        if key not in self._made:
            self._made[key] = self._make(node, frame)
        return self._made[key]

    def input(self, node: Node, index: int, frame: float) -> Picture:
        """What flows into a node; black where nothing is connected."""
        source = node._inputs[index] if index < len(node._inputs) else None
        return black(node) if source is None else self.picture(source, frame)

    def _make(self, node: Node, frame: float) -> Picture:
        from tests.fakes.nuke.pixel_nodes import CLASSES

        node._alive()
        disabled = node._knobs.get("disable")
        if disabled is not None and disabled.valueAt(frame):
            return self.input(node, 0, frame)
        if isinstance(node, Group):
            outputs = [child for child in node._children.values() if child._kind == "Output"]
            if not outputs:
                raise RuntimeError(f"{node._path()} has no Output")
            return self.picture(outputs[0], frame)
        if node._kind == "Input":
            assert node._group is not None
            return self.input(node._group, int(node._knobs["number"].value()), frame)
        if node._kind not in CLASSES:
            raise NukeError(f"{node._path()}: this Nuke makes no pictures for {node._kind}")
        return CLASSES[node._kind](self, node, frame)


def pull(node: Node, frame: float) -> Picture:
    """What flows out of a node at a frame. Raises RuntimeError as a render does."""
    return Pull().picture(node, frame)
