"""The codec: a message becomes a prefix and a header, and bytes become a checked message; no I/O.

It owns the 20-byte prefix and strict JSON, and checks every size before anything is allocated or parsed. It must not
know sockets, files or what messages mean.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, NoReturn, Tuple, Type, Union, cast

from nuke_hdrgen.wire.errors import InvalidMessage, TooLarge, Truncated, VersionMismatch
from nuke_hdrgen.wire.limits import Limits
from nuke_hdrgen.wire.messages import TYPES, WIRE, WIRE_MAJOR, WIRE_MINOR, Hello, Message
from nuke_hdrgen.wire.rules import build, plain

MAGIC = b"HDRG"
PREFIX = struct.Struct("<4sBBHIQ")
PREFIX_BYTES = PREFIX.size
DEFAULT_LIMITS = Limits()

_INTEGER_CHARACTERS = 20
_FLOAT_CHARACTERS = 64

Buffer = Union[bytes, bytearray, memoryview]
Types = Mapping[int, Type[Message]]


@dataclass(frozen=True)
class Prefix:
    """The checked first 20 bytes of a message: its class, and how many bytes of header and body follow."""

    kind: Type[Message]
    minor: int
    header_length: int
    body_length: int


def encode(message: Message, body_length: int = 0) -> bytes:
    """Prefix and header of a message; its body of `body_length` bytes is sent after them, as it is.

    Raises InvalidMessage when a field, or the body's length, is not what the peer would accept.
    """
    fields = plain(message)
    build(type(message), fields, message.NAME)
    problem = message.body_problem(body_length)
    if problem:
        raise InvalidMessage(f"{message.NAME}: {problem}")
    try:
        text = json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        header = text.encode("utf-8")
    except (TypeError, ValueError) as error:
        raise InvalidMessage(f"{message.NAME}: a field cannot be written as JSON ({type(error).__name__})") from error
    return PREFIX.pack(MAGIC, WIRE_MAJOR, WIRE_MINOR, message.TYPE, len(header), body_length) + header


def parse_prefix(data: Buffer, limits: Limits = DEFAULT_LIMITS, types: Types = TYPES) -> Prefix:
    """Check a message's first 20 bytes before anything else of it is received.

    `types` are the messages that this connection carries. Raises Truncated, InvalidMessage, VersionMismatch (naming
    both versions) or TooLarge.
    """
    if len(data) != PREFIX_BYTES:
        raise Truncated(f"a message starts with {PREFIX_BYTES} bytes, got {len(data)}")
    magic, major, minor, number, header_length, body_length = PREFIX.unpack(data)
    if magic != MAGIC:
        raise InvalidMessage("the peer does not speak this protocol; check the address")
    if major != WIRE_MAJOR:
        raise VersionMismatch(f"the peer speaks wire {major}.{minor}, this side {WIRE}; update the older of the two")
    kind = types.get(number)
    if kind is None:
        raise InvalidMessage(f"unknown message type {number}")
    longest = limits.hello_bytes - PREFIX_BYTES if kind is Hello else limits.header_bytes
    if header_length > longest:
        raise TooLarge(f"{kind.NAME}: a header of {header_length} bytes is over the limit of {longest}")
    if body_length > limits.frame_bytes:
        raise TooLarge(f"{kind.NAME}: a body of {body_length} bytes is over the limit of {limits.frame_bytes}")
    if (body_length > 0) != kind.BODY:
        raise InvalidMessage(f"{kind.NAME}: a body of {body_length} bytes does not belong here")
    return Prefix(kind, minor, header_length, body_length)


def parse_header(prefix: Prefix, data: Buffer, limits: Limits = DEFAULT_LIMITS) -> Message:
    """The message that a prefix and its header say. Raises Truncated or InvalidMessage."""
    if len(data) != prefix.header_length:
        raise Truncated(f"{prefix.kind.NAME}: a header of {prefix.header_length} bytes ended after {len(data)}")
    message = build(prefix.kind, parse_json(bytes(data), prefix.kind.NAME, limits), prefix.kind.NAME)
    problem = message.body_problem(prefix.body_length)
    if problem:
        raise InvalidMessage(f"{prefix.kind.NAME}: {problem}")
    return message


def parse_json(data: bytes, where: str, limits: Limits = DEFAULT_LIMITS) -> object:
    """One JSON value, strictly: bounded in depth, keys, items and digits; no NaN, no Infinity, no duplicate keys.

    Separators are counted first, so that whatever the bytes are the work stays small. Raises InvalidMessage.
    """
    containers = data.count(b"{") + data.count(b"[")
    items = data.count(b",") + data.count(b":")
    if containers > limits.header_containers or items > limits.header_items:
        raise InvalidMessage(f"{where}: the header has too many parts")

    def unique(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
        found = dict(pairs)
        if len(pairs) > limits.header_keys:
            raise InvalidMessage(f"{where}: an object has more than {limits.header_keys} keys")
        if len(found) != len(pairs):
            raise InvalidMessage(f"{where}: an object has a key twice")
        return found

    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=unique,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
    except (ValueError, RecursionError) as error:
        raise InvalidMessage(f"{where}: the header is not JSON that this protocol allows") from error
    _check_tree(value, where, limits.header_depth)
    return value


def _integer(digits: str) -> int:
    if len(digits) > _INTEGER_CHARACTERS:
        raise ValueError("an integer is too long")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits) if len(digits) <= _FLOAT_CHARACTERS else float("inf")
    if value in (float("inf"), float("-inf")):
        raise ValueError("a number is too long or too large")
    return value


def _constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def _check_tree(value: object, where: str, depth_left: int) -> None:
    """Refuse what nests too deep and text that no UTF-8 can hold."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidMessage(f"{where}: text holds a lone surrogate") from error
    elif isinstance(value, (dict, list)):
        if depth_left == 0:
            raise InvalidMessage(f"{where}: the header nests too deep")
        if isinstance(value, dict):
            for key, item in cast(Dict[str, object], value).items():
                _check_tree(key, where, depth_left)
                _check_tree(item, where, depth_left - 1)
        else:
            for item in cast(List[object], value):
                _check_tree(item, where, depth_left - 1)
