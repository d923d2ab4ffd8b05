"""What a safetensors file says of itself: its tensors' names and shapes, and its metadata.

It owns the reading of that header. It must not know torch or any model, and reads no weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nuke_hdrgen.wire.errors import BadInput

HEADER_BYTES = 100 << 20
"""The most that safetensors' own reader takes."""
METADATA = "__metadata__"


@dataclass(frozen=True)
class Header:
    """Shapes of the tensors by name, and what else whoever wrote the file said."""

    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]


def read_header(path: Path) -> Header:
    """The header of a safetensors file. Raises BadInput when it has none."""
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            table: Any = json.loads(stream.read(length)) if 0 < length <= HEADER_BYTES else None
        metadata = {str(name): str(value) for name, value in table.pop(METADATA, {}).items()}
        return Header({name: tuple(map(int, entry["shape"])) for name, entry in table.items()}, metadata)
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        raise BadInput(f"{path} cannot be read as safetensors; fetch it again") from error
