"""Bakes a shot by a pack that looks at several frames together: what is there is compared, the rest is sent by windows.

It owns the order of that. It must not know threads of lanes, buttons or how a result gets its name.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from dataclasses import replace
from typing import Dict, Iterator, List, Mapping, Sequence

from nuke_hdrgen.bake.shots import Shot, ShotJob, plan_shot
from nuke_hdrgen.client.connection import Connection
from nuke_hdrgen.client.job import FrameBody, run_job
from nuke_hdrgen.host.inputs import Ahead, Exported, Exporter
from nuke_hdrgen.host.ledger import Ledger
from nuke_hdrgen.host.orders import Order, Piece, open_request
from nuke_hdrgen.wire.errors import InvalidMessage
from nuke_hdrgen.wire.identity import result_key
from nuke_hdrgen.wire.messages import Open, PackInfo, Progress

Pieces = Mapping[int, Piece]
"""The pieces of one view by their frames, in order."""


class ShotBake:
    """The pieces of an order as parts of its shot."""

    def __init__(
        self, order: Order, shot: Shot, pack: PackInfo, ledger: Ledger, exporter: Exporter, stop: threading.Event
    ) -> None:
        """Raises BadParameter for what cannot be baked as a shot."""
        task = order.pieces[0].task
        frames = [piece.task.frame for piece in order.pieces]
        self._plan = plan_shot(shot, pack, task.parameters, frames, order.name)
        self._parameters = self._plan.parameters(task.parameters)
        self._order, self._pack, self._ledger, self._exporter, self._stop = order, pack, ledger, exporter, stop

    def run(self, connection: Connection) -> None:
        """Make what is not there, one view after the other."""
        for view in self._order.views:
            pieces = {piece.task.frame: piece for piece in self._order.pieces if piece.task.view == view}
            for job in self._plan.jobs(self._missing(pieces)):
                self._bake(connection, job, pieces)

    def _missing(self, pieces: Pieces) -> List[int]:
        """The frames without a result from what Nuke renders now; for those that have none at all it renders none."""
        missing: List[int] = []
        identities: Dict[int, str] = {}
        for frame, piece in pieces.items():
            if self._ledger.known(piece):
                inputs = self._plan.inputs(frame)
                for number in inputs:
                    if number not in identities:
                        identities[number] = self._identity(piece, number)
                key = self._key(self._request(piece, len(inputs)), frame, [identities[number] for number in inputs])
                if self._ledger.there(piece, key):
                    self._ledger.settle(piece, sent=False)
                    continue
            missing.append(frame)
        return missing

    def _bake(self, connection: Connection, job: ShotJob, pieces: Pieces) -> None:
        """Send one job's frames and keep the results that are wanted, each as it comes."""
        waiting = {frame: pieces[frame] for frame in job.wanted}
        piece = waiting[job.wanted[0]]
        request = self._request(piece, len(job.frames))
        sent: List[str] = []

        def bodies(exports: Ahead[Exported]) -> Iterator[FrameBody]:
            for one in exports:
                sent.append(one.identity)
                yield one.frame, one.take()

        def step(progress: Progress) -> None:
            self._ledger.step(next(iter(waiting.values()), piece), progress)

        folder = tempfile.mkdtemp(prefix="hdrgen-")
        try:
            with Ahead(self._export(piece, number, folder, job.frames.start) for number in job.frames) as exports:
                for result, body in run_job(connection, request, bodies(exports), step, self._stop, exports.ready):
                    frame = job.frames.start + result.index
                    made = waiting.pop(frame, None)
                    if made is None:  # it only stands in a window with one
                        continue
                    inputs = self._plan.inputs(frame)
                    first = inputs.start - job.frames.start
                    key = self._key(request, frame, sent[first : first + len(inputs)])
                    self._ledger.keep(made, result, body, key)
                    self._ledger.settle(made, sent=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if waiting:
            raise InvalidMessage(f"the sidecar ended the shot without frame {min(waiting)}; bake again")

    def _identity(self, piece: Piece, number: int) -> str:
        folder = tempfile.mkdtemp(prefix="hdrgen-")
        try:
            return self._export(piece, number, folder, number).identity
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _export(self, piece: Piece, number: int, folder: str, first: int) -> Exported:
        source = replace(piece.task.sources[0], frame=number)
        return self._exporter.export(source, piece.task.view, number - first, folder)

    def _request(self, piece: Piece, count: int) -> Open:
        attributes = {"gizmo": self._order.gizmo.name, "shot": self._plan.shot.text, "view": piece.task.view}
        request = open_request(self._order, piece, self._pack)
        return replace(request, frames=count, parameters=self._parameters, attributes=attributes)

    def _key(self, request: Open, frame: int, inputs: Sequence[str]) -> str:
        """The key of a frame's result from the identities of all that it is made from."""
        index = frame - self._plan.inputs(frame).start
        return result_key(request, self._pack.digest, self._pack.revision, request.output, inputs, index)
