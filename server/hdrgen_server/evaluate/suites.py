"""Which test an operation has: its kinds of sample, how they are drawn, and the methods without a pack.

It owns that table. It must not know packs or figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hdrgen_server.evaluate import baselines, protocol, sdr_baselines, sdr_protocol
from hdrgen_server.evaluate.protocol import Draw, Method


@dataclass(frozen=True)
class Suite:
    """The test of one operation; `degradations` are kinds beyond its own: those that training draws from."""

    kinds: tuple[str, ...]
    draw: Draw
    methods: Mapping[str, Method]
    degradations: tuple[str, ...] = ()


SUITES: Mapping[str, Suite] = MappingProxyType(
    {
        "hdrfuse": Suite(tuple(protocol.KINDS), protocol.samples, baselines.METHODS),
        "sdr2hdr": Suite(
            tuple(sdr_protocol.KINDS), sdr_protocol.samples, sdr_baselines.METHODS, sdr_protocol.DEGRADATIONS
        ),
    }
)
