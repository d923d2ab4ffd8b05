"""Bakes one frame of an HDRFuse node: exports its inputs, has the sidecar fuse them, and keeps the result's bytes.

It owns the order of these steps and which knobs take part. It must not know pixels, nor how a sidecar is started.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from typing import Dict, Iterator, Optional, Tuple

import nuke

from nuke_hdrgen import __version__
from nuke_hdrgen.bake.exr_header import exr_shape
from nuke_hdrgen.bake.paths import frame_path, result_pattern
from nuke_hdrgen.client.address import find_server
from nuke_hdrgen.client.connection import connect
from nuke_hdrgen.client.job import FrameBody, run_job, write_result
from nuke_hdrgen.host.export import export_frame
from nuke_hdrgen.wire.errors import BadInput, BadParameter, InvalidMessage, StorageError
from nuke_hdrgen.wire.messages import Colourspace, Frame, Open

INPUTS = 3
BAKED_KNOBS = ("ev1", "ev2", "ev3", "reference", "pack", "colourspace")
MIDDLE = "middle"


@dataclass(frozen=True)
class Exposure:
    """One connected input: its number on the node (1 to 3), its EV in stops, and the Write that exports it."""

    number: int
    ev: float
    write: nuke.Node


def bake_frame(gizmo: nuke.Node, frame: int, server: Optional[str] = None) -> str:
    """Bake `frame` of an HDRFuse node and point its Read at the result; returns the result's file.

    The node changes only after the file is in place. `server` names another sidecar than `$HDRGEN_SERVER` or the
    running one. Raises BadInput, BadParameter, StorageError, NoServer and whatever else the sidecar reports.
    """
    exposures = _exposures(gizmo)
    bake_id = _text(gizmo, "bake_id") or uuid.uuid4().hex[:12]
    scripts = {name: gizmo[name].toScript() for name in BAKED_KNOBS}
    scripts["inputs"] = " ".join(str(exposure.number) for exposure in exposures)
    pattern = result_pattern(_text(gizmo, "cache_root"), bake_id, scripts)
    request = _request(gizmo, exposures)
    path = frame_path(pattern, frame)
    with connect(find_server(server, os.environ), f"nuke-{os.getpid()}", f"nuke-hdrgen {__version__}") as connection:
        results = list(run_job(connection, request, _frames(exposures, frame, request)))
    if len(results) != 1:
        raise InvalidMessage(f"the sidecar sent {len(results)} results for one frame; update it to {__version__}")
    _make_folder(os.path.dirname(path))
    write_result(*results[0], path)
    _show(gizmo, bake_id, pattern, frame)
    return path


def _exposures(gizmo: nuke.Node) -> Tuple[Exposure, ...]:
    found: Tuple[Exposure, ...] = ()
    for number in range(1, INPUTS + 1):
        if gizmo.input(number - 1) is None:
            continue
        write = gizmo.node(f"HDRGenIn{number}")
        if write is None:
            raise BadInput(f"{gizmo.fullName()} has no HDRGenIn{number}; create the node anew from HDRFuse.gizmo")
        found += (Exposure(number, float(gizmo[f"ev{number}"].value()), write),)
    if len(found) < 2:
        raise BadInput(f"{gizmo.fullName()} has {len(found)} connected inputs; connect at least two exposures")
    return found


def _request(gizmo: nuke.Node, exposures: Tuple[Exposure, ...]) -> Open:
    return Open(
        id=uuid.uuid4().hex,
        operation="hdrfuse",
        frames=len(exposures),
        output=_colourspace(gizmo),
        pack=_text(gizmo, "pack") or None,
        parameters={"reference": _reference(_text(gizmo, "reference"), exposures)},
    )


def _reference(chosen: str, exposures: Tuple[Exposure, ...]) -> int:
    """The index among the frames that are sent, or -1 for the one with the middle EV."""
    numbers: Dict[str, int] = {str(exposure.number): index for index, exposure in enumerate(exposures)}
    if chosen != MIDDLE and chosen not in numbers:
        raise BadParameter(f"reference is input {chosen}, which is not connected; choose one of {', '.join(numbers)}")
    return numbers.get(chosen, -1)


def _frames(exposures: Tuple[Exposure, ...], frame: int, request: Open) -> Iterator[FrameBody]:
    """Each exposure's message and bytes, rendered when the one before has gone."""
    for index, exposure in enumerate(exposures):
        body = export_frame(exposure.write, frame)
        shape, channels = exr_shape(body, f"input {exposure.number}")
        yield Frame(request.id, index, frame, "exr", shape, channels, request.output, exposure.ev), body


def _show(gizmo: nuke.Node, bake_id: str, pattern: str, frame: int) -> None:
    """Point the node at the result; the range grows while the sequence stays the same."""
    same = _text(gizmo, "result_path") == pattern
    first, last = (int(gizmo[name].value()) for name in ("result_first", "result_last"))
    gizmo["bake_id"].setValue(bake_id)
    gizmo["result_first"].setValue(min(first, frame) if same else frame)
    gizmo["result_last"].setValue(max(last, frame) if same else frame)
    gizmo["result_path"].setValue(pattern)
    gizmo["show_result"].setValue(True)


def _make_folder(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be made ({error.strerror}); choose another cache_root") from error


def _colourspace(gizmo: nuke.Node) -> Colourspace:
    name = _text(gizmo, "colourspace")
    return Colourspace(name, name)


def _text(gizmo: nuke.Node, name: str) -> str:
    return str(gizmo[name].value()).strip()
