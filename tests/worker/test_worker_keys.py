"""A real sidecar: the key that a client computes beforehand is the result's, in its message and in its header."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hdrgen_server.contracts.frame import Frame
from hdrgen_server.image.exr import encode_exr, read_exr_frame
from hdrgen_server.worker.pixels import colourspace_of
from nuke_hdrgen.client.job import run_job
from nuke_hdrgen.wire import messages as m
from nuke_hdrgen.wire.errors import BadInput, BadParameter, OutOfMemory, UnknownPack
from nuke_hdrgen.wire.identity import input_identity, result_key
from tests.faults.sidecar import Sidecar, sidecar

LINEAR = m.Colourspace("scene", "lin_rec709_scene")
ACESCG = m.Colourspace("ACEScg", "lin_ap1_scene")
PLATE = np.linspace(0, 1, 8 * 16 * 3, dtype="<f4").reshape(8, 16, 3)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with sidecar(tmp_path_factory.mktemp("keys"), memory_budget_mib=1500) as running:
        yield running


def order(operation: str, pack: str, frames: int, **parameters: object) -> m.Open:
    return m.Open("a job", operation, frames, ACESCG, pack, parameters, seed=11, aovs=True)


def exr(index: int, ev: float, light: np.ndarray) -> tuple[m.Frame, bytes]:
    pixels = np.ascontiguousarray(light, dtype=np.float32)
    body = bytes(encode_exr(Frame(pixels, ("R", "G", "B"), colourspace_of(LINEAR)), attributes={"owner": f"{index}"}))
    return m.Frame("a job", index, 1001 + index, "exr", pixels.shape, (), LINEAR, ev), body


def run(server: Sidecar, request: m.Open, frames: list[tuple[m.Frame, bytes]]) -> tuple[m.Welcome, list]:
    with server.connect("keys") as connection:
        results = [(result, bytes(data)) for result, data in run_job(connection, request, iter(frames))]
        return connection.welcome, results


def pack_of(welcome: m.Welcome, name: str) -> m.PackInfo:
    return next(pack for pack in welcome.packs if pack.name == name)


def check(welcome: m.Welcome, request: m.Open, result: m.Result, body: bytes, inputs: list[str], index: int = 0):
    pack = pack_of(welcome, request.pack)
    assert result.key == result_key(request, pack.digest, pack.revision, request.output, inputs, index)
    assert read_exr_frame(body).metadata["hdrgen/key"] == result.key


def test_a_bracket_has_one_key_of_all_its_frames(server):
    frames = [exr(i, ev, np.minimum(PLATE * 2.0**ev, 1)) for i, ev in enumerate((-2.0, 0.0, 2.0))]
    request = order("hdrfuse", "merge", 3, reference=1)
    welcome, ((result, body),) = run(server, request, frames)
    check(welcome, request, result, body, [input_identity(*frame) for frame in frames])
    back = read_exr_frame(body)
    assert {"hdrgen.clipped", "hdrgen.generated"} <= set(back.layers)
    assert back.metadata["hdrgen/parameter/response"] == "srgb"  # a default, filled in by the worker
    other = [(replace(frame, ev=frame.ev * 1.5), data) for frame, data in frames]
    (changed, _) = run(server, request, other)[1][0]
    assert changed.key != result.key


def test_a_shot_has_a_key_for_each_frame_wherever_it_stands(server):
    frames = [exr(i, 0.0, PLATE * (1 + i)) for i in range(3)]
    request = order("sdr2hdr", "bt2446", 3, peak_nits=600.0)
    welcome, results = run(server, request, frames)
    for (result, body), frame in zip(results, frames, strict=True):
        check(welcome, request, result, body, [input_identity(*frame)])
    assert [result.counts["above"] > 0 for result, _ in results] == [False, True, True]
    assert [bool(results[at][0].warnings) for at in (0, 2)] == [False, True]
    alone = order("sdr2hdr", "bt2446", 1, peak_nits=600.0)
    _, ((result, _),) = run(server, alone, [(replace(frames[2][0], index=0, number=5), frames[2][1])])
    assert result.key == results[2][0].key
    assert pack_of(welcome, "bt2446").window == 1


def test_a_chart_comes_without_any_frame(server):
    request = order("txt2hdr", "chart", 0, width=64, height=96, prompt="x")
    welcome, ((result, body),) = run(server, request, [])
    check(welcome, request, result, body, [])
    assert result.shape[:2] == (96, 64)
    assert "ignores the prompt" in result.warnings[0]
    assert read_exr_frame(body).colourspace.interop_id == "lin_ap1_scene"


@pytest.mark.parametrize(
    ("request_", "error", "says"),
    [
        (replace(order("txt2hdr", "", 0), pack="none-s"), UnknownPack, "none-s"),
        (order("txt2hdr", "chart", 0, width=9000), BadParameter, "64 to 8192 pixels"),
        (order("txt2hdr", "chart", 0, width=8192, height=8192), OutOfMemory, "use a smaller"),
        (order("txt2hdr", "chart", 2), BadInput, "0 to 1 frames"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is_allocated(server, request_, error, says):
    with pytest.raises(error, match=says):
        run(server, request_, [])
