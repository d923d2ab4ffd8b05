"""The codec: a message to bytes, and bytes to a message. No I/O, so one codec serves both sides of every socket.

It owns the prefix, strict JSON and the order of checks (sizes before parsing, parsing before meaning). It must not know
what the messages are for. Whatever bytes come in, the outcome is a message or a ProtocolError.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Tuple, Type

from nuke_hdrgen.wire.errors import InvalidMessage, TooLarge, VersionMismatch
from nuke_hdrgen.wire.limits import Limits
from nuke_hdrgen.wire.messages import TYPES, Message, WithBody

MAGIC = b"HDRG"
MAJOR, MINOR = 1, 0
VERSION = f"{MAJOR}.{MINOR}"
_PREFIX = struct.Struct("<4sBBHIQ")
PREFIX_BYTES = _PREFIX.size
DEFAULT_LIMITS = Limits()
_INTEGER_DIGITS = 19


@dataclass(frozen=True)
class Prefix:
    """The fixed first 20 bytes of a message."""

    type: int
    minor: int
    header_length: int
    body_length: int


def encode(message: Message, body_length: int = 0) -> bytes:
    """Prefix and header of a message; its body, `body_length` bytes, follows on the wire unchanged."""
    header = json.dumps(message.to_header(), separators=(",", ":"), allow_nan=False).encode("ascii")
    return _PREFIX.pack(MAGIC, MAJOR, MINOR, message.TYPE, len(header), body_length) + header


def parse_prefix(data: bytes, limits: Limits = DEFAULT_LIMITS, types: Mapping[int, Type[Message]] = TYPES) -> Prefix:
    """Check the first 20 bytes of a message of one of `types`.

    Raises InvalidMessage, VersionMismatch or TooLarge; nothing has been allocated yet.
    """
    if len(data) != PREFIX_BYTES:
        raise InvalidMessage(f"a message prefix has {PREFIX_BYTES} bytes, got {len(data)}")
    magic, major, minor, kind, header_length, body_length = _PREFIX.unpack(data)
    if magic != MAGIC:
        raise InvalidMessage("this is not an hdrgen message; does the address belong to another program?")
    if major != MAJOR:
        raise VersionMismatch(f"the peer speaks wire {major}.{minor}, this side {VERSION}; update the older side")
    if kind not in types:
        raise InvalidMessage(f"unknown message type {kind}")
    if header_length > limits.header_bytes:
        raise TooLarge(f"a header of {header_length} bytes is over the limit of {limits.header_bytes}")
    if body_length > limits.body_bytes:
        raise TooLarge(f"a body of {body_length} bytes is over the limit of {limits.body_bytes}")
    if body_length and not issubclass(types[kind], WithBody):
        raise InvalidMessage(f"a {types[kind].NAME} message carries no body, got {body_length} bytes")
    return Prefix(kind, minor, header_length, body_length)


def parse_header(
    prefix: Prefix, data: bytes, limits: Limits = DEFAULT_LIMITS, types: Mapping[int, Type[Message]] = TYPES
) -> Message:
    """The message of a header. Raises InvalidMessage."""
    if len(data) != prefix.header_length:
        raise InvalidMessage(f"the prefix promised {prefix.header_length} header bytes, got {len(data)}")
    kind = types[prefix.type]
    message = kind.from_header(parse_json(data, limits))
    if isinstance(message, WithBody):
        message.check_body(prefix.body_length)
    return message


def parse_json(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Dict[str, Any]:
    """A strict JSON object: UTF-8, no NaN or Infinity, no duplicate keys, bounded depth, keys, integers and text."""
    depth = _depth(data)
    if depth > limits.json_depth:
        raise InvalidMessage(f"a header nests {depth} deep, over the limit of {limits.json_depth}")

    def pairs(items: List[Tuple[str, Any]]) -> Dict[str, Any]:
        if len(items) > limits.json_keys:
            raise InvalidMessage(f"an object of {len(items)} keys is over the limit of {limits.json_keys}")
        found = dict(items)
        if len(found) != len(items):
            raise InvalidMessage("a header repeats a key")
        return found

    try:
        value = json.loads(
            bytes(data).decode("utf-8"),
            object_pairs_hook=pairs,
            parse_constant=_refuse_constant,
            parse_int=_bounded_integer,
            parse_float=_finite_float,
        )
    except (ValueError, RecursionError) as error:
        raise InvalidMessage("a header is not valid JSON") from error
    if not isinstance(value, dict):
        raise InvalidMessage("a header must be a JSON object")
    _check_text(value, limits.text_characters)
    return value


def _depth(data: bytes) -> int:
    """The deepest nesting of brackets outside strings, found without recursion."""
    deepest = depth = 0
    in_text = escaped = False
    for byte in data:
        if in_text:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_text = False
        elif byte == 0x22:
            in_text = True
        elif byte in (0x5B, 0x7B):
            depth += 1
            deepest = max(deepest, depth)
        elif byte in (0x5D, 0x7D):
            depth -= 1
    return deepest


def _refuse_constant(name: str) -> Any:
    raise InvalidMessage(f"a header holds {name}, which JSON does not allow")


def _bounded_integer(text: str) -> int:
    if len(text) > _INTEGER_DIGITS:
        raise InvalidMessage("a header holds an integer of more than 64 bits")
    return int(text)


def _finite_float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise InvalidMessage("a header holds a number beyond float64")
    return value


def _check_text(value: Any, longest: int) -> None:
    if isinstance(value, str):
        if len(value) > longest:
            raise InvalidMessage(f"a text of {len(value)} characters is over the limit of {longest}")
        if any("\ud800" <= c <= "\udfff" for c in value):
            raise InvalidMessage("a header holds a lone surrogate")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(key, longest)
            _check_text(item, longest)
    elif isinstance(value, list):
        for item in value:
            _check_text(item, longest)
