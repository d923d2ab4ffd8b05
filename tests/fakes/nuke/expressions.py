"""Nuke's expression language, as far as the gizmos need it: parsed once, evaluated over numbers or whole pictures.

It owns grammar and operators. It must not know knobs, nodes or numpy: names come from a `Scope`, and what an operator
does to an array from an `Operators` (`SCALARS` for numbers).
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any, Callable, Dict, Optional, Tuple  # noqa: UP035

from tests.fakes.nuke.errors import NukeError

TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?)"
    r"|(?P<name>\$?[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)"
    r"|(?P<sign>\|\||&&|==|!=|<=|>=|[-+*/%<>!?:(),]))"
)
LEVELS = (("||",), ("&&",), ("==", "!="), ("<", ">", "<=", ">="), ("+", "-"), ("*", "/", "%"))
ARGUMENTS = {
    "min": (2, 9), "max": (2, 9), "pow": (2, 2), "abs": (1, 1), "clamp": (1, 3), "floor": (1, 1), "int": (1, 1),
    "sqrt": (1, 1), "exp": (1, 1), "log": (1, 1),
}  # fmt: skip
Tree = Tuple[Any, ...]  # noqa: UP006
Names = Callable[[str, Optional[float]], Any]
Operators = Dict[str, Callable[..., Any]]  # noqa: UP006


def _divide(a: float, b: float) -> float:
    if b:
        return a / b
    return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a)


SCALARS: Operators = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _divide,
    "%": math.fmod,
    "==": lambda a, b: float(a == b),
    "!=": lambda a, b: float(a != b),
    "<": lambda a, b: float(a < b),
    ">": lambda a, b: float(a > b),
    "<=": lambda a, b: float(a <= b),
    ">=": lambda a, b: float(a >= b),
    "&&": lambda a, b: float(bool(a) and bool(b)),
    "||": lambda a, b: float(bool(a) or bool(b)),
    "!": lambda a: float(not a),
    "?": lambda test, yes, no: yes if test else no,
    "min": min,
    "max": max,
    "pow": math.pow,
    "abs": abs,
    "floor": lambda a: float(math.floor(a)),
    "int": lambda a: float(int(a)),
    "sqrt": math.sqrt,
    "exp": math.exp,
    "log": math.log,
}


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, str]] = []
        at = 0
        while text[at:].strip():
            match = TOKEN.match(text, at)
            if match is None:
                raise NukeError(f"expression {text!r}: this Nuke does not know {text[at:].strip()[:20]!r}")
            assert match.lastgroup is not None
            self._tokens.append((match.lastgroup, match[match.lastgroup]))
            at = match.end()

    def whole(self) -> Tree:
        tree = self._choice()
        if self._tokens:
            raise NukeError(f"expression {self._text!r}: {self._tokens[0][1]!r} is too much")
        return tree

    def _take(self, *signs: str) -> str | None:
        if self._tokens and self._tokens[0][0] == "sign" and self._tokens[0][1] in signs:
            return self._tokens.pop(0)[1]
        return None

    def _need(self, sign: str) -> None:
        if self._take(sign) is None:
            raise NukeError(f"expression {self._text!r}: {sign!r} is missing")

    def _choice(self) -> Tree:
        test = self._level(0)
        if self._take("?") is None:
            return test
        yes = self._choice()
        self._need(":")
        return ("?", test, yes, self._choice())

    def _level(self, level: int) -> Tree:
        if level == len(LEVELS):
            return self._one()
        left = self._level(level + 1)
        while (sign := self._take(*LEVELS[level])) is not None:
            left = (sign, left, self._level(level + 1))
        return left

    def _one(self) -> Tree:
        sign = self._take("-", "+", "!")
        if sign is not None:
            inner = self._one()
            return {"-": ("-", ("number", 0.0), inner), "+": inner, "!": ("!", inner)}[sign]
        if self._take("(") is not None:
            tree = self._choice()
            self._need(")")
            return tree
        kind, word = self._tokens.pop(0) if self._tokens else ("end", "the end")
        if kind == "number":
            return ("number", float(word))
        if kind != "name":
            raise NukeError(f"expression {self._text!r}: a value is missing at {word!r}")
        if self._take("(") is None:
            return ("name", word, None)
        arguments = [self._choice()]
        while self._take(",") is not None:
            arguments.append(self._choice())
        self._need(")")
        if word in ARGUMENTS:
            least, most = ARGUMENTS[word]
            if not least <= len(arguments) <= most:
                raise NukeError(f"expression {self._text!r}: {word} takes {least} to {most} arguments")
            return self._clamp(arguments) if word == "clamp" else (word, *arguments)
        if len(arguments) != 1:
            raise NukeError(f"expression {self._text!r}: this Nuke does not know the function {word!r}")
        return ("name", word, arguments[0])

    @staticmethod
    def _clamp(arguments: list[Tree]) -> Tree:
        value, *ends = arguments
        low, high = ends if len(ends) == 2 else (("number", 0.0), ("number", 1.0))
        return ("min", ("max", value, low), high)


@lru_cache(maxsize=None)  # noqa: UP033
def parse(text: str) -> Tree:
    """The tree of an expression. Raises NukeError for what this Nuke does not know."""
    return _Parser(text).whole()


def evaluate(tree: Tree, names: Names, operators: Operators = SCALARS) -> Any:
    """The value of a tree. `names(path, frame)` gives a name's value, at a frame where `path(frame)` was written."""
    if tree[0] == "number":
        return tree[1]
    if tree[0] == "name":
        at = None if tree[2] is None else evaluate(tree[2], names, operators)
        return names(tree[1], at)
    values = [evaluate(branch, names, operators) for branch in tree[1:]]
    if len(values) > 2 and tree[0] in {"min", "max"}:
        value = values[0]
        for other in values[1:]:
            value = operators[tree[0]](value, other)
        return value
    return operators[tree[0]](*values)
