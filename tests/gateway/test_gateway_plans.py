"""The gateway's pure parts: queue, supervision, admission, devices, deadlines of files and folders."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
from pathlib import Path

import pytest

from hdrgen_server.contracts.descriptor import Descriptor, Memory, Parameter, Sizes
from hdrgen_server.gateway.__main__ import devices
from hdrgen_server.gateway.admission import check_frame, check_memory, needed_mib, with_site_provenance
from hdrgen_server.gateway.listen import Peer, check_peer
from hdrgen_server.gateway.logs import JsonLines
from hdrgen_server.gateway.metrics import FILE_NAME, Metrics
from hdrgen_server.gateway.queue import FairQueue
from hdrgen_server.gateway.runtime import (
    ServerLock,
    default_runtime_folder,
    private_folder,
    remove_endpoint,
    write_endpoint,
)
from hdrgen_server.gateway.slots import SlotPool, rounded, slots_folder
from hdrgen_server.gateway.supervision import (
    LAST_RUNG,
    Attempt,
    Need,
    backoff_s,
    exit_text,
    final_error,
    next_attempt,
    silence_limit_s,
)
from hdrgen_server.packs.manifest import Pack
from nuke_hdrgen.wire import messages as m
from nuke_hdrgen.wire.errors import (
    AlreadyRunning,
    BadInput,
    BadParameter,
    Busy,
    InvalidMessage,
    OutOfMemory,
    PermissionRefused,
    WorkerDied,
    WorkerHung,
)

SPACE = m.Colourspace("lin_rec709_scene", "lin_rec709_scene")


def anything(_: object) -> bool:
    return True


def filled(limit: int = 10) -> FairQueue[str]:
    queue: FairQueue[str] = FairQueue(limit)
    for item in ("a1", "a2", "a3", "b1", "c1", "c2"):
        queue.put(item[0], item)
    return queue


def test_sessions_take_turns_and_each_keeps_its_order():
    queue = filled()
    order = list(queue.in_order())
    assert [queue.take(anything) for _ in range(7)] == [*order, None]
    assert order == ["a1", "b1", "c1", "a2", "c2", "a3"]
    assert len(queue) == 0


def test_a_late_session_does_not_wait_for_an_early_ones_backlog():
    queue = filled()
    assert queue.take(anything) == "a1"
    queue.put("d", "d1")
    assert queue.position("d1") < queue.position("a3")


def test_positions_are_the_order_of_starting():
    queue = filled()
    places = {item: queue.position(item) for item in list(queue.in_order())}
    for expected in range(6):
        assert places[queue.take(anything)] == expected
    assert queue.position("a1") == -1


def test_what_is_not_ready_keeps_its_place():
    queue = filled()
    assert queue.take(lambda item: item == "c2") == "c2"
    assert queue.take(anything) == "a1"


def test_a_full_queue_says_when_to_come_back_and_a_retry_ignores_the_limit():
    queue = filled(6)
    with pytest.raises(Busy) as caught:
        queue.put("z", "z1", 7.5)
    assert caught.value.details == {"retry_after_s": 7.5}
    queue.put_back("z", "z0")
    assert queue.take(anything) == "z0"


def test_removing():
    queue = filled()
    assert queue.remove("b1")
    assert not queue.remove("b1")
    assert "b1" not in list(queue.in_order())


def test_pauses_double_to_a_minute():
    assert [backoff_s(n) for n in range(9)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]


def test_loading_may_be_silent_longer():
    assert silence_limit_s("step", 30, 600) == 30
    assert {silence_limit_s(p, 30, 600) for p in ("starting", "loading", "compiling")} == {600}


@pytest.mark.parametrize("fault", ["died", "hung"])
def test_a_lost_worker_is_risked_once_one_rung_lower(fault):
    second = next_attempt(Attempt(), fault)
    assert second == Attempt(1, 1)
    assert next_attempt(second, fault) is None
    assert next_attempt(Attempt(LAST_RUNG), fault) == Attempt(LAST_RUNG, 1)


def test_memory_goes_down_to_the_last_rung():
    attempt, rungs = Attempt(), []
    while attempt is not None:
        rungs.append(attempt.rung)
        attempt = next_attempt(attempt, "memory")
    assert rungs == [0, 1, 2, 3]


@pytest.mark.parametrize(("fault", "kind"), [("died", WorkerDied), ("hung", WorkerHung), ("memory", OutOfMemory)])
def test_final_errors_name_needed_and_free(fault, kind):
    error = final_error(fault, "gmodiff-s", Need(900.4, 100.2), exit_text(-9))
    assert type(error) is kind
    assert error.details == {"needed_mib": 900.4, "free_mib": 100.2}
    assert "900 MiB needed, 100 MiB were free" in error.message
    assert "\n" not in error.message
    assert "MiB" not in final_error(fault, "x", Need()).message


def test_ends_in_words():
    assert "memory" in exit_text(-9)
    assert exit_text(-6) == "signal 6"
    assert exit_text(7) == "exit status 7"


def test_devices():
    assert devices("cuda:0, cuda:1,cuda:0") == ("cuda:0", "cuda:1")
    assert devices("auto") in {("cpu",), ("cuda",)}
    with pytest.raises(BadParameter, match="mps"):
        devices("mps")


def pack(**fields: object) -> Pack:
    descriptor = Descriptor("s", "", ("hdrfuse",), 1, **fields)  # type: ignore[arg-type]
    return Pack("p", "s", "", "0" * 64, 1, False, "Apache-2.0", Path(), descriptor)


def picture(index: int = 0, shape: tuple[int, ...] = (100, 200, 3)) -> m.Frame:
    return m.Frame(
        id="j", index=index, number=1, format="f32" if shape else "exr", shape=shape,
        channels=("R", "G", "B")[: len(shape)], colourspace=SPACE,
    )  # fmt: skip


def request(frames: int) -> m.Open:
    return m.Open(id="j", operation="hdrfuse", frames=frames, output=SPACE)


def test_frames_out_of_order_too_many_or_of_a_wrong_size():
    check_frame(picture(), 0, request(1), pack())
    check_frame(picture(shape=()), 0, request(1), pack())
    with pytest.raises(InvalidMessage, match="where 0 was due"):
        check_frame(picture(1), 0, request(3), pack())
    with pytest.raises(InvalidMessage, match="sent more"):
        check_frame(picture(1), 1, request(1), pack())
    with pytest.raises(BadInput, match="16 to 150 pixels a side, got 200 x 100"):
        check_frame(picture(), 0, request(1), pack(sizes=Sizes(16, 150)))


def test_memory_counts_the_frames_that_are_held():
    memory = Memory(10, 100)
    assert needed_mib(picture(), request(5), pack(memory=memory)) == pytest.approx(10 + 100 * 0.02)
    bracket = pack(memory=memory, frames_minimum=2, frames_maximum=7)
    assert needed_mib(picture(), request(5), bracket) == pytest.approx(10 + 100 * 0.02 * 5)
    given = (Parameter("window", "int", 9, ""), Parameter("overlap", "int", 1, ""))
    window = pack(memory=memory, frames_maximum=None, window=9, parameters=given)
    assert needed_mib(picture(), request(50), window) == pytest.approx(10 + 100 * 0.02 * 10)  # one more waits
    assert needed_mib(picture(), request(5), window) == pytest.approx(10 + 100 * 0.02 * 5)
    assert needed_mib(picture(shape=()), request(5), bracket) == 0
    check_memory(100, None, bracket)
    with pytest.raises(OutOfMemory) as caught:
        check_memory(100, 99, bracket)
    assert caught.value.details == {"needed_mib": 100, "free_mib": 99}


def test_peers():
    check_peer(Peer(1, os.getuid(), 0))
    check_peer(Peer(1, 12345, 0), frozenset({12345}))
    with pytest.raises(PermissionRefused):
        check_peer(Peer(1, 12345, 0))


def test_runtime_folder_is_made_private_and_strange_ones_are_refused(tmp_path):
    folder = private_folder(tmp_path / "a" / "b")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    file, link = tmp_path / "file", tmp_path / "link"
    file.touch()
    link.symlink_to(folder)
    for strange in (file, link):
        with pytest.raises(PermissionRefused):
            private_folder(strange)
    assert default_runtime_folder({"XDG_RUNTIME_DIR": "/run/user/7"}) == Path("/run/user/7/hdrgen")
    assert default_runtime_folder({}).name == f"hdrgen-{os.getuid()}"


def test_one_lock_a_folder_and_an_endpoint_of_ones_own(tmp_path):
    lock = ServerLock.take(tmp_path)
    with pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}"):
        ServerLock.take(tmp_path)
    lock.release()
    ServerLock.take(tmp_path).release()
    path = write_endpoint(tmp_path, {"pid": os.getpid()})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    remove_endpoint(tmp_path)
    assert not path.exists()
    write_endpoint(tmp_path, {"pid": 1})
    remove_endpoint(tmp_path)
    assert path.exists()


@pytest.mark.parametrize("length", [1, 1 << 20, (1 << 20) + 1, 132_710_400, 1 << 30])
def test_slots_are_rounded_up_by_little(length):
    assert length <= rounded(length) <= max(length + (1 << 20), length * 1.13)


def test_slots_are_used_again_and_given_back(tmp_path):
    async def go() -> None:
        pool = SlotPool(slots_folder(tmp_path), keep_bytes=4 << 20)
        first = await pool.acquire(3_000_000)
        first.body[:4] = b"abcd"
        assert first.path.read_bytes()[:4] == b"abcd"
        assert stat.S_IMODE(first.path.stat().st_mode) == 0o600
        pool.release(first)
        again = await pool.acquire(2_900_000)
        assert again is first
        assert len(again.body) == 2_900_000
        other = await pool.acquire(3_000_000)
        assert pool.held == 2
        pool.release(again, 1.0)
        pool.release(other, 2.0)
        assert not first.path.exists()  # over keep_bytes: the older one goes
        pool.trim(3.0)
        assert not other.path.exists()
        assert pool.held_bytes == 0
        pool.close()
        assert not pool.folder.exists()

    asyncio.run(go())


def test_waiting_for_room_ends_when_a_slot_comes_back_or_time_is_up(tmp_path):
    async def go() -> None:
        pool = SlotPool(slots_folder(tmp_path))
        slot = await pool.acquire(1)
        waiting = asyncio.ensure_future(pool.wait_for(lambda: pool.held == 0, 30))
        await asyncio.sleep(0)
        pool.release(slot)
        assert await waiting
        assert not await pool.wait_for(lambda: False, 0.001)
        pool.close()

    asyncio.run(go())


def test_slot_folders_of_dead_processes_are_removed(tmp_path):
    dead = tmp_path / f"hdrgen-slots-{os.getuid()}-999999999-x"
    dead.mkdir()
    folder = slots_folder(tmp_path)
    assert not dead.exists()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.rmdir()


def test_metrics_as_numbers_and_as_a_file(tmp_path):
    metrics = Metrics()
    metrics.add("bytes_in", 12)
    metrics.job_ended("done", 2.0)
    metrics.job_ended("busy", 0.0)
    for number in range(20):
        metrics.note_error(WorkerDied(f"{number}"), float(number))
    assert metrics.counters({"queue_depth": 3.0}) == {
        "bytes_in": 12.0, "jobs_busy": 1.0, "jobs_done": 1.0, "queue_depth": 3.0,
    }  # fmt: skip
    recent = metrics.recent_errors(20.0)
    assert len(recent) == 16
    assert (recent[-1].message, recent[-1].ago_s) == ("19", 1.0)
    metrics.write_file(tmp_path, {"queue_depth": 3.0})
    text = (tmp_path / FILE_NAME).read_text()
    assert 'hdrgen_jobs_total{outcome="done"} 1.0' in text
    assert "hdrgen_queue_depth 3.0" in text
    assert "hdrgen_job_seconds_sum 2.0" in text


def test_logs_are_json_lines_without_tokens():
    record = logging.makeLogRecord(
        {"name": "hdrgen_server.gateway", "msg": "x %d", "args": (1,), "token": "t0p", "job": "j1"}
    )
    line = JsonLines().format(record)
    assert "t0p" not in line
    assert json.loads(line)["what"] == "x 1"
    assert json.loads(line)["job"] == "j1"


@pytest.mark.parametrize(
    ("asked", "site", "kept"),
    [("full", "full", "full"), ("full", "digest", "digest"), ("none", "digest", "none"), ("digest", "full", "digest")],
)
def test_a_site_may_keep_provenance_out_of_results(asked: str, site: str, kept: str) -> None:
    request = m.Open("j", "hdrfuse", 2, m.Colourspace("x", "lin_rec709_scene"), provenance=asked)
    assert with_site_provenance(request, site).provenance == kept
