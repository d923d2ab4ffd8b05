"""A fake Nuke with one small gizmo on its plugin path."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.nuke.api import FakeNuke
from tests.fakes.nuke.errors import REFUSED

LOG = "import builtins; builtins.fake_nuke_log.append("
GIZMO = f"""Gizmo {{
 inputs 2
 onCreate "{LOG}('create', nuke.thisNode().name()))"
 knobChanged "{LOG}('changed', nuke.thisNode().name(), nuke.thisKnob().name()))"
 addUserKnob {{20 Small l Small}}
 addUserKnob {{7 gain l "gain" t "Times this." R 0 4}}
 gain 1
 addUserKnob {{4 mode M {{"one word" two}}}}
 addUserKnob {{3 baked}}
 addUserKnob {{6 show +STARTLINE}}
 show true
 addUserKnob {{2 result}}
 addUserKnob {{1 status +DISABLED +DO_NOT_WRITE}}
 addUserKnob {{22 press l "Press" T "nuke.thisNode()['status'].setValue(nuke.thisKnob().name())"}}
}}
 Input {{
  inputs 0
  name Input1
 }}
set N1 [stack 0]
 Write {{
  file ""
  file_type exr
  datatype "32 bit float"
  compression none
  channels rgba
  raw true
  create_directories true
  name Out
  disable true
 }}
push $N1
 Input {{
  inputs 0
  name Input2
  number 1
 }}
push $N1
 Multiply {{
  channels rgb
  value {{{{parent.gain}}}}
  name Gain
 }}
 Output {{
  name Output1
 }}
end_group
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A plugin folder with the gizmo Small."""
    found = tmp_path / "plugins"
    found.mkdir()
    (found / "Small.gizmo").write_text(GIZMO)
    return found


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What the gizmo's hooks ran."""
    import builtins

    found: list[tuple[str, ...]] = []
    monkeypatch.setattr(builtins, "fake_nuke_log", found, raising=False)
    return found


@pytest.fixture(autouse=True)
def _refusals() -> Iterator[None]:
    REFUSED.clear()
    yield
    REFUSED.clear()


@pytest.fixture
def nuke(folder: Path, log: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch) -> FakeNuke:
    """A Nuke without a GUI that knows the gizmo."""
    return started(FakeNuke(), folder, monkeypatch)


@pytest.fixture
def gui(folder: Path, log: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch) -> FakeNuke:
    """A Nuke with a GUI that knows the gizmo."""
    return started(FakeNuke(gui=True), folder, monkeypatch)


def started(fake: FakeNuke, folder: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNuke:
    """Put a Nuke in place and start it with one folder."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name, module in fake.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    fake.start([folder])
    return fake
