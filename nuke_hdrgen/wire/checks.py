"""What a header field may hold: small checkers that a message's fields name.

It owns types and ranges of single values. It must not know which messages exist.
"""

from __future__ import annotations

import math
import re
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

from nuke_hdrgen.wire.errors import InvalidMessage

Check = Callable[[str, Any], Any]
LARGEST = 2**53


def _wrong(name: str, wanted: str, value: Any) -> InvalidMessage:
    shown = repr(value)
    return InvalidMessage(f"{name} must be {wanted}, got {shown if len(shown) <= 60 else shown[:57] + '...'}")


def text(shortest: int = 0, longest: int = 65536) -> Check:
    """A string of a length."""

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or not shortest <= len(value) <= longest:
            raise _wrong(name, f"text of {shortest} to {longest} characters", value)
        return value

    return check


def identifier(name: str, value: Any) -> str:
    """1 to 64 printable ASCII characters without spaces, slashes or quotes."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_.:@+-]{1,64}", value):
        raise _wrong(name, "1 to 64 characters of A-Z a-z 0-9 _ . : @ + -", value)
    return value


def integer(lowest: int = 0, highest: int = LARGEST) -> Check:
    """An integer in a range."""

    def check(name: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise _wrong(name, f"an integer from {lowest} to {highest}", value)
        return value

    return check


def real(lowest: float = -1e30, highest: float = 1e30) -> Check:
    """A finite number in a range, as float."""

    def check(name: str, value: Any) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            raise _wrong(name, "a finite number", value)
        if not lowest <= value <= highest:
            raise _wrong(name, f"a number from {lowest} to {highest}", value)
        return float(value)

    return check


def flag(name: str, value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise _wrong(name, "true or false", value)
    return value


def one_of(*allowed: str) -> Check:
    """One of a few words."""

    def check(name: str, value: Any) -> str:
        if value not in allowed or not isinstance(value, str):
            raise _wrong(name, "one of " + ", ".join(repr(a) for a in allowed), value)
        return value

    return check


def optional(inner: Check) -> Check:
    """What `inner` takes, or null."""

    def check(name: str, value: Any) -> Any:
        return None if value is None else inner(name, value)

    return check


def sequence(inner: Check, shortest: int = 0, longest: int = 4096) -> Check:
    """A list, as tuple."""

    def check(name: str, value: Any) -> Tuple[Any, ...]:
        if not isinstance(value, (list, tuple)) or not shortest <= len(value) <= longest:
            raise _wrong(name, f"a list of {shortest} to {longest}", value)
        return tuple(inner(f"{name}[{i}]", item) for i, item in enumerate(value))

    return check


def mapping(inner: Optional[Check] = None) -> Check:
    """An object with text keys; its values as `inner` takes them, or any JSON."""

    def check(name: str, value: Any) -> Dict[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(k, str) for k in value):
            raise _wrong(name, "an object", value)
        return {k: inner(f"{name}.{k}", v) if inner else v for k, v in value.items()}

    return check


def scalar(name: str, value: Any) -> Any:
    """A number, text or flag."""
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong(name, "finite", value)
    if not isinstance(value, (str, int, float, bool)):
        raise _wrong(name, "a number, text or flag", value)
    return value
