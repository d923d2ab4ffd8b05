"""The key of a result is the same on every Python, and a request keeps it over a real socket."""

from __future__ import annotations

import shutil
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

from nuke_hdrgen.client.address import Endpoint, parse_address
from nuke_hdrgen.client.connection import connect
from nuke_hdrgen.client.job import run_job
from nuke_hdrgen.wire import errors
from nuke_hdrgen.wire import messages as m
from nuke_hdrgen.wire.identity import exr_chunks_at, input_hash, input_identity, result_key
from tests.portable.bare_sidecar import PACKS, BareSidecar, exr

LINEAR = m.Colourspace("scene_linear", "lin_rec709_scene")
OWN = m.Colourspace("camera", chromaticities=(0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329))
RAW = m.Frame("j", 0, 1001, "f32", (1, 2, 3), ("R", "G", "B"), OWN, 1 / 3)
EXR = replace(RAW, format="exr", shape=(4, 6, 3), channels=())
OPEN = m.Open(
    "j", "hdrfuse", 1, LINEAR, "merge",
    {"tiny": 1e-7, "tenth": 0.1, "whole": 3, "prompt": "a \u2603\n\U0001f319", "flag": False, "large": 1e22}, 2**31 - 1,
    attributes={"frame": 1001},
)  # fmt: skip

# A changed key would make every bake of a shot stale.
RAW_IDENTITY = "b1ae5ae6a1eb212d68ff5d24ca1339ab916fcf14bb1116c7d7be36440aa07ea6"
EXR_IDENTITY = "a4022e964842d6de42f2180b117a6ce76ca036d71dd4cd744142ec5b6ba7d898"
KEY = "9434574eb7d8be24f0389a1331df3386ee6ce83d6f9353b0e4880d61097fa1ba"


class Identity(unittest.TestCase):
    def test_the_same_on_every_python(self):
        self.assertEqual(input_identity(RAW, bytes(range(24))), RAW_IDENTITY)
        self.assertEqual(input_identity(EXR, exr()), EXR_IDENTITY)
        self.assertEqual(result_key(OPEN, "d", 3, OWN, ["h", "i"], 1), KEY)

    def test_an_exr_is_its_pixels_whoever_wrote_it(self):
        plain, signed = exr(), exr(hdrgen__key="k" * 64, owner="someone")
        self.assertNotEqual(plain, signed)
        self.assertEqual(input_hash(EXR, plain), input_hash(EXR, memoryview(signed)))
        self.assertEqual(input_identity(EXR, plain), input_identity(EXR, bytearray(signed)))
        self.assertNotEqual(input_identity(EXR, plain), input_identity(EXR, exr(0.25)))

    def test_an_exr_cut_in_its_header_is_refused(self):
        whole = exr(hdrgen__key="k")
        for length in range(exr_chunks_at(whole)):
            with self.assertRaises(errors.BadInput):
                input_identity(EXR, whole[:length])

    def test_everything_that_decides_pixels_is_in_the_key(self):
        key = result_key(OPEN, "d", 3, OWN, ["h"], 0)
        others = [
            result_key(replace(OPEN, seed=1), "d", 3, OWN, ["h"], 0),
            result_key(replace(OPEN, quality="final"), "d", 3, OWN, ["h"], 0),
            result_key(replace(OPEN, parameters={}), "d", 3, OWN, ["h"], 0),
            result_key(OPEN, "e", 3, OWN, ["h"], 0),
            result_key(OPEN, "d", 4, OWN, ["h"], 0),
            result_key(OPEN, "d", 3, LINEAR, ["h"], 0),
            result_key(OPEN, "d", 3, OWN, ["h", "h"], 0),
            result_key(OPEN, "d", 3, OWN, ["h"], 1),
        ]
        self.assertEqual(len({key, *others}), 9)
        self.assertEqual(
            key, result_key(replace(OPEN, id="k", attributes={}, provenance="none"), "d", 3, OWN, ["h"], 0)
        )

    def test_both_ends_of_a_socket_compute_one_key(self):
        folder = tempfile.mkdtemp(prefix="hdrgen-")
        self.addCleanup(shutil.rmtree, folder)
        body = exr()
        with BareSidecar(Path(folder, "s")) as sidecar:
            endpoint = Endpoint(parse_address(sidecar.address), named=True)
            with connect(endpoint, "session") as connection:
                ((result, said),) = run_job(connection, OPEN, [(EXR, body)])
                said = bytes(said)
        pack = PACKS[0]
        key = result_key(OPEN, pack.digest, pack.revision, LINEAR, [input_identity(EXR, body)], 0)
        self.assertEqual(result.key, key)
        self.assertIn(key.encode(), said)
