"""Start-up, nodes and plans inside a Nuke that has nothing but its own Python."""

from __future__ import annotations

import importlib
import sys

from nuke_hdrgen.bake.paths import result_pattern
from nuke_hdrgen.bake.shots import Shot
from nuke_hdrgen.wire import errors
from tests.portable.nuke_case import FIRST, LAST, MAKERS, ROOT, NukeCase, hdrfuse, sdr2hdr, settle, txt2hdr

PACKAGE = ROOT / "nuke_hdrgen"
OF_QT = {f"nuke_hdrgen.ui.{name}" for name in ("panel", "poll", "qt", "rows")}


class StartUp(NukeCase):
    def test_with_a_gui_there_are_menus_and_a_panel(self):
        nuke = self.start()
        for name in MAKERS:
            nuke.run_menu(f"Nodes/HDRGen/{name}")
            self.assertEqual(nuke.toNode(f"{name}1").Class(), name)
        self.assertEqual([name for _, name, _ in nuke.panels], ["HDRGen"])
        nuke.run_menu("Nuke/HDRGen/Start sidecar")
        settle(nuke)
        self.assertEqual(len(nuke.messages), 1)
        self.assertIn("The sidecar runs", nuke.messages[0])

    def test_in_a_terminal_there_are_gizmos_and_no_gui_is_touched(self):
        nuke = self.start(gui=False)
        for name in MAKERS:
            self.assertEqual(nuke.createNode(name, inpanel=False).Class(), name)
        self.assertEqual(nuke.panels, [])
        self.assertNotIn("nuke_hdrgen.ui.dock", sys.modules)

    def test_starting_asks_no_sidecar_and_imports_no_qt(self):
        before = set(sys.modules)
        self.start()
        self.assertEqual(self.sidecar.hellos, [])
        loaded = set(sys.modules) - before
        self.assertIn("nuke_hdrgen.ui.dock", loaded)
        self.assertEqual({name for name in loaded if name.startswith(("PySide", "nuke_hdrgen.ui.qt"))}, set())

    def test_every_module_but_qts_own_is_imported(self):
        self.start()
        names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sorted(PACKAGE.rglob("*.py"))]
        for name in names:
            if name not in OF_QT:
                importlib.import_module(name)
        self.assertGreater(len(names), 40)
        self.assertEqual(OF_QT - set(names), set())


class Nodes(NukeCase):
    def test_a_node_made_in_a_gui_draws_what_it_needs(self):
        nuke = self.start()
        self.save(nuke)
        made = [make(nuke) for make in MAKERS.values()]
        settle(nuke)
        for node in made:
            self.assertEqual(len(node["bake_id"].value()), 12)
            self.assertGreaterEqual(node["seed"].value(), 0)
            self.assertEqual(node["colourspace"].value(), "lin_rec709_scene")
            self.assertEqual(node["cache_root"].value(), str(self.cache))
            self.assertEqual(node["still_frame"].value(), FIRST)
        self.assertEqual(len({node["bake_id"].value() for node in made}), 3)
        self.assertEqual(len({node["seed"].value() for node in made}), 3)

    def test_a_node_made_in_a_terminal_draws_nothing(self):
        nuke = self.start(gui=False)
        for make in MAKERS.values():
            node = make(nuke)
            self.assertEqual((node["bake_id"].value(), node["seed"].value()), ("", -1))

    def test_the_path_follows_the_knobs_and_goes_back(self):
        nuke = self.start()
        self.save(nuke)
        for make, name, value in ((hdrfuse, "ev1", -3.0), (sdr2hdr, "clip_threshold", 240), (txt2hdr, "prompt", "x")):
            node = make(nuke)
            before, was = node["result_path"].value(), node[name].value()
            self.assertTrue(before.startswith(f"{self.cache}/{node['bake_id'].value()}/"), before)
            node[name].setValue(value)
            other = node["result_path"].value()
            self.assertNotEqual(other, before)
            node[name].setValue(was)
            self.assertEqual(node["result_path"].value(), before)
            node["gain"].setValue(2.0)
            self.assertEqual(node["result_path"].value(), before)
        settle(nuke)

    def test_the_reference_is_the_plate_that_the_look_keeps(self):
        nuke = self.start()
        node = hdrfuse(nuke)
        self.assertEqual(node["plate_input"].value(), 1)
        node["reference"].setValue("3")
        self.assertEqual(node["plate_input"].value(), 2)
        node["ev1"].setValue(5.0)
        node["reference"].setValue("middle")
        self.assertEqual(node["plate_input"].value(), 2)
        settle(nuke)

    def test_saved_and_opened_again_it_is_the_same_node(self):
        nuke = self.start()
        self.save(nuke)
        kept = {}
        for name, make in MAKERS.items():
            node = make(nuke)
            kept[f"{name}1"] = (node["bake_id"].value(), node["seed"].value(), node["result_path"].value())
        settle(nuke)
        path = self.save(nuke)
        for gui in (True, False):
            nuke = self.start(gui=gui)
            nuke.scriptOpen(str(path))
            settle(nuke)
            for name, said in kept.items():
                node = nuke.toNode(name)
                found = (node["bake_id"].value(), node["seed"].value(), node["result_path"].value())
                self.assertEqual(found, said)


class Plans(NukeCase):
    def plan(self, node, frames=(FIRST, FIRST + 1)):
        from nuke_hdrgen.host.orders import plan_bake

        return plan_bake(node, frames)

    def test_a_bracket(self):
        nuke = self.start()
        self.save(nuke)
        node = hdrfuse(nuke)
        node["parameters"].setValue("steps=4 strength=0.5 fast=true mode=soft")
        node["ev3"].setExpression("frame - 999")
        order = self.plan(node)
        self.assertEqual([piece.task.frame for piece in order.pieces], [FIRST, FIRST + 1])
        self.assertEqual([(s.number, s.frame, s.ev) for s in order.pieces[1].task.sources],
                         [(1, 1002, -2.0), (2, 1002, 0.0), (3, 1002, 3.0)])  # fmt: skip
        self.assertEqual(order.pieces[0].task.parameters,
                         {"reference": 1, "steps": 4, "strength": 0.5, "fast": True, "mode": "soft"})  # fmt: skip
        self.assertNotEqual(order.pieces[0].task.seed, order.pieces[1].task.seed)
        self.assertEqual(order.path(order.pieces[0], 0), order.pattern(order.pieces[0], 0).replace("####", "1001"))
        self.assertEqual(order.space.interop_id, "lin_rec709_scene")

    def test_a_bracket_of_frames(self):
        nuke = self.start()
        self.save(nuke)
        node = hdrfuse(nuke)
        node["source"].setValue("frames")
        (piece,) = self.plan(node, (FIRST,)).pieces
        self.assertEqual([(s.number, s.frame) for s in piece.task.sources], [(1, 1001), (1, 1002), (1, 1003)])

    def test_a_plate(self):
        nuke = self.start()
        self.save(nuke)
        node = sdr2hdr(nuke)
        node["encoding"].setValue("Rec.1886")
        (piece,) = self.plan(node, (FIRST,)).pieces
        self.assertEqual(piece.task.parameters, {"clip_threshold": 250, "encoding": "rec1886"})
        self.assertIsNone(self.plan(node).shot)
        node["mode"].setValue("shot")
        order = self.plan(node)
        self.assertEqual(order.shot, Shot(FIRST, LAST, 24.0))
        self.assertEqual({piece.task.seed for piece in order.pieces}, {node["seed"].value()})

    def test_a_prompt_and_its_variations(self):
        nuke = self.start()
        self.save(nuke)
        node = txt2hdr(nuke)
        node["count"].setValue(3)
        order = self.plan(node, (FIRST,))
        self.assertEqual(len({order.path(piece, 0) for piece in order.pieces}), 3)
        seed = node["seed"].value()
        self.assertEqual([piece.task.seed for piece in order.pieces], [(seed + i) % 2**31 for i in range(3)])
        shown = result_pattern(order.cache_root, order.bake_id, {**order.scripts, "take": "0"})
        self.assertEqual(order.pattern(order.pieces[0], 0), shown)
        self.assertEqual(order.pieces[0].task.parameters["width"], 96)

    def test_what_cannot_be_baked_is_one_sentence(self):
        nuke = self.start()
        with self.assertRaisesRegex(errors.BadInput, "save the script first"):
            self.plan(sdr2hdr(nuke))
        self.save(nuke)
        lone = nuke.createNode("SDR2HDR", inpanel=False)
        lone.setInput(0, None)
        with self.assertRaisesRegex(errors.BadInput, "has no input; connect the plate"):
            self.plan(lone)
        with self.assertRaisesRegex(errors.BadInput, "is no HDRFuse"):
            self.plan(nuke.toNode("Plate1"))
        silent = nuke.createNode("Txt2HDR", inpanel=False)
        silent.setInput(0, None)
        with self.assertRaisesRegex(errors.BadParameter, "empty prompt"):
            self.plan(silent)
        settle(nuke)
        nuke = self.start(assist=True)
        with self.assertRaisesRegex(errors.BadInput, "Assist cannot render"):
            self.plan(txt2hdr(nuke))
