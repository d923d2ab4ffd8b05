"""Plates of one colour, and the EXRs that a Write makes of them, with the standard library alone.

It owns what tests on a bare Python need: a size, metadata, and real files. It must not know numpy or OpenEXR; a graph
that changes pixels is the business of `pixels`.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.fakes.nuke.errors import NukeError
from tests.fakes.nuke.nodes import Group

if TYPE_CHECKING:
    from tests.fakes.nuke.nodes import Node

PASSING = frozenset({"Dot", "NoOp", "Output", "Write"})
MAGIC = b"\x76\x2f\x31\x01\x02\x00\x00\x00"


@dataclass(frozen=True)
class FlatPlate:
    """A picture of one scene-linear RGBA colour."""

    width: int
    height: int
    colour: tuple[float, float, float, float] = (0.18, 0.18, 0.18, 1.0)
    metadata: dict[str, Any] = field(default_factory=dict)


def find(node: Node | None, frame: float) -> FlatPlate | None:
    """The plate that comes out of a node unchanged, where it is a FlatPlate; else None."""
    if node is None:
        return None
    disabled = node._knobs.get("disable")
    if node._kind == "Input" and node._group is not None:
        return find(node._group.input(int(node._knobs["number"].value())), frame)
    if node._kind in PASSING or (disabled is not None and disabled.valueAt(frame)):
        return find(node.input(0), frame)
    if node._kind == "Switch":
        return find(node.input(int(node._knobs["which"].getValueAt(frame))), frame)
    if isinstance(node, Group):
        outputs = [child for child in node._children.values() if child._kind == "Output"]
        return find(outputs[0], frame) if outputs else None
    if node._kind != "Plate":
        return None
    source = node._nuke.plates[node._knobs["picture"]._state]
    made = source(frame) if callable(source) else source
    return made if isinstance(made, FlatPlate) else None


def write(node: Node, plate: FlatPlate, path: Path) -> None:
    """Write an uncompressed float RGBA EXR (openexr.com, "OpenEXR File Layout"). Raises NukeError for other Writes."""
    wanted = {"datatype": "32 bit float", "compression": "none", "channels": "rgba"}
    for name, value in wanted.items():
        if node[name].value() != value:
            raise NukeError(f"{node._path()}.{name}: without numpy this Nuke writes only {value}")
    names = "ABGR"
    window = struct.pack("<4i", 0, 0, plate.width - 1, plate.height - 1)
    channels = b"".join(name.encode() + b"\0" + struct.pack("<iB3xii", 2, 0, 1, 1) for name in names) + b"\0"
    header = MAGIC + b"".join(
        _attribute(name, kind, value)
        for name, kind, value in (
            ("channels", "chlist", channels),
            ("compression", "compression", b"\0"),
            ("dataWindow", "box2i", window),
            ("displayWindow", "box2i", window),
            ("lineOrder", "lineOrder", b"\0"),
            ("pixelAspectRatio", "float", struct.pack("<f", 1)),
            ("screenWindowCenter", "v2f", struct.pack("<2f", 0, 0)),
            ("screenWindowWidth", "float", struct.pack("<f", 1)),
        )
    )
    line = b"".join((array("f", [plate.colour["RGBA".index(name)]]) * plate.width).tobytes() for name in names)
    start = len(header) + 1 + 8 * plate.height
    offsets = [start + row * (8 + len(line)) for row in range(plate.height)]
    rows = b"".join(struct.pack("<ii", row, len(line)) + line for row in range(plate.height))
    path.write_bytes(header + b"\0" + struct.pack(f"<{plate.height}Q", *offsets) + rows)


def _attribute(name: str, kind: str, value: bytes) -> bytes:
    return name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(value)) + value
