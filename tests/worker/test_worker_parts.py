"""The worker's parts in this process: shelf, turns, memory, slots, keys, and bodies to frames and back."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hdrgen_server.contracts.descriptor import Descriptor
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.image.exr import read_exr_frame
from hdrgen_server.packs.manifest import Pack
from hdrgen_server.worker.identity import record
from hdrgen_server.worker.memory import MemoryState, is_out_of_memory, memory_state
from hdrgen_server.worker.pixels import colourspace_of, decode, encode, system_space
from hdrgen_server.worker.shelf import Shelf
from hdrgen_server.worker.slots import KEPT, SlotMap
from hdrgen_server.worker.turns import Turns
from nuke_hdrgen.wire import messages as m
from nuke_hdrgen.wire.errors import InvalidMessage

LINEAR = m.Colourspace("lin_rec709_scene", "lin_rec709_scene")
SRGB = m.Colourspace("srgb_rec709_scene", "srgb_rec709_scene", None, "encoded")
REC2020 = m.Colourspace("lin_rec2020_scene", "lin_rec2020_scene")


def pack(name: str = "p") -> Pack:
    descriptor = Descriptor("s", "", ("hdrfuse",), 3)
    return Pack(name, "s", "", hashlib.sha256(name.encode()).hexdigest(), 3, False, "Apache-2.0", Path(), descriptor)


class Room:
    """A device of 100 MiB on which every pack takes 40."""

    def __init__(self) -> None:
        self.time = 0.0
        self.shelf = Shelf("cpu", lambda: self.time, self.state, self.create, lambda: None)
        self.created: list[str] = []

    def create(self, wanted: Pack, device: str) -> object:
        self.created.append(wanted.name)
        return object()

    def state(self) -> MemoryState:
        return MemoryState(100.0 - 40 * len(self.shelf.names), 100.0)

    def use(self, name: str) -> None:
        self.time += 1
        with self.shelf.operator(pack(name)):
            pass


def test_a_pack_is_loaded_once_and_the_least_recently_used_goes_first():
    room = Room()
    for name in "aba":
        room.use(name)
    assert room.created == ["a", "b"]
    assert room.shelf.make_room(50, keep=pack("c")).free_mib == 60
    assert room.shelf.names == ["a"]
    assert room.shelf.make_room(500, keep=pack("a")).free_mib == 60  # never the one that is about to run


def test_packs_in_use_stay_and_idle_ones_go():
    room = Room()
    room.use("idle")
    with room.shelf.operator(pack("busy")):
        room.time += 100
        assert room.shelf.drop_idle(50) == 1
        assert room.shelf.drop() == 0
        assert room.shelf.names == ["busy"]
    assert room.shelf.drop("busy") == 1


def test_turns_go_round_in_order():
    turns, order = Turns(), []

    def work(name: str) -> None:
        turns.take()
        for _ in range(3):
            order.append(name)
            with turns.paused():
                pass
        turns.give_up()

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    turns.take()
    for count, thread in enumerate(threads, start=1):
        thread.start()
        while turns.waiting < count:
            assert thread.is_alive()
    turns.give_up()
    for thread in threads:
        thread.join(10)
    assert "".join(order) == "ababab"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            True,
        ),
        (RuntimeError("size mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_which_errors_say_that_memory_ran_out(error, expected):
    assert is_out_of_memory(error) is expected


def test_a_budget_lowers_what_is_free():
    state = memory_state("cpu")
    assert 0 < state.free_mib <= state.total_mib
    assert memory_state("cpu", 1).total_mib == 1
    assert memory_state("cpu", 1).free_mib == 0


def test_slots_by_name_only(tmp_path):
    slots = SlotMap(tmp_path)
    for number in range(KEPT + 2):
        (tmp_path / f"slot-{number}").write_bytes(bytes(4096))
        slots.view(f"slot-{number}", 4)[:] = b"abcd"
    assert (tmp_path / "slot-0").read_bytes()[:4] == b"abcd"
    (tmp_path / "outside").write_bytes(b"secret")
    for name, length in (("../outside", 1), ("outside", 1), ("slot-99", 1), ("slot-1", 4097), ("slot-1", -1)):
        with pytest.raises(InvalidMessage):
            slots.view(name, length)


def picture(kind: str, shape: tuple[int, ...], space: m.Colourspace = LINEAR) -> m.Frame:
    names = ("R", "G", "B", "A")[: shape[2]]
    return m.Frame(
        id="j", index=0, number=1001, format=kind, shape=shape, channels=names, colourspace=space, ev=2.0
    )  # fmt: skip


@pytest.mark.parametrize(("kind", "dtype"), [("f16", "<f2"), ("f32", "<f4")])
def test_raw_bodies_become_frames_and_bad_samples_are_counted(kind, dtype):
    pixels = np.linspace(0, 4, 2 * 3 * 4, dtype=dtype).reshape(2, 3, 4)
    pixels[0, 0, 0], pixels[1, 1, 1] = np.nan, np.inf
    decoded = decode(picture(kind, (2, 3, 4)), memoryview(pixels.tobytes()), system_space("lin_rec709_scene"))
    frame = decoded.frame
    assert (frame.ev, frame.number, frame.channels) == (2.0, 1001, ("R", "G", "B", "A"))
    assert decoded.counts == {"nan": 1, "inf": 1, "pixels": 2}
    assert np.isfinite(frame.pixels).all()
    np.testing.assert_array_equal(frame.pixels[1, 2], pixels[1, 2].astype("f4"))


def test_linear_frames_are_converted_and_encoded_ones_are_left_to_the_system():
    pixels = np.full((1, 1, 3), (0.0, 1.0, 0.0), dtype="<f4")
    space = system_space("lin_rec709_scene")
    body = memoryview(pixels.tobytes())
    converted = decode(picture("f32", (1, 1, 3), REC2020), body, space).frame
    assert converted.colourspace.interop_id == "lin_rec709_scene"
    assert converted.pixels[0, 0, 0] < -0.5  # Rec.2020 green lies outside Rec.709
    left = decode(picture("f32", (1, 1, 3), SRGB), body, space).frame
    assert left.colourspace.range == "encoded"
    np.testing.assert_array_equal(left.pixels, pixels)


def linear_frame() -> Frame:
    pixels = np.random.default_rng(4).random((5, 7, 3), dtype=np.float32)
    return Frame(pixels, ("R", "G", "B"), colourspace_of(LINEAR), number=7)


def test_results_are_final_files_with_tags_and_record():
    request = m.Open(id="j", operation="hdrfuse", frames=1, output=REC2020, parameters={"a": 1}, seed=5)
    attributes = record(request, pack(), "the key", {"n": "2"}, {"a": 1, "b": "default"})
    data, kind, _ = encode(linear_frame(), request, colourspace_of(REC2020), attributes)
    assert kind == "exr"
    back = read_exr_frame(data)
    assert back.colourspace.interop_id == "lin_rec2020_scene"
    assert back.metadata["hdrgen/key"] == "the key"
    assert [back.metadata[f"hdrgen/parameter/{name}"] for name in "ab"] == ["1", "default"]
    raw, kind, sent = encode(linear_frame(), replace(request, encoding="raw"), colourspace_of(LINEAR), {})
    assert kind == "f32"
    np.testing.assert_array_equal(np.frombuffer(raw, "<f4").reshape(5, 7, 3), sent.pixels)


def test_provenance_says_all_the_digests_or_nothing():
    request = m.Open(id="j", operation="txt2hdr", frames=0, output=LINEAR, parameters={"prompt": "a secret film"})
    full = record(request, pack(), "k", {}, request.parameters)
    assert full["hdrgen/parameter/prompt"] == "a secret film"
    digest = record(replace(request, provenance="digest"), pack(), "k", {}, request.parameters)
    assert set(digest) == {"hdrgen/key", "hdrgen/pack_digest"}
    assert record(replace(request, provenance="none"), pack(), "k", {}, request.parameters) == {}
