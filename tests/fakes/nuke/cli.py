"""Nuke's command line: `-t` for a Python script, `-x` for a render, and for tests `--gui` for a Python file in a GUI.

It owns arguments, start-up and exit codes (0, 1 for a failed render or script, 70 for what this Nuke does not know). It
must not know pixels.
"""

from __future__ import annotations

import os
import re
import runpy
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes.nuke import render
from tests.fakes.nuke.api import FakeNuke
from tests.fakes.nuke.errors import REFUSED, NukeError
from tests.fakes.nuke.nodes import Node

RANGE = re.compile(r"(-?\d+)(?:[-,](-?\d+))?(?:x(\d+))?")
EDITIONS = {"--nc": "nc", "--indie": "indie", "--nukeassist": "assist"}
UNKNOWN = 70


@dataclass
class Arguments:
    """What the command line says."""

    mode: str = ""
    writes: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    carry_on: bool = False
    edition: str = ""
    file: str = ""
    rest: list[str] = field(default_factory=list)


class TerminalNuke(FakeNuke):
    """A Nuke that says what it says on stdout, as it happens."""

    def _say(self, line: str) -> None:
        super()._say(line)
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def arguments(words: Sequence[str]) -> Arguments:
    """Read the command line. A last argument that looks like a frame range is taken away from the script, as in Nuke.

    Raises NukeError for an option that this Nuke does not know.
    """
    found = Arguments()
    left = list(words)
    while left and left[0].startswith("-"):
        _option(found, left.pop(0), left)
    if not left or not found.mode:
        raise NukeError("nuke (-t|--gui) FILE.py [ARGUMENT…] or nuke -x [-X WRITES] [-F RANGE] FILE.nk")
    found.file, *found.rest = left
    if found.rest and RANGE.fullmatch(found.rest[-1]):
        found.ranges.append(found.rest.pop())
    return found


def _option(found: Arguments, word: str, left: list[str]) -> None:
    if word in {"-t", "-x", "--gui"}:
        found.mode = found.mode or word
    elif word == "-X":
        found.mode = "-x"
        found.writes += left.pop(0).split(",")
    elif word == "-F":
        found.ranges.append(left.pop(0))
    elif word == "-V":
        if left and left[0].isdigit():
            left.pop(0)
    elif word == "-m":
        left.pop(0)
    elif word == "--cont":
        found.carry_on = True
    elif word in EDITIONS:
        found.edition = EDITIONS[word]
    elif word != "-i":
        raise NukeError(f"this Nuke does not know the option {word}")


def frames(text: str) -> range:
    """`5`, `1-10` or `1-10x2` as frames. Raises NukeError for anything else."""
    match = RANGE.fullmatch(text)
    if match is None:
        raise NukeError(f"{text!r} is no frame range")
    first = int(match[1])
    return range(first, int(match[2] or first) + 1, int(match[3] or 1))


def main(words: Sequence[str]) -> int:
    """Run one Nuke; its exit code."""
    try:
        code = _run(arguments(words), words)
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except (NukeError, Exception):
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    if REFUSED:
        sys.stderr.write("".join(f"this Nuke refused: {error}\n" for error in REFUSED))
        return UNKNOWN
    return code


def _run(found: Arguments, words: Sequence[str]) -> int:
    nuke = TerminalNuke(gui=found.mode == "--gui", **({found.edition: True} if found.edition else {}))
    nuke.rawArgs = ["nuke", *words]
    sys.modules.update(nuke.modules())
    path = os.environ.get("NUKE_PATH", "")
    nuke.start([Path(folder) for folder in path.split(os.pathsep) if folder and Path(folder).is_dir()])
    if found.mode == "-x":
        return _render(nuke, found)
    sys.argv = [found.file, *found.rest]
    runpy.run_path(found.file, run_name="__main__")
    return 0


def _render(nuke: FakeNuke, found: Arguments) -> int:
    try:
        nuke.scriptOpen(found.file)
        writes = _writes(nuke, found.writes)
        failed = False
        for node in writes:
            for several in _ranges(nuke, node, found.ranges):
                failed = not _rendered(nuke, node, several, found.carry_on) or failed
    except RuntimeError as error:
        sys.stderr.write(f"ERROR: {error}\n")
        return 1
    return int(failed)


def _rendered(nuke: FakeNuke, node: Node, several: range, carry_on: bool) -> bool:
    try:
        render.execute(nuke, node, several, nuke.views(), continue_on_error=carry_on)
    except RuntimeError as error:
        if not carry_on:
            raise
        sys.stderr.write(f"ERROR: {error}\n")
        return False
    return True


def _writes(nuke: FakeNuke, names: Sequence[str]) -> list[Node]:
    """The Writes to render, by render_order: the named ones, else every one that is enabled, inside groups too."""
    if names:
        found = [(name, nuke.toNode(name)) for name in names]
        missing = [name for name, node in found if node is None]
        if missing:
            raise RuntimeError(f"no node {missing[0]!r} to render")
        writes = [node for _, node in found if node is not None]
    else:
        writes = [node for node in nuke.allNodes("Write", recurseGroups=True) if not node["disable"].value()]
    if not writes:
        raise RuntimeError("no active Write operators in the script")
    return sorted(writes, key=lambda node: node["render_order"].value())


def _ranges(nuke: FakeNuke, node: Node, texts: Sequence[str]) -> list[range]:
    root = nuke.root()
    if not texts and node["use_limit"].value():
        return [range(node["first"].value(), node["last"].value() + 1)]
    if not texts:
        return [range(root["first_frame"].value(), root["last_frame"].value() + 1)]
    return [frames(text) for text in texts]
