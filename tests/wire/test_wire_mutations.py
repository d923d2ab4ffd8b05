"""Garbage in, a message or a ProtocolError out: nothing else, whatever the bytes."""

from __future__ import annotations

import json
import struct
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wire_samples import ALL_TYPES, SAMPLES, wire_bytes

from nuke_hdrgen.wire.codec import encode
from nuke_hdrgen.wire.errors import ProtocolError
from nuke_hdrgen.wire.limits import Limits
from nuke_hdrgen.wire.stream import Receiver

QUIET = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
SMALL = Limits(frame_bytes=4096)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def receive(data: bytes) -> None:
    """Feed bytes; what comes out can be encoded again and shown, or it was a ProtocolError."""
    receiver = Receiver(SMALL, types=ALL_TYPES)
    at = 0
    with suppress(ProtocolError):
        while at < len(data):
            view = receiver.wanted()
            part = data[at : at + len(view)]
            view[: len(part)] = part
            at += len(part)
            received = receiver.advance(len(part))
            if received is not None:
                assert len(str(received.message)) <= 400
                encode(received.message, received.body.nbytes)
        receiver.finish()


@QUIET
@given(st.binary(max_size=200))
def test_noise(data: bytes) -> None:
    receive(data)
    receive(b"HDRG\x01\x00" + data)


@QUIET
@given(st.sampled_from(SAMPLES), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6))
def test_changed_bytes(sample: tuple, changes: list) -> None:
    data = bytearray(wire_bytes(*sample))
    for position, value in changes:
        data[position % len(data)] = value
    receive(bytes(data))


@QUIET
@given(st.sampled_from(SAMPLES), st.text(max_size=12), VALUES, st.data())
def test_changed_fields(sample: tuple, name: str, value: object, data: st.DataObject) -> None:
    message, body = sample
    raw = encode(message, len(body))
    header = json.loads(raw[20:])
    key = data.draw(st.sampled_from([*header, name]))
    header[key] = value
    text = json.dumps(header).encode()
    receive(struct.pack("<4sBBHIQ", b"HDRG", 1, 0, message.TYPE, len(text), len(body)) + text + body)


@pytest.mark.full
@settings(max_examples=20000, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 65535), st.binary(max_size=300), st.integers(0, 2**16))
def test_any_type_and_header_at_length(kind: int, header: bytes, body: int) -> None:
    receive(struct.pack("<4sBBHIQ", b"HDRG", 1, 0, kind, len(header), body) + header)
