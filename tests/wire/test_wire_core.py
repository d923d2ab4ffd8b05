"""The codec held to samples, vectors and every way of cutting a stream; plain unittest, so that 3.9 runs it too."""

# ruff: noqa: PT009, PT027

from __future__ import annotations

import json
import math
import random
import time
import unittest
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

from wire_samples import ACESCG, ALL_TYPES, BODY, FRAME, OPEN, RESULT, SAMPLES, wire_bytes

from nuke_hdrgen.wire import errors, rules, states
from nuke_hdrgen.wire import messages as m
from nuke_hdrgen.wire import worker_messages as w
from nuke_hdrgen.wire.capture import to_safetensors
from nuke_hdrgen.wire.codec import PREFIX_BYTES, encode, parse_header, parse_json, parse_prefix
from nuke_hdrgen.wire.limits import Limits
from nuke_hdrgen.wire.stream import Received, Receiver, Reused

VECTORS = Path(__file__).parents[1] / "vectors"


def feed(receiver: Receiver, data: bytes, sizes=None) -> list:
    """Everything that comes out of a receiver fed in pieces of the given sizes."""
    found, at = [], 0
    while at < len(data):
        size = next(sizes) if sizes else len(data)
        view = receiver.wanted()
        part = data[at : at + min(size, len(view))]
        view[: len(part)] = part
        received = receiver.advance(len(part))
        if received is not None:
            found.append(received)
        at += len(part)
    return found


class RoundTrip(unittest.TestCase):
    def test_every_message_has_a_sample_and_comes_back_equal(self):
        self.assertEqual({type(message) for message, _ in SAMPLES}, set(ALL_TYPES.values()))
        for message, body in SAMPLES:
            data = wire_bytes(message, body)
            prefix = parse_prefix(data[:PREFIX_BYTES], types=ALL_TYPES)
            header = data[PREFIX_BYTES : len(data) - len(body)]
            self.assertEqual(parse_header(prefix, header), message)
            self.assertEqual(prefix.body_length, len(body))

    def test_a_stream_in_any_pieces_is_the_same_stream(self):
        data = b"".join(wire_bytes(message, body) for message, body in SAMPLES)
        whole = feed(Receiver(types=ALL_TYPES), data)
        self.assertEqual([(r.message, bytes(r.body)) for r in whole], SAMPLES)
        for seed in range(8):
            draw = random.Random(seed)
            sizes = iter(lambda d=draw, s=seed: 1 if s == 0 else d.choice((1, 2, 7, 19, 20, 21, 500)), None)
            receiver = Receiver(types=ALL_TYPES)
            parts = feed(receiver, data, sizes)
            self.assertEqual([(r.message, bytes(r.body)) for r in parts], SAMPLES)
            receiver.finish()

    def test_a_message_cut_at_any_offset_is_truncated(self):
        data = wire_bytes(FRAME, BODY)
        for length in range(len(data)):
            receiver = Receiver()
            self.assertEqual(feed(receiver, data[:length]), [])
            if length:
                self.assertRaises(errors.Truncated, receiver.finish)
                self.assertFalse(receiver.between_messages)
            else:
                receiver.finish()
        self.assertRaises(errors.Truncated, parse_prefix, data[:19])
        self.assertRaises(errors.Truncated, parse_header, parse_prefix(data[:20]), data[20:30])

    def test_a_body_is_received_into_the_buffer_that_was_given(self):
        pool = bytearray(64)
        asked = []

        def allocate(message, length):
            asked.append((message, length))
            return memoryview(pool)[:length]

        (received,) = feed(Receiver(allocate=allocate), wire_bytes(FRAME, BODY))
        self.assertEqual(asked, [(FRAME, 48)])
        self.assertEqual(pool[:48], BODY)
        self.assertIsInstance(received, Received)

    def test_a_buffer_comes_again_only_when_nothing_refers_to_it(self):
        pool = Reused()
        receiver = Receiver(allocate=pool)
        data = wire_bytes(FRAME, BODY)
        (first,) = feed(receiver, data)
        part = first.body[-4:]
        del first
        (second,) = feed(receiver, wire_bytes(FRAME, bytes(48)))
        self.assertEqual(bytes(part), BODY[-4:], "a slice keeps the whole buffer")
        self.assertEqual(bytes(second.body), bytes(48))
        held = second.body.obj
        del second
        (third,) = feed(receiver, data)
        self.assertIs(third.body.obj, held)
        self.assertEqual(bytes(third.body), BODY)
        del part
        (small,) = feed(receiver, wire_bytes(replace(FRAME, shape=(1, 1, 3)), bytes(12)))
        (fourth,) = feed(receiver, data)
        self.assertEqual((small.body.nbytes, bytes(fourth.body), bytes(third.body)), (12, BODY, BODY))

    def test_frozen(self):
        with self.assertRaises(FrozenInstanceError):
            FRAME.ev = 1.0  # type: ignore[misc]

    def test_optional_fields_may_be_null(self):
        prefix_types = {9: m.Error}
        header = b'{"code":"busy","message":"m","id":null}'
        prefix = replace(parse_prefix(encode(m.Error("a", "b"))[:20], types=prefix_types), header_length=len(header))
        self.assertIsNone(parse_header(prefix, header).id)


class Vectors(unittest.TestCase):
    def test_every_vector_meets_its_error_in_50_ms(self):
        names = sorted(VECTORS.glob("*.bin"))
        self.assertGreater(len(names), 60)
        for path in names:
            expected = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            data = path.read_bytes()
            started = time.process_time()
            code, says = None, ""
            try:
                feed(Receiver(), data)
            except errors.ProtocolError as error:
                code, says = error.code, str(error)
            with self.subTest(path.stem):
                self.assertEqual(code, expected["error"], says)
                self.assertIn(expected["says"], says)
                self.assertLess(len(says), 400)
                self.assertNotIn("\n", says)
                self.assertLess(time.process_time() - started, 0.05)

    def test_the_worst_header_within_every_limit_parses_in_50_ms(self):
        text = b'{"x":[' + b",".join([b"0.1"] * 8000) + b'],"y":"' + b"\xe2\x98\x83" * 200000 + b'"}'
        took = []
        for _ in range(12):
            started = time.process_time()
            parse_json(text, "x")
            took.append(time.process_time() - started)
        self.assertLess(min(took), 0.05)


class Fields(unittest.TestCase):
    def refuse(self, message, body_length=0, says=""):
        with self.assertRaises(errors.InvalidMessage) as caught:
            encode(message, body_length)
        self.assertIn(says, str(caught.exception))

    def test_what_the_peer_would_refuse_is_not_sent(self):
        self.refuse(m.End(""), says="end.id")
        self.refuse(m.End("j"), 5, "does not belong")
        self.refuse(replace(FRAME, ev=math.nan), 48, "finite")
        self.refuse(replace(FRAME, ev=math.inf), 48, "finite")
        self.refuse(replace(FRAME, number=2**31), 48, "whole number")
        self.refuse(FRAME, 47, "needs 48 bytes")
        self.refuse(replace(FRAME, format="exr"), 0, "empty")
        self.refuse(replace(FRAME, format="exr", channels=("R",)), 9, "do not fit")
        self.refuse(replace(RESULT, sha256="A" * 64), 48, "hexadecimal")
        self.refuse(replace(RESULT, warnings=("x" * 5000,)), 48, "at most")
        self.refuse(replace(OPEN, parameters={"a": [1]}), says="text, a finite number")
        self.refuse(replace(OPEN, parameters={"a": math.inf}), says="text, a finite number")
        self.refuse(replace(OPEN, parameters=[1]), says="an object")
        self.refuse(replace(OPEN, output="lin"), says="an object")
        self.refuse(replace(OPEN, aovs=1), says="true or false")
        self.refuse(m.Health(True, True, {"a": 1}, 0.0, m.QueueInfo(0, 0), 0), says="true or false")
        self.refuse(m.Done("j", 1, -1.0), says="finite number")
        self.refuse(w.WSlot("j", "../etc/passwd", 4), says="slot")
        self.refuse(w.WFrame(FRAME, "slot-1", 47), says="needs 48 bytes")
        self.refuse(w.WResult(RESULT, "slot-1", 47, 1), says="needs 48 bytes")
        self.refuse(m.Error("x", "m", {"a": math.nan}), says="JSON")
        self.refuse(m.Error("x", "m", {"a": object()}), says="JSON")
        self.refuse(m.Error("x", "m", {"a": "\ud800"}), says="JSON")

    def test_a_log_line_is_bounded_and_keeps_secrets(self):
        line = str(m.Hello("s", "c", token="secret-token"))
        self.assertNotIn("secret-token", line)
        self.assertIn("***", line)
        self.assertIn("interop_id='lin_ap1_scene'", str(FRAME))
        long = replace(OPEN, parameters={f"k{i}": "p" * 5000 for i in range(200)}, attributes={"a": "b" * 9000})
        for message in (
            long,
            m.Error("x", "y" * 4000),
            replace(RESULT, warnings=("w" * 4000,) * 60),
            w.WOpen(long, "d"),
        ):
            self.assertLessEqual(len(str(message)), 400)
        self.assertTrue(str(m.Open("j" * 64, "o" * 64, 1, m.Colourspace("n" * 256, "i" * 64, None), "p" * 64)))

    def test_errors_travel(self):
        busy = errors.Busy("full; try again in 2 s", retry_after_s=2.0)
        back = m.Error.of(busy, "j").exception()
        self.assertIsInstance(back, errors.Busy)
        self.assertEqual((back.message, back.details), (busy.message, busy.details))
        newer = m.Error("of_tomorrow", "m", {"message": 1, "self": 2, "code": 3}).exception()
        self.assertIs(type(newer), errors.HDRGenError)
        self.assertEqual(newer.details, {"message": 1, "self": 2, "code": 3})

    def test_every_code_is_unique_and_has_an_exit_status(self):
        self.assertEqual(len(errors.CODES), 25)
        for code, cls in errors.CODES.items():
            self.assertEqual(cls("m").code, code)
            self.assertIn(cls.exit_status, (1, 2, 3, 4, 5, 130))

    def test_limits_are_checked_before_anything_is_received(self):
        tight = Limits(header_bytes=10, frame_bytes=47, hello_bytes=30)
        for message, body in ((FRAME, BODY), (m.End("j" * 20), b""), (m.Hello("s", "c"), b"")):
            with self.assertRaises(errors.TooLarge):
                parse_prefix(wire_bytes(message, body)[:20], tight)
        self.assertRaises(errors.TooLarge, parse_prefix, wire_bytes(FRAME, BODY)[:20], Limits(frame_bytes=47))
        self.assertEqual(Limits().as_numbers()["header_depth"], 8)
        self.assertEqual(encode(m.Welcome("0", 1, Limits().as_numbers(), m.QueueInfo(0, 1)))[:4], b"HDRG")

    def test_a_record_without_rules_between_fields_has_no_problem(self):
        self.assertEqual(rules.Record().problem(), "")


class States(unittest.TestCase):
    def walk(self, table, every_event):
        seen = {s for s, _ in table} | set(table.values())
        for state in seen:
            for event in every_event:
                expected = table.get((state, event))
                if expected is None:
                    self.assertRaises(errors.InvalidMessage, states.follow, table, state, event)
                else:
                    self.assertEqual(states.follow(table, state, event), expected)
                    self.assertIn(expected, seen)
        self.assertLessEqual({event for _, event in table}, set(every_event))
        return seen

    def test_every_pair_of_state_and_event(self):
        client = [kind.NAME for kind in m.MESSAGES]
        worker = [kind.NAME for kind in w.WORKER_MESSAGES]
        self.assertEqual(self.walk(states.CONNECTION, client), {"greeting", "answering", "ready", "closed"})
        job = {"new", "uploading", "working", "cancelling", "ended"}
        self.assertEqual(self.walk(states.JOB, client), job)
        self.assertEqual(self.walk(states.WORKER_JOB, worker), job)

    def test_what_the_protocol_promises(self):
        for state in ("new", "uploading", "working", "cancelling", "ended"):
            for event in ("cancel", "w_cancel"):
                table = states.JOB if event == "cancel" else states.WORKER_JOB
                once = states.follow(table, state, event)
                self.assertEqual(states.follow(table, once, event), once, "cancel is idempotent")
        for event in ("progress", "result", "done", "error"):
            self.assertNotIn(("ended", event), states.JOB, "exactly one end")
        self.assertNotIn(("uploading", "done"), states.JOB)
        self.assertEqual({event for (state, event) in states.CONNECTION if state == "greeting"}, {"hello", "error"})


class Captures(unittest.TestCase):
    def test_the_file_is_safetensors(self):
        for message, body in SAMPLES:
            data = b"".join(bytes(part) for part in to_safetensors(message, body))
            length = int.from_bytes(data[:8], "little")
            header = json.loads(data[8 : 8 + length])
            self.assertEqual(length % 8, 0)
            self.assertEqual(data[8 + length :], body)
            self.assertEqual(header["__metadata__"]["type"], message.NAME)
            self.assertNotIn("secret-token", header["__metadata__"]["message"])
            self.assertEqual("body" in header, bool(body))
        raw = json.loads(bytes(to_safetensors(FRAME, BODY)[0])[8:])
        self.assertEqual(raw["body"], {"dtype": "F32", "shape": [2, 2, 3], "data_offsets": [0, 48]})

    def test_colourspace_sample_is_understood(self):
        self.assertEqual(ACESCG.problem(), "")


if __name__ == "__main__":
    unittest.main()
