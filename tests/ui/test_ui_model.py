"""The panel's words: every state, row and report, from messages alone, with no Qt anywhere."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ui_cases import ADDRESS, ERRORS, GPU, HEALTH, WELCOME, rows

from nuke_hdrgen.ui import model
from nuke_hdrgen.ui.model import Seen, view
from nuke_hdrgen.wire import messages as m
from nuke_hdrgen.wire.errors import (
    BadParameter,
    Busy,
    HDRGenError,
    NoServer,
    PermissionRefused,
    Refused,
    ServerTimeout,
    VersionMismatch,
)

ROOT = Path(__file__).parents[2]
LOOK = Seen(WELCOME, HEALTH, ADDRESS)
STEP = m.JobInfo("hdrfuse", "small", "step", 1, 0, 8, 30)


def with_health(**changes: object) -> Seen:
    return replace(LOOK, health=replace(HEALTH, **changes))


def test_before_the_first_look_nothing_is_offered() -> None:
    shown = view(Seen())
    assert (shown.state, shown.can_start, shown.can_free, shown.sections) == (model.LOOKING, False, False, ())


def test_no_sidecar_says_so_in_one_sentence_and_offers_a_start() -> None:
    shown = view(Seen(error=NoServer("no sidecar is running; start one with `hdrgen serve`")))
    assert shown.state == model.ABSENT
    assert shown.sentence == "No sidecar is running; start one with `hdrgen serve`."
    assert shown.can_start
    assert not view(Seen(error=NoServer("gone"), named=True)).can_start


@pytest.mark.parametrize(
    ("error", "title"),
    [
        (VersionMismatch("wire 2.0 is not 1.0"), "Another version"),
        (PermissionRefused("wrong token"), "Not allowed"),
        (Refused("no"), "Refused"),
        (ServerTimeout("silent"), "Not answering"),
        (Busy("ending"), "Not taking connections"),
        (BadParameter("bad address"), "Something is wrong"),
        (HDRGenError("of a newer peer"), "Something is wrong"),
    ],
)
def test_other_errors_keep_their_own_sentence_and_offer_no_start(error: HDRGenError, title: str) -> None:
    shown = view(Seen(error=error))
    assert (shown.state, shown.title, shown.can_start) == (model.REFUSED, title, False)
    assert shown.sentence.lower() == f"{error.message}."


def test_a_failed_start_can_be_tried_again_whatever_it_failed_of() -> None:
    assert view(Seen(error=PermissionRefused("not yours alone"), unstarted=True)).can_start


def test_ready_names_devices_and_busy_counts_jobs() -> None:
    ready = view(LOOK)
    assert (ready.state, ready.sentence) == (model.READY, "Frames are baked on cuda:0.")
    queued = m.JobInfo("hdrfuse", "small", "queued", 2, position=1)
    two = (GPU, replace(GPU, device="cuda:1"))
    busy = view(with_health(jobs=(STEP, queued), queue=m.QueueInfo(1, 64), workers=two))
    assert (busy.state, busy.sentence) == (model.BUSY, "2 jobs on cuda:0 and cuda:1: 1 running and 1 waiting.")
    one = view(with_health(jobs=(STEP,)))
    assert one.sentence == "1 job on cuda:0: 1 running."


def test_a_sidecar_that_tells_no_jobs_is_busy_by_its_queue() -> None:
    shown = view(with_health(queue=m.QueueInfo(3, 64)))
    assert (shown.state, shown.sentence) == (model.BUSY, "3 jobs on cuda:0: 3 waiting.")
    assert shown.sections[0].title == "Queue: 3 of 64 waiting"


def test_live_without_a_ready_worker_says_what_each_does() -> None:
    workers = (replace(GPU, state="starting"), replace(GPU, device="cuda:1", state="waiting"))
    shown = view(with_health(ready=False, workers=workers))
    assert shown.state == model.WAITING
    assert shown.sentence.endswith("cuda:0 is starting and cuda:1 is restarting.")
    assert view(with_health(ready=False, workers=())).sentence == "The sidecar has no worker."


@pytest.mark.parametrize(
    ("job", "bar", "text"),
    [
        (STEP, 8 / 30, "8 of 30 steps"),
        (replace(STEP, frames=4, sent=1, done=15), 1.5 / 4, "15 of 30 steps · 1 of 4 frames back"),
        (replace(STEP, frames=4, sent=4, done=30), 1.0, "30 of 30 steps · 4 of 4 frames back"),
        (replace(STEP, phase="loading", done=0, total=0), None, ""),
        (replace(STEP, done=31), 1.0, "31 of 30 steps"),
    ],
)
def test_a_jobs_bar_and_its_text(job: m.JobInfo, bar: float | None, text: str) -> None:
    (row,) = rows(view(with_health(jobs=(job,))), "Queue")
    assert (row.title, row.mark) == ("hdrfuse with small", job.phase)
    assert (row.bar, row.bar_text) == (bar, text)


def test_a_waiting_job_has_its_place_and_no_bar() -> None:
    queued = m.JobInfo("hdrfuse", "small", "queued", 2, position=1)
    first, second = rows(view(with_health(jobs=(replace(queued, position=0), queued))), "Queue")
    assert (first.bar, first.mark, first.detail) == (None, "queued", "next to start")
    assert second.detail == "1 job before it"


def test_device_memory_and_what_holds_it() -> None:
    (gpu,) = rows(view(LOOK), "Devices")
    assert (gpu.mark, gpu.detail, gpu.bar, gpu.bar_text) == ("ready", "holds small", 0.25, "18.0 of 24.0 GiB free")
    assert view(LOOK).can_free
    idle = m.WorkerInfo("cpu", "something new", (), 100.0, 900.0)
    shown = view(with_health(workers=(idle,)))
    (cpu,) = rows(shown, "Devices")
    assert (cpu.mark, cpu.detail, cpu.bar_text) == ("something new", "holds no pack", "100 of 900 MiB free")
    assert not shown.can_free
    (unknown,) = rows(view(with_health(workers=(replace(idle, memory_total_mib=0.0),))), "Devices")
    assert unknown.bar is None


def test_packs_with_licence_preview_and_how_to_accept() -> None:
    small, large = rows(view(LOOK), "Packs")
    assert (small.mark, small.detail, small.note) == ("preview · loaded", "hdrfuse · Apache-2.0, accepted", "")
    assert (large.mark, large.detail) == ("", "hdrfuse · OpenRAIL++-M")
    assert large.copy == "hdrgen packs accept large"
    assert large.copy in large.note


def test_the_pack_that_measures_the_wire_is_left_out() -> None:
    echo = replace(WELCOME.packs[0], name="echo", operations=("echo",))
    shown = view(replace(LOOK, welcome=replace(WELCOME, packs=(*WELCOME.packs, echo))))
    assert [row.title for row in rows(shown, "Packs")] == ["small", "large"]


def test_recent_errors_newest_first_each_with_what_to_do() -> None:
    newest, oldest = rows(view(LOOK), "Recent errors")
    (fresh,) = rows(view(with_health(recent_errors=(replace(ERRORS[0], ago_s=59.0),))), "Recent errors")
    assert fresh.mark == "just now"
    assert (newest.mark, newest.detail, newest.note) == ("2 min ago", ERRORS[1].message, model.TIP)
    assert (oldest.mark, oldest.note) == ("1 h ago", model.TIPS["out_of_memory"])


def test_another_package_version_is_said() -> None:
    assert (rows(view(LOOK), "Sidecar")[0].mark, rows(view(LOOK), "Sidecar")[0].detail) == ("0.1.0", "")
    other = replace(LOOK, welcome=replace(WELCOME, package="9.0"))
    assert rows(view(other), "Sidecar")[0].mark == "9.0"
    assert "0.1.0" in rows(view(other), "Sidecar")[0].detail


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "less than a minute"), (59.9, "less than a minute"), (60.0, "1 min"), (7300.0, "2 h"), (90000.0, "1 d")],
)
def test_times_are_coarse(seconds: float, words: str) -> None:
    assert model.ago(seconds) == words


def test_the_report_holds_everything_that_support_asks_for() -> None:
    text = model.report(LOOK, {"Nuke": "", "Python": "3.11.2"})
    versions = ("nuke-hdrgen 0.1.0, wire 1.0", "Python: 3.11.2", "4711", "settings: s1", ADDRESS)
    told = ("state: Ready", "18.0 of 24.0 GiB free", "run hdrgen packs accept large", "results: 3")
    for said in (*versions, *told, *(error.message for error in ERRORS)):
        assert said in text
    assert "Nuke:" not in text


def test_the_report_of_a_failure_holds_its_code() -> None:
    text = model.report(Seen(error=VersionMismatch("wire 2.0 is not 1.0")), {})
    assert text.splitlines()[1:] == ["state: Another version", "  Wire 2.0 is not 1.0.", "  code: version_mismatch"]


def test_words_and_watch_need_no_qt() -> None:
    """With nothing installed beside the standard library."""
    names = ["nuke_hdrgen.ui.model", "nuke_hdrgen.ui.watch", "nuke_hdrgen.ui.dock"]
    code = f"import sys, importlib; sys.path.insert(0, {str(ROOT)!r}); [importlib.import_module(n) for n in {names!r}]"
    done = subprocess.run([sys.executable, "-I", "-S", "-B", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
