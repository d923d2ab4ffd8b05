"""The worker's side of the slots: the gateway's files, mapped by name and kept mapped while they are in use again.

It owns the mappings. It must not know who reads or writes them when; the messages say so.
"""

from __future__ import annotations

import mmap
import os
import re
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

from nuke_hdrgen.wire.errors import InvalidMessage

KEPT = 8
_NAME = re.compile(r"slot-[0-9]{1,12}\Z")


class SlotMap:
    """Mappings of slot files, the most recently used ones kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mapped: OrderedDict[str, mmap.mmap] = OrderedDict()

    def view(self, name: str, length: int) -> memoryview:
        """The first `length` bytes of a slot, writable. Raises InvalidMessage for a name or length that no slot has."""
        mapping = self._mapped.get(name)
        if mapping is None:
            mapping = self._map(name)
            self._mapped[name] = mapping
        self._mapped.move_to_end(name)
        if not 0 <= length <= len(mapping):
            raise InvalidMessage(f"slot {name} holds {len(mapping)} bytes, not {length}; the gateway is at fault")
        self._forget_old()
        return memoryview(mapping)[:length]

    def _map(self, name: str) -> mmap.mmap:
        if not _NAME.match(name):
            raise InvalidMessage(f"{name!r} is no slot's name; the gateway is at fault")
        try:
            descriptor = os.open(self._folder / name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise InvalidMessage(f"slot {name} cannot be opened ({error.strerror}); the gateway is at fault") from error
        try:
            return mmap.mmap(descriptor, 0, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        finally:
            os.close(descriptor)

    def _forget_old(self) -> None:
        gone = [n for n in self._mapped if not (self._folder / n).exists()]
        while len(self._mapped) - len(gone) > KEPT:
            gone.append(next(n for n in self._mapped if n not in gone))
        for name in gone:
            with suppress(BufferError):  # still read by a frame: it goes when the frame goes
                self._mapped.pop(name).close()
