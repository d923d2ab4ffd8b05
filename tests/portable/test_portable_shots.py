"""Shots by a pack that looks at windows of five frames, two of them shared: what is sent, kept and found again."""

from __future__ import annotations

import contextlib
import io
import runpy
import sys
from unittest import mock

from tests.fakes.nuke.plain_plates import FlatPlate
from tests.portable.nuke_case import FIRST, PLATE, ROOT, NukeCase, plate, sdr2hdr, settle

LAST = FIRST + 11
ALL = list(range(FIRST, LAST + 1))


class Shots(NukeCase):
    def shot(self, *, gui: bool = True):
        """A Nuke with a saved script of twelve frames, and a node in shot mode."""
        nuke = self.start(gui=gui)
        nuke.root()["last_frame"].setValue(LAST)
        node = sdr2hdr(nuke)
        for name, value in (("pack", "steady"), ("mode", "shot")):
            node[name].setValue(value)
        self.save(nuke)
        settle(nuke)
        return nuke, node

    def sent(self) -> list[list[int]]:
        """The frames of each job so far."""
        numbers, found = [frame.number for frame, _ in self.sidecar.inputs], []
        for job in self.sidecar.jobs:
            found.append(numbers[: job.frames])
            del numbers[: job.frames]
        return found

    def pixels(self) -> dict[str, bytes]:
        """The bytes of every result by its name."""
        return {name.rsplit("/", 1)[-1]: data for name, data in self.files().items()}

    def said(self, nuke) -> str:
        (line,) = nuke.messages
        del nuke.messages[:]
        return line

    def test_a_shot_is_one_job_and_a_second_bake_sends_nothing(self):
        nuke, node = self.shot()
        nuke.root()["fps"].setValue(25)
        self.press(nuke, node, "bake_range")
        self.assertEqual((nuke.messages, self.sent()), ([], [ALL]))
        (job,) = self.sidecar.jobs
        self.assertEqual(job.parameters, {"shot_start": FIRST, "fps": 25.0, "clip_threshold": 250, "encoding": "srgb"})
        self.assertEqual(job.attributes, {"gizmo": "SDR2HDR", "shot": "1001-1012", "view": "main"})
        self.assertEqual(job.seed, node["seed"].value())
        self.assertEqual([frame.index for frame, _ in self.sidecar.inputs], list(range(12)))
        self.assertEqual(self.results(), [f"out.{frame}.exr" for frame in ALL])
        kept = self.files()
        self.press(nuke, node, "bake_range")
        self.assertEqual(node["status"].value(), "nothing to bake, 12 frames found")
        self.assertEqual((self.files(), len(self.sidecar.jobs)), (kept, 1))

    def test_part_of_a_shot_is_the_same_as_all_of_it(self):
        nuke, node = self.shot()
        for frame in (1006, 1001, 1012):
            nuke.frame(frame)
            self.press(nuke, node, "bake")
        self.assertEqual(nuke.messages, [])
        self.assertEqual(self.sent(), [list(range(1004, 1009)), list(range(1001, 1006)), list(range(1010, 1013))])
        self.press(nuke, node, "bake_range")
        self.assertRegex(node["status"].value(), "^9 frames baked in .*, 3 frames found$")
        parts = self.pixels()
        node["cache_root"].setValue(f"{self.cache}/whole")
        self.press(nuke, node, "bake_range")
        self.assertRegex(node["status"].value(), "^12 frames baked in [^,]*$")
        self.assertEqual(self.pixels(), parts)

    def test_frames_far_apart_are_jobs_of_their_own(self):
        nuke, node = self.shot()
        node["range"].setValue("1001-1012x11")
        self.press(nuke, node, "bake_range")
        self.assertEqual(nuke.messages, [])
        self.assertEqual(self.sent(), [list(range(1001, 1006)), list(range(1010, 1013))])
        self.assertEqual(self.results(), ["out.1001.exr", "out.1012.exr"])

    def test_after_a_crash_it_goes_on_at_the_last_finished_window(self):
        nuke, node = self.shot()
        self.sidecar.breaks_after = 7
        self.press(nuke, node, "bake_range")
        self.assertIn("the sidecar ", self.said(nuke))
        self.assertEqual(self.results(), [f"out.{frame}.exr" for frame in ALL[:7]])
        kept = self.files()
        self.sidecar.breaks_after = 0
        self.press(nuke, node, "bake_range")
        self.assertEqual(nuke.messages, [])
        self.assertEqual(self.sent()[1], list(range(1004, 1013)))
        self.assertRegex(node["status"].value(), "^5 frames baked in .*, 7 frames found$")
        self.assertEqual({**self.files(), **kept}, self.files())

    def test_another_plate_bakes_the_windows_that_see_it_in_a_new_take(self):
        nuke, node = self.shot()
        self.press(nuke, node, "bake_range")
        kept = self.files()
        usual = nuke.plates["Plate1"]
        nuke.plates["Plate1"] = lambda frame: FlatPlate(*PLATE) if frame == 1006 else usual(frame)
        self.press(nuke, node, "bake_range")
        self.assertEqual(nuke.messages, [])
        self.assertRegex(node["status"].value(), "^5 frames baked in .*, 7 frames found$")
        self.assertEqual(self.sent()[1], list(range(1001, 1012)))  # 1004 and 1008 lie in two windows
        self.assertEqual((node["take"].value(), len(self.results())), (1, 24))
        self.assertEqual({**self.files(), **kept}, self.files())
        nuke.plates["Plate1"] = usual
        self.press(nuke, node, "bake_range")
        self.assertEqual(node["status"].value(), "nothing to bake, 12 frames found")

    def test_another_shot_is_noticed_and_never_written_over(self):
        nuke, node = self.shot()
        node["range"].setValue("1001-1010")
        self.press(nuke, node, "bake_range")
        kept = self.files()
        node["range"].setValue("1001-1012")
        self.press(nuke, node, "refresh")
        self.assertIn("press Bake stale", node["status"].value())
        self.press(nuke, node, "bake_stale")
        self.assertEqual(nuke.messages, [])
        self.assertRegex(node["status"].value(), "^6 frames baked in .*, 6 frames found$")  # the last window grew
        self.assertEqual({**self.files(), **kept}, self.files())
        self.press(nuke, node, "bake_stale")
        self.assertEqual(node["status"].value(), "nothing is stale")

    def test_views_and_stills(self):
        nuke, node = self.shot()
        nuke.root()["views"].setValue("left #ff0000\nright #00ff00")
        node["range"].setValue("1001-1003")
        self.press(nuke, node, "bake_range")
        self.assertEqual((nuke.messages, self.sent()), ([], [[1001, 1002, 1003]] * 2))
        self.assertEqual(len(self.results()), 6)
        nuke.root()["views"].setValue("main #ffffff")
        nuke.frame(1900)
        node["still"].setValue(True)
        self.press(nuke, node, "bake")
        self.assertEqual((nuke.messages, self.sent()[2:]), ([], [[1900]]))
        self.assertEqual(self.sidecar.jobs[-1].parameters["shot_start"], 1900)

    def test_frame_by_frame_each_frame_is_a_still(self):
        nuke, node = self.shot()
        node["mode"].setValue("frame by frame")
        node["range"].setValue("1001-1002")
        self.press(nuke, node, "bake_range")
        self.assertEqual((nuke.messages, sorted(self.sent())), ([], [[1001], [1002]]))
        self.assertNotIn("shot_start", self.sidecar.jobs[0].parameters)
        self.assertIn("steady looks at 5 frames together; frame by frame makes a still", node["status"].value())

    def test_a_shot_has_a_default_of_its_own(self):
        nuke, node = self.shot()
        for name, value in (("pack", ""), ("range", "1001-1002")):
            node[name].setValue(value)
        for quality, mode, still, made in (
            ("draft", "shot", False, "expand"), ("final", "frame by frame", False, "expand"),
            ("final", "shot", True, "expand"), ("final", "shot", False, "steady"),
        ):  # fmt: skip
            for name, value in (("quality", quality), ("mode", mode), ("still", still)):
                node[name].setValue(value)
            self.press(nuke, node, "bake")
            self.assertEqual((nuke.messages, self.sidecar.jobs[-1].pack), ([], made))

    def test_what_cannot_be_a_shot_is_one_sentence(self):
        nuke, node = self.shot()
        for prepare, button, line in (
            (lambda: nuke.frame(1020), "bake", "1020 lies outside the shot 1001-1012 of SDR2HDR1"),
            (lambda: node["range"].setValue("-3-4"), "bake_range", "the shot -3-4 of SDR2HDR1 begins before frame 0"),
            (lambda: node["range"].setValue(""), "", ""),
            (lambda: node["clip_threshold"].setExpression("frame - 800"), "bake_range",
             "clip_threshold of SDR2HDR1 changes over the shot, and steady looks at 5 frames together"),
            (lambda: node["clip_threshold"].setExpression("240 + 5"), "", ""),
            (lambda: node["parameters"].setValue("window=many"), "bake_range",
             "window in `parameters` must be a whole number of frames, got 'many'"),
            (lambda: node["parameters"].setValue("overlap=3"), "bake_range", "windows of 5 frames cannot share 3"),
        ):  # fmt: skip
            prepare()
            settle(nuke)
            if button:
                self.press(nuke, node, button)
                self.assertIn(line, self.said(nuke))
        self.assertEqual((self.files(), self.sidecar.jobs, nuke.executed), ({}, [], []))
        node["parameters"].setValue("window=9 overlap=4")
        nuke.frame(1012)
        self.press(nuke, node, "bake")
        self.assertEqual((nuke.messages, self.sent()), ([], [list(range(1006, 1013))]))

    def test_cancel_keeps_what_is_done_and_ends_the_job(self):
        nuke, node = self.shot()
        nuke.frame(1001)
        self.press(nuke, node, "bake")
        kept = self.files()
        self.sidecar.hold = True
        self.sidecar.computing.clear()
        node["bake_range"].execute()
        nuke.run_events(self.sidecar.computing.is_set)
        node["cancel"].execute()
        settle(nuke)
        self.assertEqual(nuke.messages, [])
        self.assertEqual(node["status"].value(), "the bake of SDR2HDR1 was cancelled; finished frames are kept")
        self.assertEqual(self.files(), kept)

    def test_a_plate_that_fails_in_mid_shot_ends_it_in_one_sentence(self):
        nuke, node = self.shot()
        node.setInput(0, plate(nuke, 2))
        del nuke.messages[:]
        nuke.before_frame = lambda *said: self._refuse(1005 in said)
        self.press(nuke, node, "bake_range")
        self.assertIn("SDR2HDR1.HDRGenIn1 cannot export frame 1005: the disk is full", self.said(nuke))
        self.assertEqual(self.files(), {})

    def _refuse(self, now: bool) -> None:
        if now:
            raise RuntimeError("the disk is full")

    def test_a_farm_bakes_parts_of_the_nodes_shot(self):
        before, node = self.shot()
        plates = dict(before.plates)
        script = str(self.save(before))
        for frames in ("1005-1007", "1001-1004,1008-1012"):
            code, out, err = self.farm(plates, script, f"--range={frames}")
            self.assertEqual((code, err), (0, ""))
        self.assertIn("HDRGEN frame 1012 baked (9/9)", out)
        parts = self.pixels()
        code, _, err = self.farm(plates, script, "--range=1013")
        self.assertEqual(code, 2)
        self.assertIn("1013 lies outside the shot 1001-1012 of SDR2HDR1", err)
        nuke = self.start()
        nuke.plates.update(plates)
        nuke.scriptOpen(script)
        node = nuke.toNode("SDR2HDR1")
        node["cache_root"].setValue(f"{self.cache}/whole")
        self.press(nuke, node, "bake_range")
        self.assertEqual((nuke.messages, self.pixels()), ([], parts))

    def farm(self, plates, *arguments: str) -> tuple[int, str, str]:
        """Run bake.py in a new Nuke without a GUI: its exit code and what it wrote."""
        self.start(gui=False).plates.update(plates)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), mock.patch.object(
            sys, "argv", ["bake.py", *arguments]
        ), self.assertRaises(SystemExit) as ended:  # fmt: skip
            runpy.run_path(str(ROOT / "bake.py"), run_name="__main__")
        return ended.exception.code, out.getvalue(), err.getvalue()
