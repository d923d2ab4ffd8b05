"""Tcl words as scripts hold them: braces, quotes, backslashes and comments, both ways.

It owns what Tcl would make of a text and refuses what Tcl would evaluate. It must not know nodes or knobs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.fakes.nuke.errors import NukeError

ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
BARE = re.compile(r"(?:\[stack 0\]|\\.|[^\s\"{}\[\];\\])(?:\\.|[^\s\"{}\[\];\\])*", re.DOTALL)
PLAIN = re.compile(r"[\w./:#%+,*@=-]+")


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a text, each as its words: braces are taken off, quotes taken off and unescaped.

    Raises NukeError for an unbalanced brace or quote, for text stuck to either, and for an unescaped `[` or `$` that
    Tcl would evaluate (`[stack 0]` and a whole word `$name` are what scripts need).
    """
    words: list[str] = []
    at = 0
    while at < len(text):
        letter = text[at]
        if letter in "\n;":
            if words:
                yield words
            words, at = [], at + 1
        elif text.startswith("\\\n", at):
            at += 2
        elif letter.isspace():
            at += 1
        elif letter == "#" and not words:
            at = text.find("\n", at) if "\n" in text[at:] else len(text)
        else:
            word, at = _word(text, at)
            if at < len(text) and not text[at].isspace() and text[at] != ";":
                raise NukeError(f"extra characters after a word in {text[max(at - 30, 0) : at + 20]!r}")
            words.append(word)
    if words:
        yield words


def list_items(text: str) -> list[str]:
    """The items of a Tcl list: `$` and `[` stand for themselves there."""
    return [item for item, _ in list_parts(text)]


def list_parts(text: str) -> list[tuple[str, bool]]:
    """The items of a Tcl list, each with whether it stood in braces."""
    items: list[tuple[str, bool]] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        braced = text[at] == "{"
        if text[at] in '{"':
            item, at = _braced(text, at) if text[at] == "{" else _quoted(text, at, evaluated=False)
            if at < len(text) and not text[at].isspace():
                raise NukeError(f"extra characters after a list item in {text!r}")
        else:
            match = re.compile(r"(?:\\.|\S)+", re.DOTALL).match(text, at)
            assert match is not None
            item, at = unescape(match[0]), match.end()
        items.append((item, braced))
    return items


def _word(text: str, at: int) -> tuple[str, int]:
    if text[at] == "{":
        return _braced(text, at)
    if text[at] == '"':
        return _quoted(text, at, evaluated=True)
    match = BARE.match(text, at)
    if match is None:
        raise NukeError(f"Tcl would evaluate or refuse {text[at : at + 40]!r}")
    bare = match[0]
    if re.search(r"(?<!\\)\$", bare) and not re.fullmatch(r"\$\w+", bare):
        raise NukeError(f"Tcl would evaluate {bare!r}")
    return (bare if bare.startswith("$") else unescape(bare)), match.end()


def _braced(text: str, at: int) -> tuple[str, int]:
    depth, end = 0, at
    while end < len(text):
        if text[end] == "\\":
            end += 2
            continue
        depth += (text[end] == "{") - (text[end] == "}")
        end += 1
        if depth == 0:
            return text[at + 1 : end - 1], end
    raise NukeError(f"unbalanced brace in {text[at : at + 40]!r}")


def _quoted(text: str, at: int, *, evaluated: bool) -> tuple[str, int]:
    end = at + 1
    while end < len(text) and text[end] != '"':
        if evaluated and text[end] in "[$":
            raise NukeError(f"Tcl would evaluate {text[end : end + 40]!r}")
        end += 2 if text[end] == "\\" else 1
    if end >= len(text):
        raise NukeError(f"unbalanced quote in {text[at : at + 40]!r}")
    return unescape(text[at + 1 : end]), end + 1


def unescape(text: str) -> str:
    """Take the backslashes off."""
    return re.sub(r"\\(.)", lambda found: ESCAPES.get(found[1], found[1]), text, flags=re.DOTALL)


def escape(text: str) -> str:
    """Put backslashes before what Tcl would evaluate inside quotes."""
    return re.sub(r'([\\\["$])', r"\\\1", text).replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")


def quote(text: str) -> str:
    """A text as one Tcl word."""
    return text if PLAIN.fullmatch(text) and not text.startswith("#") else f'"{escape(text)}"'


def brace(text: str) -> str:
    """A list item or expression as one Tcl word, in braces where it has several parts."""
    return text if re.fullmatch(r'[^\s{}\\"\[\]$]+', text) else f"{{{text}}}"
