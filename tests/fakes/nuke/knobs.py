"""Knobs: values with their types, animation, expressions, flags and script text.

It owns what a knob takes and says. It must not know pictures; names in expressions are looked up in `scope`, and what a
change sets off is the business of the running Nuke (`owner._nuke`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Union

from tests.fakes.nuke import scope
from tests.fakes.nuke.curves import NUMBER, Curve, number_text, parse_curve
from tests.fakes.nuke.errors import NukeError
from tests.fakes.nuke.expressions import SCALARS, evaluate, parse
from tests.fakes.nuke.tcl import escape, list_parts, quote, unescape

if TYPE_CHECKING:
    from tests.fakes.nuke.nodes import Node

NUMBERS = {"bool": 1, "int": 1, "double": 1, "colour": 4, "box": 4}
TEXTS = frozenset({"text", "file", "script", "channels", "format", "range", "tab", "divider"})
CLASS_NAMES = {
    "bool": "Boolean_Knob", "int": "Int_Knob", "double": "Double_Knob", "colour": "AColor_Knob", "box": "BBox_Knob",
    "text": "EvalString_Knob", "file": "File_Knob", "script": "PyScript_Knob", "channels": "Channel_Knob",
    "format": "Format_Knob", "range": "Range_Knob", "enum": "Enumeration_Knob", "tab": "Tab_Knob",
    "divider": "Text_Knob",
}  # fmt: skip
TCL_VALUE = re.compile(r"\[value ([\w.]+)\]")
HASHES = re.compile(r"#+|%0(\d+)d|%d")


@dataclass(frozen=True)
class Expression:
    """The text of an expression, without braces."""

    text: str


Component = Union[float, Curve, Expression]


@dataclass(frozen=True)
class Spec:
    """What a knob is: name, kind, items of an enum, text on the panel, and the flags it starts with."""

    name: str
    kind: str
    items: tuple[str, ...] = ()
    default: str = ""
    label: str = ""
    tooltip: str = ""
    flags: frozenset[str] = field(default_factory=frozenset)


class Knob:
    """One knob of one node."""

    def __init__(self, owner: Node, spec: Spec) -> None:
        self._owner, self._spec = owner, spec
        self._flags = set(spec.flags)
        self._state: Any = self._parsed(spec.default)
        self._saved_default = self._script()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise NukeError(f"this Nuke does not know {CLASS_NAMES[self._spec.kind]}.{name}")

    # What a knob says.

    def name(self) -> str:
        return self._spec.name

    def Class(self) -> str:
        return CLASS_NAMES[self._spec.kind]

    def node(self) -> Node:
        self._owner._alive()
        return self._owner

    def label(self) -> str:
        return self._spec.label

    def tooltip(self) -> str:
        return self._spec.tooltip

    def enabled(self) -> bool:
        return "DISABLED" not in self._flags

    def visible(self) -> bool:
        return not self._flags & {"HIDDEN", "INVISIBLE"}

    def values(self) -> list[str]:
        if self._spec.kind != "enum":
            raise NukeError(f"{self.Class()} has no values()")
        return list(self._spec.items)

    def value(self) -> Any:
        return self.valueAt(self._owner._nuke._now())

    def valueAt(self, frame: float) -> Any:
        self._here()
        if self._spec.kind in TEXTS:
            return self._state
        numbers = self._numbers(frame)
        if self._spec.kind == "enum":
            return self._spec.items[int(numbers[0])]
        if self._spec.kind in {"bool", "int"}:
            return {"bool": bool, "int": int}[self._spec.kind](numbers[0])
        return numbers[0] if len(numbers) == 1 else numbers

    def getValue(self) -> Any:
        return self.getValueAt(self._owner._nuke._now())

    def getValueAt(self, frame: float) -> Any:
        self._owner._alive()
        if self._spec.kind in TEXTS:
            return self._state
        numbers = self._numbers(frame)
        return numbers[0] if len(numbers) == 1 else numbers

    def evaluate(self, frame: float | None = None) -> str:
        """The text with `[value …]` replaced, and in a file knob the frame and the view."""
        self._owner._alive()
        if self._spec.kind not in TEXTS:
            raise NukeError(f"{self.Class()} has no evaluate()")
        now = self._owner._nuke._now() if frame is None else frame
        text = TCL_VALUE.sub(lambda found: scope.knob(self._owner, found[1])._text(now), self._state)
        if "[" in text or "$" in text:
            raise NukeError(f"{self._owner._path()}.{self._spec.name}: Tcl would evaluate {text!r}")
        if self._spec.kind != "file":
            return text
        text = text.replace("%V", self._owner._nuke._view())
        return HASHES.sub(lambda found: f"{int(now):0{_width(found)}d}", text)

    def isAnimated(self) -> bool:
        return self._has(Curve)

    def hasExpression(self) -> bool:
        return self._has(Expression)

    def toScript(self, quoted: bool = False) -> str:
        self._here()
        return self._word() if quoted else self._script()

    # What a knob takes.

    def setValue(self, value: Any) -> bool:
        self._here()
        if self.hasExpression():
            raise NukeError(f"{self._spec.name} follows an expression: a value set to it would not be seen")
        state = self._checked(value)
        if self.isAnimated():
            return self.setValueAt(value, self._owner._nuke._now())
        return self._become(state)

    def setValueAt(self, value: Any, frame: float) -> bool:
        self._here()
        if not self.isAnimated() or len(self._state) != 1:
            raise NukeError(f"{self._spec.name} is not animated: setAnimated() comes first")
        return self._become([self._state[0].with_key(float(frame), self._checked(value)[0])])

    def setAnimated(self) -> bool:
        self._here()
        if self._spec.kind in TEXTS or self._spec.kind == "enum":
            raise NukeError(f"{self.Class()} cannot be animated in this Nuke")
        now = self._owner._nuke._now()
        return self._become([Curve(((float(now), number, False),)) for number in self._numbers(now)])

    def clearAnimated(self) -> bool:
        self._here()
        return self._become(self._state if self._spec.kind in TEXTS else self._numbers(self._owner._nuke._now()))

    def setExpression(self, text: str) -> bool:
        self._here()
        if self._spec.kind in TEXTS:
            raise NukeError(f"{self.Class()} takes no expression")
        return self._become([Expression(text)], check=True)

    def fromScript(self, text: str) -> bool:
        self._here()
        return self._become(self._parsed(unescape(text) if self._spec.kind in TEXTS else text))

    def setEnabled(self, enabled: bool) -> None:
        self._here()
        (self._flags.discard if enabled else self._flags.add)("DISABLED")

    def setVisible(self, visible: bool) -> None:
        self._here()
        if visible:
            self._flags -= {"HIDDEN", "INVISIBLE"}
        else:
            self._flags.add("INVISIBLE")

    def execute(self) -> None:
        self._here()
        if self._spec.kind != "script":
            raise NukeError(f"{self._spec.name} is no button")
        self._owner._nuke._press(self)

    # Inside.

    def _here(self) -> None:
        self._owner._alive()
        self._owner._nuke._on_main_thread(f"{self._owner._path()}.{self._spec.name}")

    def _become(self, state: Any, *, check: bool = False) -> bool:
        if check:
            parse(state[0].text)
        before, self._state = self._script(), state
        if self._script() != before:
            self._owner._nuke._knob_changed(self, before)
        return True

    def _load(self, word: str) -> None:
        """Take a knob line's value, silently."""
        self._state = self._parsed(word)

    def _has(self, kind: type) -> bool:
        self._owner._alive()
        return self._spec.kind not in TEXTS and any(isinstance(part, kind) for part in self._state)

    def _numbers(self, frame: float) -> list[float]:
        return [self._number(part, frame) for part in self._state]

    def _number(self, part: Component, frame: float) -> float:
        if isinstance(part, Curve):
            return part.at(frame)
        if isinstance(part, Expression):
            return evaluate(parse(part.text), scope.names(self._owner, frame), SCALARS)
        return part

    def _text(self, frame: float) -> str:
        """What `[value …]` of this knob gives."""
        if self._spec.kind in TEXTS:
            return (
                self._state
                if self._spec.kind == "script"
                else TCL_VALUE.sub(lambda found: scope.knob(self._owner, found[1])._text(frame), self._state)
            )
        value = self.valueAt(frame)
        return (
            value if isinstance(value, str) else " ".join(map(number_text, value if type(value) is list else [value]))
        )

    def _parsed(self, word: str) -> Any:
        if self._spec.kind in TEXTS:
            return word
        if self._spec.kind == "enum":
            if word in self._spec.items:
                return [float(self._spec.items.index(word))]
            if not word.startswith("{"):
                raise NukeError(f"{self._spec.name} has no item {word!r}; it has {', '.join(self._spec.items)}")
        words = list_parts(word) or [("0", False)]
        most = NUMBERS.get(self._spec.kind, 1)
        if len(words) > most:
            raise NukeError(f"{self._spec.name}: {len(words)} values in {word!r}, where {most} fit")
        return [self._component(item, braced) for item, braced in words]

    def _component(self, text: str, braced: bool) -> Component:
        text = text[1:-1] if text.startswith("{") and text.endswith("}") else text
        if braced and not re.match(r"curve\b", text):
            parse(text)
            return Expression(text)
        if text in {"true", "false"} and self._spec.kind == "bool":
            return float(text == "true")
        hexadecimal = self._spec.kind == "int" and re.fullmatch(r"0x[0-9a-fA-F]+", text)
        if hexadecimal or NUMBER.fullmatch(text):
            number = float(int(text, 16) if hexadecimal else text)
            if self._spec.kind == "int" and not number.is_integer():
                raise NukeError(f"{self._spec.name} is a whole number, not {text}")
            return number
        if re.match(r"curve\b", text):
            return parse_curve(text)
        parse(text)
        return Expression(text)

    def _checked(self, value: Any) -> Any:
        kind = self._spec.kind
        if kind == "enum":
            if type(value) is int and 0 <= value < len(self._spec.items):
                return [float(value)]
            if type(value) is not str:
                raise TypeError(f"{self._spec.name}: an item or its index, not {value!r}")
            return self._parsed(value)
        if kind in TEXTS:
            if type(value) is not str:
                raise TypeError(f"{self._spec.name}: a string, not {value!r}")
            if kind == "file" and "\\" in value:
                raise NukeError(f"{self._spec.name}: a backslash in a path is an escape in Nuke: {value!r}")
            return value
        several = list(value) if isinstance(value, (list, tuple)) else [value]
        allowed = {"bool": (bool, int), "int": (int,)}.get(kind, (int, float))
        for one in several:
            if not isinstance(one, allowed) or (isinstance(one, bool) and kind != "bool"):
                raise TypeError(f"{self._spec.name}: {kind}, not {one!r}")
        if len(several) not in {1, NUMBERS[kind]}:
            raise TypeError(f"{self._spec.name}: {NUMBERS[kind]} values, not {len(several)}")
        return [float(one) for one in several]

    def _script(self) -> str:
        if self._spec.kind in TEXTS:
            return escape(self._state)
        return " ".join(map(self._part_script, self._state))

    def _part_script(self, part: Component) -> str:
        if isinstance(part, Curve):
            return f"{{{part.script()}}}"
        if isinstance(part, Expression):
            return f"{{{part.text}}}"
        if self._spec.kind == "enum":
            return self._spec.items[int(part)]
        return ("true" if part else "false") if self._spec.kind == "bool" else number_text(part)

    def _word(self) -> str:
        """The value as one word of a knob line."""
        if self._spec.kind in TEXTS:
            return quote(self._state)
        plain = self._spec.kind == "enum" and not self.hasExpression()
        return quote(self._script()) if plain else _braced(self._script())


def _braced(text: str) -> str:
    return f"{{{text}}}" if " " in text or text.startswith("{") else text


def _width(found: re.Match[str]) -> int:
    if found[0].startswith("#"):
        return len(found[0])
    return int(found[1] or 1)
