"""Every bound and deadline of the wire in one frozen place; both sides check them before they allocate.

It owns numbers and their units only. It must not know messages, sockets or settings files.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Dict, Union

MIB = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """Sizes in bytes, times in seconds (names end in `_s`), and counts. A server sends them in its `welcome`."""

    header_bytes: int = MIB
    header_depth: int = 8
    header_keys: int = 256
    header_items: int = 8192
    header_containers: int = 4096
    hello_bytes: int = 64 * 1024
    frame_bytes: int = 1024 * MIB
    flight_bytes: int = 4096 * MIB
    connections: int = 64
    session_frames: int = 2
    queue_jobs: int = 64
    header_deadline_s: float = 5.0
    upload_floor_bytes_s: int = MIB
    upload_grace_s: float = 30.0
    progress_s: float = 2.0
    silence_s: float = 10.0
    beat_s: float = 2.0
    worker_silence_s: float = 30.0
    worker_loading_s: float = 600.0

    def as_numbers(self) -> Dict[str, Union[int, float]]:
        """The limits by name, as `welcome` carries them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
