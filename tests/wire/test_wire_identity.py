"""The key that client and worker compute alike: what changes it, and what never does."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdrgen_server.contracts.frame import Box, Frame
from hdrgen_server.image.exr import encode_exr
from hdrgen_server.worker.pixels import colourspace_of
from nuke_hdrgen.wire import messages as m
from nuke_hdrgen.wire.codec import PREFIX_BYTES, encode, parse_header, parse_prefix
from nuke_hdrgen.wire.errors import BadInput
from nuke_hdrgen.wire.identity import exr_chunks_at, input_hash, input_identity, result_key

LINEAR = m.Colourspace("lin_rec709_scene", "lin_rec709_scene")
OWN = m.Colourspace("camera", chromaticities=(0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329))
RAW = m.Frame("j", 0, 1001, "f32", (1, 2, 3), ("R", "G", "B"), LINEAR, -2.0)
EXR = replace(RAW, format="exr", shape=(5, 7, 3), channels=())
OPEN = m.Open("j", "hdrfuse", 1, LINEAR, "merge", {"a": 0.5, "b": True}, 5)
PIXELS = np.random.default_rng(4).random((5, 7, 3), dtype=np.float32)
MULTI_PART = 0x1000
NAMES = st.text("abcdefgh/ABC", min_size=1, max_size=30)


def exr(window: Box | None = None, **attributes: str) -> bytes:
    display = Box.of_size(9, 9)
    frame = Frame(PIXELS, ("R", "G", "B"), colourspace_of(LINEAR), data_window=window, display_window=display)
    return bytes(encode_exr(frame, attributes=attributes))


def laid_out(headers: list[dict[str, tuple[str, bytes]]], chunks: bytes, version: int = 2) -> bytes:
    """An EXR's bytes from its attributes: headers, an offset table of one entry, chunks."""
    data = struct.pack("<II", 20000630, version)
    for header in headers:
        for name, (kind, value) in header.items():
            data += name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<I", len(value)) + value
        data += b"\0"
    data += b"\0" if version & MULTI_PART else b""
    return data + struct.pack("<Q", len(data) + 8) + chunks


def windows(*box: int) -> dict[str, tuple[str, bytes]]:
    value = struct.pack("<4i", *box)
    return {"dataWindow": ("box2i", value), "displayWindow": ("box2i", value)}


@given(st.dictionaries(NAMES, st.binary(max_size=40), max_size=6), st.binary(min_size=1, max_size=60), st.data())
@settings(max_examples=150, deadline=None)
def test_no_header_changes_the_hash_and_every_chunk_byte_does(header, chunks, data):
    attributes = {name: ("string", value) for name, value in header.items()}
    for version, count in ((2, 1), (2 | MULTI_PART, 2)):
        plain = laid_out([windows(0, 0, 6, 4)] * count, chunks, version)
        dressed = laid_out([{**attributes, **windows(0, 0, 6, 4)}] * count, chunks, version)
        assert input_hash(EXR, plain) == input_hash(EXR, memoryview(dressed))
        assert input_identity(EXR, plain) == input_identity(EXR, dressed)
        at = data.draw(st.integers(exr_chunks_at(plain), len(plain) - 1))
        changed = bytearray(plain)
        changed[at] ^= data.draw(st.integers(1, 255))
        assert input_hash(EXR, changed) != input_hash(EXR, plain)
        assert input_identity(EXR, changed) != input_identity(EXR, plain)


def test_an_exr_is_its_chunks_and_windows_whoever_wrote_it():
    one, two = exr(owner="a"), exr(owner="somebody else", comment="x" * 99)
    assert one != two
    assert input_hash(EXR, one) == input_hash(EXR, two)
    assert input_identity(EXR, one) == input_identity(EXR, two)
    moved = exr(Box(2, 0, 8, 4))
    assert input_hash(EXR, moved) == input_hash(EXR, one)
    assert input_identity(EXR, moved) != input_identity(EXR, one)


@pytest.mark.parametrize("multi_part", [False, True])
def test_an_exr_cut_in_its_header_is_refused(multi_part):
    whole = laid_out([windows(0, 0, 6, 4)] * (1 + multi_part), b"chunks", 2 | MULTI_PART * multi_part)
    for length in range(exr_chunks_at(whole)):
        with pytest.raises(BadInput, match=r"export the frame again|no EXR"):
            input_identity(EXR, whole[:length])
    with pytest.raises(BadInput, match="no EXR"):
        input_hash(EXR, b"GIF89a..")
    beyond = whole[:-14] + struct.pack("<Q", 10**6) + b"chunks"
    with pytest.raises(BadInput, match="offset table"):
        exr_chunks_at(beyond)


@pytest.mark.parametrize(
    "changes",
    [
        {"ev": 1.0},
        {"colourspace": replace(LINEAR, interop_id="lin_ap1_scene")},
        {"colourspace": OWN},
        {"colourspace": replace(LINEAR, range="encoded")},
        {"format": "f16"},
        {"shape": (2, 1, 3)},
        {"channels": ("B", "G", "R")},
    ],
    ids=str,
)
def test_the_same_bytes_with_another_meaning_are_another_input(changes):
    body = bytes(range(24))
    assert input_hash(replace(RAW, **changes), body) == input_hash(RAW, body)
    assert input_identity(replace(RAW, **changes), body) != input_identity(RAW, body)


def test_names_numbers_and_forms_of_a_number_are_no_part_of_an_input():
    body = memoryview(bytes(24))
    other = replace(RAW, id="k", index=3, number=7, colourspace=replace(LINEAR, name="as the script says"))
    assert input_identity(other, body) == input_identity(RAW, body)
    assert input_identity(replace(RAW, ev=-2), body) == input_identity(RAW, body)
    assert input_identity(replace(RAW, ev=-0.0), body) == input_identity(replace(RAW, ev=0.0), body)
    whole = replace(OWN, chromaticities=(1, 0, 0, 1, 0, -0.0, 0.25, 0.25))
    real = replace(OWN, chromaticities=(1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.25, 0.25))
    assert input_identity(replace(RAW, colourspace=whole), body) == input_identity(replace(RAW, colourspace=real), body)


def key(request: m.Open = OPEN, digest="d", revision=3, output=LINEAR, inputs=("h",), index=0) -> str:
    return result_key(request, digest, revision, output, list(inputs), index)


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": "e"},
        {"revision": 4},
        {"output": OWN},
        {"output": replace(LINEAR, interop_id="lin_ap1_scene")},
        {"inputs": ("i",)},
        {"inputs": ("h", "h")},
        {"inputs": ()},
        {"index": 1},
        {"request": replace(OPEN, seed=6)},
        {"request": replace(OPEN, quality="final")},
        {"request": replace(OPEN, operation="sdr2hdr")},
        {"request": replace(OPEN, aovs=True)},
        {"request": replace(OPEN, parameters={"a": 0.5})},
        {"request": replace(OPEN, parameters={"a": 0.25, "b": True})},
    ],
    ids=str,
)
def test_the_key_changes_with_all_that_decides_pixels(changes):
    assert key(**changes) != key()


def test_the_key_does_not_know_who_asked_nor_how_the_file_is_packed():
    assert key() == key(replace(OPEN, id="k", pack=None, compression="piz", provenance="none", attributes={"a": 1}))
    assert key() == key(replace(OPEN, parameters={"b": True, "a": 0.5}))
    assert key(output=replace(LINEAR, name="scene")) == key()
    assert key(inputs=("a", "b")) != key(inputs=("b", "a"))


def test_a_request_and_a_frame_keep_their_key_over_the_wire():
    request = replace(OPEN, parameters={"float": 1e-7, "whole": 3, "prompt": "a ☃", "flag": False, "tenth": 0.1})
    body = bytes(range(24))
    frame = replace(RAW, ev=1 / 3, colourspace=replace(OWN, range="encoded"))
    for message, length in ((request, 0), (frame, len(body))):
        data = encode(message, length)
        back = parse_header(parse_prefix(data[:PREFIX_BYTES]), data[PREFIX_BYTES:])
        if isinstance(back, m.Open):
            assert key(back) == key(request)
        else:
            assert input_identity(back, body) == input_identity(frame, body)


def test_the_form_of_the_key_stays():
    """A changed form would make every bake of a shot stale."""
    assert input_identity(RAW, bytes(24)) == "e153877286a9d510c9551f7c57147ef902efc8d938f2321d8b47f79fdba671e5"
    assert key() == "cdd43262a62f15285801f38e09c33333ed0fc7725b78760ea28cf080346a5f5b"
