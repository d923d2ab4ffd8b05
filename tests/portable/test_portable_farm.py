"""bake.py, and the check before a render, in a bare Nuke without a GUI."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import sys
from unittest import mock

from tests.portable.nuke_case import FIRST, LAST, ROOT, NukeCase, hdrfuse, sdr2hdr, settle


class Farm(NukeCase):
    def script(self) -> str:
        """A script with two nodes, of which nothing is baked."""
        nuke = self.start()
        self.save(nuke)
        node = sdr2hdr(nuke)
        hdrfuse(nuke)
        for other in nuke.allNodes():
            other.setSelected(other is node)
        write = nuke.createNode("Write", inpanel=False)
        write["file"].setValue(f"{self.folder}/comp.####.exr")
        settle(nuke)
        return str(self.save(nuke))

    def terminal(self):
        """A new Nuke without a GUI, whose plates are those of the last one."""
        before = sys.modules["nuke"]
        nuke = self.start(gui=False)
        nuke.plates.update(before.plates)
        return nuke

    def bake(self, *arguments: str) -> tuple[int, str, str]:
        """Run bake.py with these arguments: its exit code and what it wrote."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), mock.patch.object(
            sys, "argv", ["bake.py", *arguments]
        ), self.assertRaises(SystemExit) as ended:  # fmt: skip
            runpy.run_path(str(ROOT / "bake.py"), run_name="__main__")
        return ended.exception.code, out.getvalue(), err.getvalue()

    def test_a_range_is_baked_once(self):
        script = self.script()
        self.terminal()
        code, out, err = self.bake(script, "--node=SDR2HDR1", "--range=1001-1002")
        self.assertEqual((code, err), (0, ""))
        self.assertIn("baked (2/2)", out)
        self.assertIn("HDRGEN SDR2HDR1: 2 frames baked", out)
        self.assertEqual(self.results(), ["out.1001.exr", "out.1002.exr"])
        self.terminal()
        code, out, _ = self.bake(script, "--node=SDR2HDR1", "--range=1001-1003")
        self.assertEqual(code, 0)
        self.assertRegex(out, "SDR2HDR1: 1 frames? baked in .*, 2 ")
        self.assertEqual(len(self.sidecar.jobs), 3)

    def test_what_a_gui_shows_is_what_a_terminal_baked(self):
        script = self.script()
        before = self.terminal()
        self.assertEqual(self.bake(script)[0], 0)
        nuke = self.start()
        nuke.plates.update(before.plates)
        nuke.scriptOpen(script)
        settle(nuke)
        for name in ("SDR2HDR1", "HDRFuse1"):
            node = nuke.toNode(name)
            self.assertEqual([node["baked"].valueAt(f) for f in range(FIRST - 1, LAST + 2)], [0, 1, 1, 1, 0])

    def test_a_render_without_its_bake_says_what_to_run(self):
        script = self.script()
        os.environ["HDRGEN_LAG_S"] = "0"
        nuke = self.terminal()
        nuke.scriptOpen(script)
        with self.assertRaisesRegex(
            RuntimeError,
            r"^SDR2HDR1 has no bake of frames 1001-1003\. Run: nuke -t \S*bake\.py \S+comp_v001\.nk --node=SDR2HDR1 "
            r"--range=1001-1003$",
        ):
            nuke.execute(nuke.toNode("Write1"), FIRST, LAST, 1)
        nuke.toNode("SDR2HDR1")["clip_threshold"].setValue(240)
        with self.assertRaisesRegex(RuntimeError, "SDR2HDR1 was changed since it was baked"):
            nuke.execute(nuke.toNode("Write1"), FIRST, LAST, 1)

    def test_bad_command_lines_end_with_2_and_one_line(self):
        script = self.script()
        for arguments, says in (
            ((f"{self.folder}/gone.nk",), "cannot be opened"),
            ((script, "--node=Blur1"), "it has: SDR2HDR1, HDRFuse1"),
            ((script, "--range=ten"), "'ten' is no frame range"),
            ((), "arguments are required: script"),
        ):
            with self.subTest(says):
                self.terminal()
                code, out, err = self.bake(*arguments)
                self.assertEqual((code, out), (2, ""))
                self.assertIn(says, err)

    def test_no_sidecar_ends_with_5(self):
        script = self.script()
        self.terminal()
        del os.environ["HDRGEN_SERVER"]
        code, _, err = self.bake(script, "--node=SDR2HDR1")
        self.assertEqual((code, err.count("\n")), (5, 1))
        self.assertIn("hdrgen doctor --install", err)
