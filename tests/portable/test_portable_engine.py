"""Whole bakes inside a bare Nuke: export, key, send, keep; what is there already; takes, cancel and failures."""

from __future__ import annotations

import os

from tests.portable.bare_sidecar import DEVICE
from tests.portable.nuke_case import FIRST, LAST, MAKERS, NukeCase, hdrfuse, plate, sdr2hdr, settle, txt2hdr


class Bakes(NukeCase):
    def test_each_gizmo_and_a_second_bake_sends_nothing(self):
        for name, make in MAKERS.items():
            with self.subTest(name):
                nuke = self.start()
                self.save(nuke, f"{name}.nk")
                node = make(nuke)
                node["still"].setValue(False)
                before = len(self.sidecar.jobs)
                self.press(nuke, node, "bake_range")
                self.assertEqual(nuke.messages, [])
                self.assertRegex(node["status"].value(), "^3 frames baked")
                self.assertEqual(len(self.sidecar.jobs) - before, 3)
                self.assertEqual([node["baked"].valueAt(f) for f in range(FIRST - 1, LAST + 2)], [0, 1, 1, 1, 0])
                kept = self.files()
                self.press(nuke, node, "bake_range")
                self.assertRegex(node["status"].value(), "^nothing to bake, 3 ")
                self.assertEqual((len(self.sidecar.jobs) - before, self.files()), (3, kept))
        self.assertEqual(sorted(set(self.results())), [f"out.{frame}.exr" for frame in range(FIRST, LAST + 1)])
        self.assertEqual(len(self.results()), 9)

    def test_what_is_sent_is_what_nuke_rendered(self):
        nuke = self.start()
        self.save(nuke)
        node = hdrfuse(nuke)
        nuke.root().setModified(False)
        undoable = list(nuke.Undo._entries)
        self.press(nuke, node, "bake")
        self.assertEqual(nuke.executed, [(f"HDRFuse1.HDRGenIn{n}", FIRST, "main") for n in (1, 2, 3)])
        (job,) = self.sidecar.jobs
        self.assertEqual((job.operation, job.pack, job.quality, job.frames), ("hdrfuse", "merge", "draft", 3))
        self.assertEqual(job.attributes, {"gizmo": "HDRFuse", "frame": FIRST, "view": "main"})
        frames = [frame for frame, _ in self.sidecar.inputs]
        self.assertEqual(
            [(f.index, f.number, f.ev) for f in frames], [(0, FIRST, -2.0), (1, FIRST, 0.0), (2, FIRST, 2.0)]
        )
        self.assertEqual({(f.format, f.shape, f.colourspace.interop_id) for f in frames},
                         {("exr", (32, 48, 4), "lin_rec709_scene")})  # fmt: skip
        self.assertEqual(len({body for _, body in self.sidecar.inputs}), 3)
        self.assertEqual(nuke.Undo._entries, undoable)
        for number in (1, 2, 3):
            write = node.node(f"HDRGenIn{number}")
            self.assertEqual((write["disable"].value(), write["file"].value()), (True, ""))
        self.assertTrue(all(not record.open for record in nuke.progress))
        node["estimate"].execute()
        self.assertRegex(node["status"].value(), f"about .* on {DEVICE}")

    def test_other_pixels_go_to_a_new_take_and_the_old_stays(self):
        nuke = self.start()
        self.save(nuke)
        node = sdr2hdr(nuke)
        self.press(nuke, node, "bake_range")
        kept, first = self.files(), node["result_path"].value()
        node.setInput(0, plate(nuke, 2, 0.5))
        self.press(nuke, node, "bake")
        self.assertEqual(nuke.messages, [])
        self.assertEqual(node["take"].value(), 1)
        self.assertNotEqual(node["result_path"].value(), first)
        now = self.files()
        self.assertEqual({name: now[name] for name in kept}, kept)
        self.assertEqual(len(now), 6, "frames that were not baked anew are carried over")
        node["take"].setValue(0)
        self.assertEqual(node["result_path"].value(), first)
        settle(nuke)

    def test_a_result_of_other_days_is_found_by_its_key(self):
        nuke = self.start()
        self.save(nuke)
        node = sdr2hdr(nuke)
        self.press(nuke, node, "bake")
        node["take"].setValue(7)
        self.press(nuke, node, "bake")
        self.assertEqual((len(self.sidecar.jobs), self.results()), (1, ["out.1001.exr"] * 2))

    def test_stale_frames_alone_are_baked(self):
        nuke = self.start()
        self.save(nuke)
        node = sdr2hdr(nuke)
        self.press(nuke, node, "bake")
        self.press(nuke, node, "bake_stale")
        self.assertRegex(node["status"].value(), "^2 frames baked")
        self.press(nuke, node, "bake_stale")
        self.assertEqual(node["status"].value(), "nothing is stale")

    def test_cancel_frees_the_job_and_leaves_nothing(self):
        for how in ("button", "window"):
            with self.subTest(how):
                nuke = self.start()
                self.save(nuke)
                node = hdrfuse(nuke)
                self.sidecar.hold = True
                self.sidecar.computing.clear()
                node["bake_range"].execute()
                nuke.run_events(self.sidecar.computing.is_set)
                if how == "button":
                    node["cancel"].execute()
                else:
                    nuke.progress[-1].cancelled = True
                settle(nuke)
                self.assertEqual(nuke.messages, [])
                self.assertIn("was cancelled; finished frames are kept", node["status"].value())
                self.assertEqual(self.files(), {})
                self.sidecar.hold = False
                self.press(nuke, node, "bake")
                self.assertEqual(self.results(), ["out.1001.exr"])
                next(path for path in self.cache.rglob("*.exr")).unlink()

    def test_a_node_deleted_in_mid_bake_raises_nowhere(self):
        nuke = self.start()
        self.save(nuke)
        node = hdrfuse(nuke)
        self.sidecar.hold = True
        node["bake"].execute()
        nuke.run_events(self.sidecar.computing.is_set)
        nuke.progress[-1].cancelled = True
        nuke.delete(node)
        settle(nuke)
        self.assertEqual((nuke.messages, self.files()), ([], {}))


class Failures(NukeCase):
    def told(self, make, says: str, **knobs: object) -> None:
        nuke = self.start()
        self.save(nuke)
        node = make(nuke)
        for name, value in knobs.items():
            node[name].setValue(value)
        self.press(nuke, node, "bake")
        self.assertEqual(len(nuke.messages), 1, nuke.messages)
        self.assertIn(says, nuke.messages[0])
        self.assertNotIn("\n", nuke.messages[0])
        self.assertEqual(node["status"].value(), nuke.messages[0])
        self.assertEqual(self.files() if self.cache.is_dir() else {}, {})

    def test_no_sidecar(self):
        os.environ["HDRGEN_SERVER"] = f"unix:{self.folder}/nobody"
        self.told(sdr2hdr, "no sidecar answers")
        del os.environ["HDRGEN_SERVER"]
        self.told(sdr2hdr, "hdrgen doctor --install")

    def test_packs(self):
        self.told(hdrfuse, "no pack 'gone'", pack="gone")
        self.told(hdrfuse, "hdrgen packs accept shut", pack="shut")
        self.told(sdr2hdr, "pack merge does not do sdr2hdr; packs that do: expand", pack="merge")
        self.told(txt2hdr, "no default pack for txt2hdr", quality="final")
        self.assertEqual(self.sidecar.jobs, [])

    def test_a_cache_that_cannot_be_written(self):
        (self.folder / "file").write_text("")
        self.told(sdr2hdr, "cannot be written", cache_root=f"{self.folder}/file")

    def test_a_key_that_was_not_announced(self):
        self.sidecar.key = "another"
        self.told(sdr2hdr, "with other packs or versions than it announced")

    def test_a_terminal_raises(self):
        nuke = self.start(gui=False)
        node = sdr2hdr(nuke)
        with self.assertRaisesRegex(Exception, "save the script first"):
            node["bake"].execute()
        self.assertEqual(nuke.messages, [])
