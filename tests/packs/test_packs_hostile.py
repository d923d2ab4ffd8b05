"""Checkpoints written to do harm: what they build stays plain, bounded and theirs, and every refusal is one line."""

from __future__ import annotations

import io
import pickle
import signal
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hdrgen_server.packs import pickled
from hdrgen_server.packs.pickled import read_checkpoint
from nuke_hdrgen.wire.errors import BadInput, HDRGenError, TooLarge

FOUR = struct.pack("<4f", 1, 2, 3, 4)
TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI%d\ntQI0\n(I%d\nt(I0\nt"
    b"I00\nccollections\nOrderedDict\n(tRtR"
)


def packed(path: Path, stream: bytes, parts: dict[str, bytes] | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", stream)
        for name, data in (parts or {}).items():
            archive.writestr(f"archive/data/{name}", data)
    return path


@pytest.mark.parametrize(
    "stream",
    [
        b"ctorch._utils\n_rebuild_parameter\n}X\x01\x00\x00\x00aK\x01sb.",
        b"ctorch._utils\n_rebuild_parameter\nN}X\x0c\x00\x00\x00__defaults__)s\x86b.",
        b"ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aK\x01sb.",
        b"ccollections\nOrderedDict\n}X\x05\x00\x00\x00itemsK\x01sb.",
    ],
    ids=["attribute", "defaults", "method", "class"],
)
def test_a_pickle_cannot_change_what_reads_it(tmp_path: Path, stream: bytes) -> None:
    with pytest.raises(BadInput, match="damaged"):
        read_checkpoint(packed(tmp_path / "x.pkl", b"\x80\x02" + stream))
    assert not vars(pickled._parameter)
    assert pickled._parameter.__defaults__ is None
    assert not vars(pickled._TensorUnpickler._tensor)


def test_a_pickle_cannot_hide_a_method_of_its_dictionary(tmp_path: Path) -> None:
    named = b"\x80\x02ccollections\nOrderedDict\n)RX\x01\x00\x00\x00aK\x01s"
    found = read_checkpoint(packed(tmp_path / "x.pth", named + b"}X\x05\x00\x00\x00itemsK\x07sb."))
    assert isinstance(found, dict)
    assert dict(found.items()) == {"a": 1}


def test_tensors_that_share_a_part_do_not_unfold_without_bound(tmp_path: Path) -> None:
    elements = 1 << 18
    parts = {"0": bytes(4 * elements)}
    few, many = (b"(" + (TENSOR % (elements, elements)) * count + b"l." for count in (3, 100))
    assert [x.shape for x in read_checkpoint(packed(tmp_path / "few.pth", few, parts))] == [(elements,)] * 3
    with pytest.raises(BadInput, match=r"many\.pth: its tensors unfold to over 4 times its size"):
        read_checkpoint(packed(tmp_path / "many.pth", many, parts))


def test_a_long_pickle_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(TooLarge, match="its pickle is over 16 MiB"):
        read_checkpoint(packed(tmp_path / "long.pth", b"\x80\x02(" + b"]" * (17 << 20) + b"l."))


def test_time_is_bounded(tmp_path: Path) -> None:
    """A tuple of itself, doubled forty times, as a key: its hash takes hours, and no Python code gets a turn."""
    path = packed(tmp_path / "key.pth", b"\x80\x02}N" + b"2\x86" * 40 + b"K\x01s.")
    program = (
        "import sys, time\nsys.path[:0] = sys.argv[2:]\nfrom pathlib import Path\n"
        "from hdrgen_server.packs.confine import confine\n"
        "from hdrgen_server.packs.pickled import read_checkpoint\n"
        "confine(256 << 20, 1 << 20, int(time.process_time()) + 1)\nread_checkpoint(Path(sys.argv[1]))"
    )
    server = Path(pickled.__file__).parents[2]
    command = [sys.executable, "-I", "-c", program, str(path), str(server), str(server.parent)]
    ended = subprocess.run(command, check=False, timeout=240)
    assert ended.returncode in {-signal.SIGXCPU, -signal.SIGKILL}


def test_names_in_the_archive_reach_no_file(tmp_path: Path) -> None:
    for root in ("..", "/tmp", "a/../..", "a\\..\\.."):
        path = tmp_path / "x.pth"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{root}/data.pkl", TENSOR % (4, 4) + b".")
            archive.writestr(f"{root}/data/0", FOUR)
        before = sorted(tmp_path.parent.rglob("*"))
        try:
            assert read_checkpoint(path).tolist() == [1, 1, 1, 1]
        except BadInput as error:
            assert "x.pth" in error.message  # noqa: PT017 - where zipfile reads the name otherwise, it is refused
        assert sorted(tmp_path.parent.rglob("*")) == before


VALUES = {"a": [1, 2.5, None, (True, "b")], "n": -(1 << 70), 3: b"bytes", "s": {"t": ()}}
STREAMS = [pickle.dumps(VALUES, protocol) for protocol in range(6)]


@pytest.mark.parametrize("protocol", range(6))
def test_plain_containers_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    path = packed(tmp_path / "x.pth", STREAMS[protocol])
    if protocol in {3, 4, 5}:
        assert read_checkpoint(path) == VALUES
    else:
        with pytest.raises(BadInput, match=r"names _codecs\.encode"):  # how they write bytes
            read_checkpoint(path)


def tensors() -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(2, 3), "b": torch.nn.Parameter(torch.ones(1))}, buffer)
    return zipfile.ZipFile(buffer).read("archive/data.pkl")


@given(
    stream=st.sampled_from([*STREAMS, tensors()]),
    edits=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255), st.sampled_from("=+-")), min_size=1, max_size=6),
)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
def test_a_mutated_pickle_is_plain_or_refused_in_one_line(
    tmp_path: Path, stream: bytes, edits: list[tuple[int, int, str]]
) -> None:
    """Bytes changed, put in or taken out anywhere: plain values come back, or one line that names the file."""
    mutated = bytearray(stream)
    for at, value, kind in edits:
        place = at % max(1, len(mutated))
        mutated[place : place + (kind != "+")] = b"" if kind == "-" else bytes([value])
    path = packed(tmp_path / "mutated.pth", bytes(mutated), {"0": bytes(24), "1": bytes(4)})
    try:
        found = read_checkpoint(path)
    except HDRGenError as error:
        said = error.message
        assert "mutated.pth" in said and "\n" not in said  # noqa: PT018 - it may be whole by luck
    else:
        plain = (dict, list, tuple, set, frozenset, str, bytes, bytearray, int, float, type(None), np.ndarray, type)
        assert isinstance(found, plain)
