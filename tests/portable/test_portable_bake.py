"""Planning a bake from plain values: frames, places, parameters, seeds, and what an EXR's header says."""

from __future__ import annotations

import unittest

from nuke_hdrgen.bake import frames, paths, plan
from nuke_hdrgen.bake.exr_header import exr_shape, exr_text
from nuke_hdrgen.bake.gizmos import GIZMOS, OPERATIONS, gizmo_of
from nuke_hdrgen.wire.errors import BadInput, BadParameter
from tests.portable.bare_sidecar import exr

BRACKET = {
    "source": "inputs", "exposures": 3, "reference": "middle", "parameters": "", "seed": 7,
    **{f"ev{number}": 2.0 * number - 4 for number in range(1, 8)},
    **{f"offset{number}": number - 1 for number in range(1, 8)},
}  # fmt: skip
PLATE = {"mode": "frame by frame", "encoding": "sRGB", "clip_threshold": 250, "parameters": "", "seed": 7}
PROMPT = {
    "prompt": "dawn", "negative_prompt": "", "projection": "perspective", "size_width": 64, "size_height": 32,
    "variation": 1, "strength": 0.6, "parameters": "", "seed": 2**31 - 1,
}  # fmt: skip


def task(operation: str, values: dict, connected=(1, 2, 3), frame: int = 1001, **changes: object) -> plan.Task:
    return plan.task_at(OPERATIONS[operation], {**values, **changes}, connected, frame, "main", "Node1")


class Frames(unittest.TestCase):
    def test_what_is_written_is_read(self):
        for text, found in (
            ("5", (5,)), ("1-4", (1, 2, 3, 4)), ("1-9x4", (1, 5, 9)), ("-3--1 7,7", (-3, -2, -1, 7)),
        ):  # fmt: skip
            self.assertEqual(frames.parse_frames(text), found)
        self.assertEqual(frames.format_frames((1, 2, 3, 7, 9, 8)), "1-3 7-9")
        self.assertEqual(frames.parse_frames(frames.format_frames(range(-4, 90, 3))), tuple(range(-4, 90, 3)))

    def test_what_is_no_range_is_refused(self):
        for text in ("", "a", "3-1", "1-5x0", "1.5", "1-100001", "\u0661-\u0663x", "1-"):
            with self.subTest(text), self.assertRaises(BadParameter):
                frames.parse_frames(text)

    def test_the_expression_of_baked_frames(self):
        said = frames.baked_expression((1, 2, 3, 7))
        self.assertEqual(said, "(frame>=1&&frame<=3)||frame==7")
        self.assertEqual(frames.baked_expression(()), "0")


class Places(unittest.TestCase):
    def test_params8_is_the_same_on_every_python(self):
        self.assertEqual(paths.params8({"ev1": "-2", "ev2": "{curve x1 0 x50 1}", "pack": "merge"}), "8f7c826f")

    def test_a_place_and_back(self):
        pattern = paths.result_pattern("C:\\cache\\", "a1", {"a": "1"}, 2)
        self.assertTrue(pattern.startswith("C:/cache/a1/"))
        self.assertTrue(pattern.endswith("/out.%V.####.exr"))
        names = [paths.frame_path(pattern, n, view).rsplit("/", 1)[-1] for n in (-5, 7, 12345) for view in ("l", "r")]
        self.assertEqual(paths.frames_among([*names, "out.l.0008.exr", ".out.l.0009.exr.part"], pattern, ("l", "r")),
                         (-5, 7, 12345))  # fmt: skip

    def test_what_is_no_place(self):
        for root, bake_id in (("", "a"), (" ", "a"), ("/c", ""), ("/c", ".."), ("/c", "a/b"), ("/c", "a" * 65)):
            with self.subTest((root, bake_id)), self.assertRaises(BadParameter):
                paths.result_pattern(root, bake_id, {})


class Plans(unittest.TestCase):
    def test_a_gizmo_is_known_by_its_knobs(self):
        for gizmo in GIZMOS:
            self.assertIs(gizmo_of({gizmo.mark, "bake_id", "result_path"}), gizmo)
        self.assertIsNone(gizmo_of({"ev1"}))
        self.assertIsNone(gizmo_of({"bake_id", "result_path"}))

    def test_a_bracket(self):
        made = task("hdrfuse", BRACKET)
        self.assertEqual([(s.number, s.frame, s.ev) for s in made.sources], [(1, 1001, -2), (2, 1001, 0), (3, 1001, 2)])
        self.assertEqual(made.parameters, {"reference": 1})
        self.assertEqual(task("hdrfuse", BRACKET, (1, 3)).parameters, {"reference": 0})
        self.assertEqual(task("hdrfuse", BRACKET, reference="3").parameters, {"reference": 2})
        self.assertEqual(plan.plate_of({**BRACKET, "reference": "3"}, (1, 2, 3)), (2, 0))
        of_frames = task("hdrfuse", BRACKET, (1,), source="frames", exposures=2)
        self.assertEqual([(s.number, s.frame) for s in of_frames.sources], [(1, 1001), (1, 1002)])
        self.assertEqual(plan.plate_of({**BRACKET, "source": "frames", "reference": "2"}, (1,)), (0, 1))

    def test_a_bracket_that_cannot_be(self):
        for kind, connected, changes in (
            (BadInput, (1,), {}), (BadInput, (), {}), (BadInput, (2, 3), {"source": "frames"}),
            (BadParameter, (1, 2), {"exposures": 1}), (BadParameter, (1, 2), {"exposures": 8}),
            (BadParameter, (1, 2), {"reference": "3"}), (BadParameter, (1,), {"source": "frames", "offset2": 0}),
        ):  # fmt: skip
            with self.subTest(changes), self.assertRaises(kind):
                task("hdrfuse", BRACKET, connected, **changes)
        self.assertEqual(plan.plate_of(BRACKET, ()), (0, 0))

    def test_a_plate_and_a_prompt(self):
        self.assertEqual(task("sdr2hdr", PLATE, (1,)).parameters, {"clip_threshold": 250, "encoding": "srgb"})
        self.assertRaises(BadInput, task, "sdr2hdr", PLATE, ())
        drawn = task("txt2hdr", PROMPT, ())
        self.assertNotIn("strength", drawn.parameters)
        self.assertEqual((drawn.parameters["width"], drawn.parameters["height"]), (64, 32))
        self.assertEqual(task("txt2hdr", PROMPT, (1,)).parameters["strength"], 0.6)
        self.assertRaises(BadParameter, task, "txt2hdr", PROMPT, (), prompt="  ")

    def test_seeds_are_the_same_on_every_python(self):
        self.assertEqual([task("hdrfuse", BRACKET, frame=f).seed for f in (1001, 1002)], [259712840, 669447808])
        self.assertEqual(task("sdr2hdr", PLATE, mode="shot").seed, 7)
        self.assertEqual([task("txt2hdr", PROMPT, variation=v).seed for v in (1, 2)], [2**31 - 1, 0])
        self.assertRaises(BadParameter, task, "hdrfuse", BRACKET, seed=-1)

    def test_extra_parameters(self):
        said = plan.extra_parameters("steps=4 x=-0.5 fast=true off=false mode=soft e=1e3 far=inf bare=")
        self.assertEqual(said, {"steps": 4, "x": -0.5, "fast": True, "off": False, "mode": "soft", "e": 1000.0,
                                "far": "inf", "bare": ""})  # fmt: skip
        self.assertEqual([type(said[name]) for name in ("steps", "x", "fast", "e")], [int, float, bool, float])
        for text in ("steps", "=4", "a=1 b"):
            self.assertRaises(BadParameter, plan.extra_parameters, text)


class Headers(unittest.TestCase):
    def test_shape_channels_and_text(self):
        data = exr(hdrgen__key="abc", comment="\u00fc")
        self.assertEqual(exr_shape(data, "a.exr"), ((4, 6, 3), ("B", "G", "R")))
        self.assertEqual((exr_text(data, "hdrgen/key"), exr_text(data, "comment")), ("abc", "\u00fc"))
        self.assertIsNone(exr_text(data, "hdrgen/seed"))

    def test_every_cut_is_refused(self):
        data = exr(hdrgen__key="abc")
        header = len(data) - 4 * (8 + 8 + 4 * 3 * 6)
        self.assertEqual(exr_text(data[:header], "hdrgen/key"), "abc")
        for length in range(header):
            with self.assertRaises(BadInput):
                exr_shape(data[:length], "a.exr")
            with self.assertRaises(ValueError):
                exr_text(data[:length], "hdrgen/seed")

    def test_deep_and_multi_part_files_are_refused(self):
        for flag in (0x0800, 0x1000):
            data = bytearray(exr())
            data[4:8] = (int.from_bytes(data[4:8], "little") | flag).to_bytes(4, "little")
            with self.assertRaisesRegex(BadInput, "multi-part or deep"):
                exr_shape(bytes(data), "a.exr")
