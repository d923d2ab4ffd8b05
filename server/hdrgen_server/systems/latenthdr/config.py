"""The exposure head's configurations and its exposures, as data. It must not know torch or diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hdrgen_server.systems.detail import WHOLE, Belief
from nuke_hdrgen.wire.errors import BadParameter

GAMMA = 2.2
"""An exposure's picture is clip(light 2^EV, 0, 1)^(1 / GAMMA), with mid-grey 0.18 in the light."""
EV_LOW, EV_HIGH = -7.0, 5.0
"""The document's stack: 13 exposures, one a stop."""
MOST_EXPOSURES = 64


@dataclass(frozen=True)
class HeadConfig:
    """Sizes of the head: channels at each scale, finest first; blocks at the coarsest; the EV's Fourier bands and the
    width of what they become. `belief` is how much of what it finds is taken over a plate (`systems.detail`).
    """

    widths: tuple[int, ...]
    middle: int
    bands: int
    condition: int
    belief: Belief = WHOLE

    @property
    def multiple(self) -> int:
        """Latents along each axis come in multiples of this; others are continued to it and cut again."""
        return 1 << (len(self.widths) - 1)


CONFIGS: Mapping[str, HeadConfig] = MappingProxyType({
    # Second-hand, as a third party read the document: 32 to 128 channels, a condition of 128 from 32 bands.
    "published": HeadConfig((32, 64, 128), middle=2, bands=32, condition=128),
    # So small a VAE's colours are not the plate's.
    # Two scales: a head that sees the whole picture knows its few training scenes by heart.
    "s": HeadConfig((64, 96), middle=2, bands=12, condition=96, belief=Belief(local=0.25, colour=0.0)),
})  # fmt: skip


@dataclass(frozen=True)
class Range:
    """The EVs that a head was trained on, both ends included."""

    low: float = EV_LOW
    high: float = EV_HIGH

    def stack(self, low: float, high: float, step: float, name: str) -> tuple[float, ...]:
        """EVs from `low` in steps up to `high`. Raises BadParameter for ends out of order, more than MOST_EXPOSURES, or
        an EV that the pack of that name was not trained on.
        """
        if low > high:
            raise BadParameter(f"ev_low {low:g} is above ev_high {high:g}; give the darkest exposure as ev_low")
        for parameter, ev in (("ev_low", low), ("ev_high", high)):
            if not self.low <= ev <= self.high:
                raise BadParameter(
                    f"{parameter} {ev:g} is outside what {name} was trained on; use {self.low:g} to {self.high:g}"
                )
        count = int((high - low) / step + 1e-6) + 1
        if count > MOST_EXPOSURES:
            raise BadParameter(f"{count} exposures are more than {MOST_EXPOSURES}; use a larger ev_step")
        return tuple(low + step * index for index in range(count))


def ev_name(ev: float) -> str:
    """An EV as it stands in a layer's name: -3 is m3, 1.5 is p1_5."""
    return f"{'m' if ev < 0 else 'p'}{abs(ev):g}".replace(".", "_")
