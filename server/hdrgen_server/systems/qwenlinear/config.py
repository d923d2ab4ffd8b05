"""The configurations of Qwen-Image in linear light, as data. It must not know torch or diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hdrgen_server.systems.qwenlog.config import CONFIGS as LOG_CONFIGS
from hdrgen_server.systems.qwenlog.config import QwenConfig, widened

LATENT_CHANNELS = 32
"""The base's 16 and as many again, which are to carry what a tone-mapped picture has not."""
HEADS = 2
PICTURE_CHANNELS = 3 * HEADS
"""The tone-mapped picture's channels, then those of normalised light."""


@dataclass(frozen=True)
class LinearConfig:
    """A whole system, and what it is widened from. `knee` is where the normalisation of light bends from a straight
    line to a logarithm, in scene-linear, before it learns; 0 keeps it straight, as the document has it.
    """

    qwen: QwenConfig
    base: QwenConfig
    knee: float


def _of(name: str, knee: float) -> LinearConfig:
    base = LOG_CONFIGS[name]
    return LinearConfig(widened(base, LATENT_CHANNELS, PICTURE_CHANNELS), base, knee)


CONFIGS: Mapping[str, LinearConfig] = MappingProxyType({
    "published": _of("published", 0.0),
    # A decoder of a million parameters has no eight digits for a straight line from shadows to suns.
    "s": _of("s", 0.05),
})  # fmt: skip
