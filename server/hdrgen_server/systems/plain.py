"""What operators without weights share: a descriptor, and no state to give back on the memory ladder.

It must not know any one of them, nor torch.
"""

from __future__ import annotations

from hdrgen_server.contracts.descriptor import Descriptor


class PlainOperator:
    """Holds no weights and no state."""

    def __init__(self, descriptor: Descriptor) -> None:
        self._descriptor = descriptor

    @property
    def descriptor(self) -> Descriptor:
        """What the system says about itself."""
        return self._descriptor

    def set_rung(self, rung: int) -> None:
        """Nothing to give back: such a system works in bands of rows, or holds its result alone."""
        del rung
