"""Shots planned by windows: part of a shot looks at the same frames as all of it, and no window is run for nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuke_hdrgen.bake.shots import Shot, ShotJob, ShotPlan, plan_shot
from nuke_hdrgen.wire.errors import BadParameter
from nuke_hdrgen.wire.messages import PackInfo
from nuke_hdrgen.wire.windows import Windows

PACK = PackInfo("steady", "lumivid", "d" * 64, 1, ("sdr2hdr",), False, "Apache-2.0", True, 17, 8)


@st.composite
def plans(draw: st.DrawFn) -> ShotPlan:
    """Any shot in any windows."""
    size = draw(st.integers(1, 24))
    first = draw(st.integers(0, 2000))
    last = first + draw(st.integers(0, 80))
    return ShotPlan(Shot(first, last, 24.0), Windows(size, draw(st.integers(0, size // 2))))


@st.composite
def parts(draw: st.DrawFn) -> tuple[ShotPlan, list[int]]:
    """Some frames of a shot."""
    plan = draw(plans())
    frame = st.integers(plan.shot.first, plan.shot.last)
    return plan, draw(st.lists(frame, min_size=1, max_size=20))


def windows_of(plan: ShotPlan) -> list[range]:
    """The shot's windows one after another, until its last frame is in one."""
    found = [range(plan.shot.first, plan.shot.first + plan.windows.size)]
    while found[-1].stop <= plan.shot.last:
        found.append(range(found[-1].start + plan.windows.hop, found[-1].stop + plan.windows.hop))
    return [range(window.start, min(window.stop, plan.shot.last + 1)) for window in found]


@settings(deadline=None, max_examples=60)
@given(plans())
def test_a_result_is_made_from_all_windows_that_its_frame_lies_in(plan: ShotPlan) -> None:
    for frame in range(plan.shot.first, plan.shot.last + 1):
        seen = [window for window in windows_of(plan) if frame in window]
        assert 1 <= len(seen) <= 2
        assert plan.inputs(frame) == range(seen[0].start, seen[-1].stop)


@settings(deadline=None, max_examples=60)
@given(parts())
def test_in_a_job_of_part_of_a_shot_a_frame_has_the_inputs_that_it_has_in_all_of_it(
    part: tuple[ShotPlan, list[int]],
) -> None:
    plan, wanted = part
    for job in plan.jobs(wanted):
        assert (job.frames.start - plan.shot.first) % plan.windows.hop == 0
        for frame in job.wanted:  # the worker knows the job's frames alone
            own = plan.windows.inputs(frame - job.frames.start, len(job.frames))
            assert [job.frames[index] for index in own] == list(plan.inputs(frame))


@settings(deadline=None, max_examples=60)
@given(parts())
def test_jobs_run_the_windows_that_are_needed_once_and_no_others(part: tuple[ShotPlan, list[int]]) -> None:
    plan, wanted = part
    jobs = plan.jobs(wanted)
    assert [frame for job in jobs for frame in job.wanted] == sorted(set(wanted))
    needed = [window for window in windows_of(plan) if set(window) & set(wanted)]
    run = [window for job in jobs for window in windows_of(plan) if set(window) <= set(job.frames)]
    assert run == needed
    assert all(set(job.frames) == set().union(*map(plan.inputs, job.wanted)) for job in jobs if job.wanted)


@settings(deadline=None, max_examples=60)
@given(plans())
def test_all_of_a_shot_is_one_job(plan: ShotPlan) -> None:
    every = range(plan.shot.first, plan.shot.last + 1)
    assert plan.jobs(every) == (ShotJob(every, tuple(every)),)
    assert plan.jobs(()) == ()


def test_the_packs_windows_unless_the_node_asks_for_others() -> None:
    shot = Shot(1001, 1100, 25.0)
    plan = plan_shot(shot, PACK, {"detail": "model"}, (1001,), "SDR2HDR1")
    assert plan.windows == Windows(17, 8)
    assert plan.parameters({"detail": "model"}) == {"shot_start": 1001, "fps": 25.0, "detail": "model"}
    assert plan.parameters({"fps": 50}) == {"shot_start": 1001, "fps": 50}
    assert plan_shot(shot, PACK, {"window": 33}, (1001,), "SDR2HDR1").windows == Windows(33, 8)
    assert (shot.count, shot.text) == (100, "1001-1100")


@pytest.mark.parametrize(
    ("shot", "given", "frames", "says"),
    [
        (Shot(1, 9, 24.0), {}, (9, 10, 11), "10-11 lies outside the shot 1-9 of N, and steady"),
        (Shot(-1, 9, 24.0), {}, (0,), "the shot -1-9 of N begins before frame 0"),
        (Shot(1, 9, 24.0, ("encoding", "seed")), {}, (1,), "encoding, seed of N changes over the shot"),
        (Shot(1, 9, 24.0), {"window": True}, (1,), "whole number of frames, got True"),
        (Shot(1, 9, 24.0), {"overlap": 2.5}, (1,), "overlap in `parameters` must be"),
        (Shot(1, 9, 24.0), {"overlap": 9}, (1,), "windows of 17 frames cannot share 9"),
    ],
)
def test_what_cannot_be_planned(shot: Shot, given: dict, frames: tuple[int, ...], says: str) -> None:
    with pytest.raises(BadParameter, match=says):
        plan_shot(shot, PACK, given, frames, "N")
