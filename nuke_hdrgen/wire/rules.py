"""Strict checks of JSON values, one small rule for each kind, put together as tables in dataclass fields.

It owns how a value is checked and how a record becomes plain JSON. It must not know any message or byte layout.
"""

from __future__ import annotations

import re
import reprlib
from dataclasses import MISSING, Field, fields
from functools import cache
from math import inf, isfinite
from typing import Any, Callable, ClassVar, Dict, List, Mapping, Tuple, Type, TypeVar, cast

from nuke_hdrgen.wire.errors import InvalidMessage

Rule = Callable[[object, str], Any]

INTEGER_MAX = 2**63 - 1


class Record:
    """Base of every dataclass whose fields carry a rule; subclasses are frozen."""

    SECRET: ClassVar[Tuple[str, ...]] = ()

    def problem(self) -> str:
        """What is wrong between fields, or "" when nothing is."""
        return ""

    def __str__(self) -> str:
        """One bounded line for logs: long values are elided and secrets are never shown."""
        shown = (
            f"{name}={'***' if name in self.SECRET else _shown(getattr(self, name))}"
            for name, _, _ in _table(type(self))
            if getattr(self, name) is not None
        )
        line = f"{type(self).__name__}({', '.join(shown)})"
        return line if len(line) <= 400 else f"{line[:396]}...)"


R = TypeVar("R", bound=Record)


def ruled(rule: Rule) -> Mapping[str, Rule]:
    """Metadata for `dataclasses.field` that carries a rule."""
    return {"rule": rule}


def build(cls: Type[R], value: object, where: str) -> R:
    """A record from a plain JSON object; unknown fields are ignored.

    Raises InvalidMessage naming the field, what it must be and what it was.
    """
    if not isinstance(value, dict):
        raise _wrong(where, "an object", value)
    plain_value = cast(Dict[str, object], value)
    given: Dict[str, Any] = {}
    for name, rule, required in _table(cls):
        if name in plain_value:
            given[name] = rule(plain_value[name], f"{where}.{name}")
        elif required:
            raise InvalidMessage(f"{where}: the field {name!r} is missing")
    record_ = cls(**given)
    problem = record_.problem()
    if problem:
        raise InvalidMessage(f"{where}: {problem}")
    return record_


def plain(record_: Record) -> Dict[str, object]:
    """The record as a plain JSON object; fields that are None are left out."""
    return {
        name: _plain(getattr(record_, name))
        for name, _, _ in _table(type(record_))
        if getattr(record_, name) is not None
    }


def text(minimum: int = 0, maximum: int = 256) -> Rule:
    """One line of printable text of minimum..maximum characters."""

    def rule(value: object, where: str) -> str:
        if not isinstance(value, str) or not minimum <= len(value) <= maximum or not value.isprintable():
            raise _wrong(where, f"printable text of {minimum} to {maximum} characters", value)
        return value

    return rule


def matching(pattern: str, meaning: str) -> Rule:
    """Text that matches a pattern as a whole."""
    compiled = re.compile(pattern)

    def rule(value: object, where: str) -> str:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise _wrong(where, meaning, value)
        return value

    return rule


def prose(maximum: int) -> Rule:
    """Text of any characters, up to a length."""

    def rule(value: object, where: str) -> str:
        if not isinstance(value, str) or len(value) > maximum:
            raise _wrong(where, f"text of at most {maximum} characters", value)
        return value

    return rule


def integer(minimum: int = 0, maximum: int = INTEGER_MAX) -> Rule:
    """A whole number; true, false and 1.0 are none."""

    def rule(value: object, where: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
            raise _wrong(where, f"a whole number from {minimum} to {maximum}", value)
        return value

    return rule


def real(minimum: float = -inf, maximum: float = inf) -> Rule:
    """A finite number, given back as a float."""

    def rule(value: object, where: str) -> float:
        if (
            not isinstance(value, (int, float))
            or isinstance(value, bool)
            or not minimum <= value <= maximum
            or not isfinite(value)
        ):
            raise _wrong(where, f"a finite number from {minimum:g} to {maximum:g}", value)
        return float(value)

    return rule


def boolean(value: object, where: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise _wrong(where, "true or false", value)
    return value


def choice(*options: str) -> Rule:
    """One of a few words."""

    def rule(value: object, where: str) -> str:
        if not isinstance(value, str) or value not in options:
            raise _wrong(where, f"one of {', '.join(options)}", value)
        return value

    return rule


def optional(inner: Rule) -> Rule:
    """What the inner rule takes, or null."""

    def rule(value: object, where: str) -> Any:
        return None if value is None else inner(value, where)

    return rule


def sequence(inner: Rule, minimum: int = 0, maximum: int = 1024) -> Rule:
    """A list of minimum..maximum items, given back as a tuple."""

    def rule(value: object, where: str) -> Tuple[Any, ...]:
        if not isinstance(value, list) or not minimum <= len(cast(List[object], value)) <= maximum:
            raise _wrong(where, f"a list of {minimum} to {maximum} items", value)
        return tuple(inner(item, f"{where}[{i}]") for i, item in enumerate(cast(List[object], value)))

    return rule


def mapping(inner: Rule) -> Rule:
    """An object with any keys whose values all follow one rule."""

    def rule(value: object, where: str) -> Dict[str, Any]:
        if not isinstance(value, dict):
            raise _wrong(where, "an object", value)
        return {
            key: inner(item, f"{where}.{reprlib.repr(key)}") for key, item in cast(Dict[str, object], value).items()
        }

    return rule


def record(cls: Type[Record]) -> Rule:
    """An object that is a record of its own."""

    def rule(value: object, where: str) -> Record:
        return build(cls, value, where)

    return rule


def scalar(value: object, where: str) -> Any:
    """One JSON value that is no list and no object: text, number, true or false."""
    if not isinstance(value, (str, int, float)) or (isinstance(value, float) and not isfinite(value)):
        raise _wrong(where, "text, a finite number, true or false", value)
    return value


def anything(value: object, where: str) -> Any:
    """Any JSON value; the codec has already bounded its depth and size."""
    return value


@cache
def _table(cls: Type[Record]) -> Tuple[Tuple[str, Rule, bool], ...]:
    """(field name, rule, required) of a record class, in the order of its fields."""
    found: Tuple[Field[Any], ...] = fields(cast(Any, cls))
    return tuple((f.name, f.metadata["rule"], f.default is MISSING and f.default_factory is MISSING) for f in found)


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return plain(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in cast(Mapping[str, Any], value).items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in cast(List[Any], value)]
    return value


def _shown(value: object) -> str:
    return str(value) if isinstance(value, Record) else reprlib.repr(value)


def _wrong(where: str, meaning: str, value: object) -> InvalidMessage:
    return InvalidMessage(f"{where} must be {meaning}, got {reprlib.repr(value)}")
