"""Writes the vectors: NAME.bin is what a peer sends, NAME.json which error it must meet (null: none) and its words.

Run it after a change of the protocol; the files are kept so that other implementations can be held to them.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent / "wire")]

Vector = tuple[bytes, str | None, str]


def raw(header: bytes, kind: int = 5, body: int = 0, magic: bytes = b"HDRG", major: int = 1, minor: int = 0) -> bytes:
    """A message from parts, right or wrong."""
    return struct.pack("<4sBBHIQ", magic, major, minor, kind, len(header), body) + header


def picture(**changes: object) -> bytes:
    """The header of a raw 2x2 RGB frame with some fields changed; None leaves a field out."""
    fields: dict[str, object] = {
        "id": "j", "index": 0, "number": 1, "format": "f32", "shape": [2, 2, 3], "channels": ["R", "G", "B"],
        "colourspace": {"name": "linear", "interop_id": "lin_rec709_scene"}, "ev": 0,
    }  # fmt: skip
    fields.update(changes)
    return json.dumps({k: v for k, v in fields.items() if v is not None}).encode()


def frame(body: int = 48, **changes: object) -> bytes:
    """A whole frame message."""
    return raw(picture(**changes), 4, body) + bytes(min(body, 64))


def welcome(pack: dict[str, object]) -> bytes:
    """A welcome with one pack."""
    queue = {"depth": 0, "limit": 64}
    fields = {"package": "0.1.0", "pid": 1, "limits": {}, "queue": queue, "packs": [pack], "wire": "1.0"}
    return raw(json.dumps(fields).encode(), 2)


INVALID = "invalid_message"
PACK: dict[str, object] = {
    "name": "p", "system": "lumivid", "digest": "d", "revision": 1, "operations": ["sdr2hdr"], "preview": False,
    "licence": "Apache-2.0", "licence_ok": True,
}  # fmt: skip
VECTORS: dict[str, Vector] = {
    "magic": (raw(b'{"id":"j"}', magic=b"GET "), INVALID, "does not speak"),
    "major": (raw(b'{"id":"j"}', major=2), "version_mismatch", "2.0"),
    "minor-newer": (raw(b'{"id":"j","later":{"a":[1]}}', minor=9), None, ""),
    "type-unknown": (raw(b"{}", 999), INVALID, "unknown message type"),
    "type-of-worker": (raw(b'{"id":"j"}', 67), INVALID, "unknown message type"),
    "header-too-long": (struct.pack("<4sBBHIQ", b"HDRG", 1, 0, 5, 2**32 - 1, 0), "too_large", "header"),
    "hello-too-long": (struct.pack("<4sBBHIQ", b"HDRG", 1, 0, 1, 65536, 0), "too_large", "header"),
    "body-too-long": (struct.pack("<4sBBHIQ", b"HDRG", 1, 0, 4, 2, 2**64 - 1), "too_large", "body"),
    "body-unwanted": (raw(b'{"id":"j"}', 5, 8), INVALID, "does not belong"),
    "body-missing": (raw(picture(), 4, 0), INVALID, "does not belong"),
    "header-empty": (raw(b""), INVALID, "JSON"),
    "header-no-object": (raw(b'["id"]'), INVALID, "must be an object"),
    "header-not-json": (raw(b"{'id':1}"), INVALID, "JSON"),
    "header-not-utf8": (raw(b'{"id":"\xff"}'), INVALID, "JSON"),
    "header-trailing": (raw(b'{"id":"j"} x'), INVALID, "JSON"),
    "json-nan": (raw(b'{"id":"j","x":NaN}'), INVALID, "JSON"),
    "json-infinity": (raw(b'{"id":"j","x":-Infinity}'), INVALID, "JSON"),
    "json-1e999": (raw(b'{"id":"j","x":1e999}'), INVALID, "JSON"),
    "json-long-float": (raw(b'{"id":"j","x":0.' + b"1" * 10000 + b"}"), INVALID, "JSON"),
    "json-huge-integer": (raw(b'{"id":"j","x":' + b"9" * 200000 + b"}"), INVALID, "JSON"),
    "json-duplicate": (raw(b'{"id":"j","id":"k"}'), INVALID, "twice"),
    "json-duplicate-inside": (raw(b'{"id":"j","x":[{"a":1,"a":2}]}'), INVALID, "twice"),
    "json-depth-9": (raw(b'{"id":"j","x":' + b"[" * 8 + b"]" * 8 + b"}"), INVALID, "deep"),
    "json-depth-8": (raw(b'{"id":"j","x":' + b"[" * 7 + b"]" * 7 + b"}"), None, ""),
    "json-depth-4000": (raw(b"[" * 4000), INVALID, "JSON"),
    "json-depth-100000": (raw(b"[" * 100000), INVALID, "too many parts"),
    "json-keys-257": (raw(json.dumps({"id": "j", **{f"k{i}": i for i in range(256)}}).encode()), INVALID, "256 keys"),
    "json-keys-256": (raw(json.dumps({"id": "j", **{f"k{i}": i for i in range(255)}}).encode()), None, ""),
    "json-items": (raw(b'{"id":"j","x":[' + b"0," * 50000 + b"0]}"), INVALID, "too many parts"),
    "json-surrogate": (raw(b'{"id":"j","x":"\\ud800"}'), INVALID, "surrogate"),
    "json-surrogate-key": (raw(b'{"id":"j","\\udfff":1}'), INVALID, "surrogate"),
    "json-surrogate-pair": (raw(b'{"id":"j","x":"\\ud83d\\ude00"}'), None, ""),
    "field-missing": (raw(b"{}"), INVALID, "missing"),
    "field-null": (raw(b'{"id":null}'), INVALID, "text"),
    "field-type": (raw(b'{"id":7}'), INVALID, "text"),
    "id-empty": (raw(b'{"id":""}'), INVALID, "1 to 64"),
    "id-long": (raw(json.dumps({"id": "j" * 65}).encode()), INVALID, "1 to 64"),
    "id-control": (raw(b'{"id":"a\\nb"}'), INVALID, "printable"),
    "bool-as-integer": (frame(index=True), INVALID, "whole number"),
    "float-as-integer": (frame(index=1.0), INVALID, "whole number"),
    "index-negative": (frame(index=-1), INVALID, "whole number"),
    "frame": (frame(), None, ""),
    "frame-body-short": (frame(47), INVALID, "needs 48 bytes"),
    "frame-body-long": (frame(49), INVALID, "needs 48 bytes"),
    "frame-shape-negative": (frame(shape=[-2, -2, 3]), INVALID, "whole number"),
    "frame-shape-overflow": (frame(shape=[65536, 65536, 4], channels=["R", "G", "B", "A"]), INVALID, "needs"),
    "frame-shape-huge": (frame(shape=[2**31, 2**31, 1]), INVALID, "whole number"),
    "frame-shape-zero": (frame(shape=[0, 2, 3]), INVALID, "whole number"),
    "frame-shape-flat": (frame(shape=[4, 3]), INVALID, "list"),
    "frame-two-channels": (frame(32, shape=[2, 2, 2], channels=["R", "G"]), INVALID, "1, 3 or 4"),
    "frame-channel-names": (frame(channels=["R"]), INVALID, "do not fit"),
    "frame-format": (frame(format="png"), INVALID, "one of"),
    "frame-ev-text": (frame(ev="1"), INVALID, "finite number"),
    "frame-ev-far": (frame(ev=1e300), INVALID, "finite number"),
    "frame-no-colourspace": (frame(colourspace=None), INVALID, "missing"),
    "frame-name-only": (frame(colourspace={"name": "linear"}), INVALID, "interop_id or chromaticities"),
    "frame-seven-chromaticities": (frame(colourspace={"name": "", "chromaticities": [0.3] * 7}), INVALID, "list"),
    "frame-chromaticities": (frame(colourspace={"name": "", "chromaticities": [0.3] * 8}), None, ""),
    "frame-range": (frame(colourspace={"name": "", "interop_id": "x", "range": "video"}), INVALID, "one of"),
    "welcome-pack-without-window": (welcome(PACK), None, ""),
    "welcome-pack-overlap-negative": (welcome({**PACK, "window": 9, "overlap": -1}), INVALID, "whole number"),
    "error-details-deep": (raw(b'{"code":"x","message":"m","details":{"a":{"b":[1]}}}', 9), None, ""),
}


def main() -> None:
    """Write every vector, and one valid message of each type."""
    from wire_samples import SAMPLES, wire_bytes

    from nuke_hdrgen.wire.messages import TYPES

    valid = {
        f"valid-{message.NAME}-{i:02}": (wire_bytes(message, body), None, "")
        for i, (message, body) in enumerate(SAMPLES)
        if message.TYPE in TYPES
    }
    for name, (data, error, says) in {**VECTORS, **valid}.items():
        (HERE / f"{name}.bin").write_bytes(data)
        (HERE / f"{name}.json").write_text(json.dumps({"error": error, "says": says}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
