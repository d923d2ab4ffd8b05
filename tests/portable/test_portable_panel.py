"""What the panel knows and says, without Qt: a look at a sidecar, and none."""

from __future__ import annotations

import queue
import shutil
import tempfile
import unittest
from pathlib import Path

from nuke_hdrgen.ui import model
from nuke_hdrgen.ui.watch import FREE, LOOK, START, Target, Watch
from nuke_hdrgen.wire import errors
from nuke_hdrgen.wire import messages as m
from tests.portable.bare_sidecar import PACKS, BareSidecar


class Panel(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="hdrgen-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.environment = {"XDG_RUNTIME_DIR": self.folder, "XDG_CONFIG_HOME": self.folder, "HOME": self.folder}
        self.seen: queue.Queue[model.Seen] = queue.Queue()

    def watch(self, server: str | None) -> Watch:
        """A watch that looks again only when it is asked to."""
        watch = Watch(Target("session", server, self.environment, every_s=60.0, absent_s=60.0), self.seen.put)
        self.addCleanup(self.assertTrue, watch.join, 10)
        self.addCleanup(watch.stop)
        watch.start()
        return watch

    def test_a_look_at_a_sidecar(self):
        with BareSidecar(Path(self.folder, "s")) as sidecar:
            watch = self.watch(sidecar.address)
            for wish in (LOOK, FREE):
                shown = model.view(self.seen.get(timeout=10))
                self.assertEqual((shown.state, shown.title), (model.READY, "Ready"))
                packs = next(section for section in shown.sections if section.title == "Packs")
                self.assertEqual([row.title for row in packs.rows], [pack.name for pack in PACKS])
                watch.wish(wish)
            last = self.seen.get(timeout=10)
            watch.stop()
            self.assertTrue(watch.join(10))
        report = model.report(last, {"Python": "3"})
        self.assertIn(sidecar.address, report)
        self.assertIn("run hdrgen packs accept shut", report)

    def test_no_sidecar(self):
        watch = self.watch(None)
        shown = model.view(self.seen.get(timeout=10))
        self.assertEqual((shown.state, shown.can_start), (model.ABSENT, True))
        watch.wish(START)
        self.assertEqual(model.view(self.seen.get(timeout=10)).state, model.STARTING)
        shown = model.view(self.seen.get(timeout=10))
        self.assertEqual((shown.state, shown.can_start), (model.ABSENT, True))
        self.assertIn("hdrgen doctor --install", shown.sentence)

    def test_words(self):
        self.assertEqual(model.ago(59), "less than a minute")
        self.assertEqual(model.ago(7200), "2 h")
        self.assertEqual(model.mebibytes(512, 2048), "0.5 of 2.0 GiB free")
        refused = model.view(model.Seen(error=errors.VersionMismatch("the sidecar speaks wire 9.0")))
        self.assertEqual((refused.state, refused.title), (model.REFUSED, "Another version"))
        job = m.JobInfo("hdrfuse", "merge", "step", 3, 1, 2, 4)
        worker = m.WorkerInfo("cuda:0", "ready", (), 1.0, 2.0)
        health = m.Health(True, True, {}, 9.0, m.QueueInfo(0, 64), 1, (worker,), jobs=(job,))
        welcome = m.Welcome("0.1.0", 1, {}, m.QueueInfo(0, 64))
        busy = model.view(model.Seen(welcome, health, "unix:/s"))
        self.assertEqual((busy.state, busy.sentence), (model.BUSY, "1 job on cuda:0: 1 running."))
