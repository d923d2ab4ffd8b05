"""Runs a planned bake: two lanes of jobs, each exporting through Nuke's main thread and talking to the sidecar itself.

It owns the lanes, the choice of the pack and the order of a job: export, is it there already, send, keep. Sockets and
files are touched in its own threads only. It must not know buttons, command lines or how progress is shown.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections import deque
from functools import partial
from typing import Callable, Deque, Iterator, List, Sequence

from nuke_hdrgen.client.connection import Connection
from nuke_hdrgen.client.job import FrameBody, run_job
from nuke_hdrgen.host import results
from nuke_hdrgen.host.inputs import Exported, Exporter
from nuke_hdrgen.host.ledger import Ledger, Report, Summary
from nuke_hdrgen.host.main_thread import MainThread
from nuke_hdrgen.host.orders import Order, Piece, open_request
from nuke_hdrgen.host.shots import ShotBake
from nuke_hdrgen.wire.errors import BadParameter, Cancelled, LicenceNotAccepted, UnknownPack
from nuke_hdrgen.wire.identity import result_key
from nuke_hdrgen.wire.messages import PackInfo, Welcome

LANES = 2  # one frame computes while the next is rendered and sent
POLL_S = 0.1

Connect = Callable[[], Connection]
Work = Callable[[Connection], None]


class Bake:
    """One bake under way. `run` blocks its thread; `cancel` may come from any."""

    def __init__(self, order: Order, main: MainThread, connect: Connect, report: Report) -> None:
        self.order = order
        self.done = threading.Event()
        self._connect, self._report = connect, report
        self._stop = threading.Event()
        self._cancelled = False
        self._ledger = Ledger(order, report)
        self._exporter = Exporter(order, main, self._stop)

    def cancel(self) -> None:
        """End the bake soon; finished frames stay."""
        self._cancelled = True
        self._stop.set()

    def run(self) -> Summary:
        """Make every piece that is not there. Raises the first failure; what was finished before it stays."""
        summary = self._ledger.summary
        with self._connect() as connection:
            welcome = connection.welcome
            assert welcome is not None
            pack = choose_pack(self.order, welcome)
            work = self._work(pack)
            results.check_writable(os.path.dirname(self.order.path(self.order.pieces[0], self.order.take)))
            summary.pack = pack.name
            summary.device = welcome.workers[0].device if welcome.workers else "device"
            self._report.begin(len(self.order.pieces), pack.name, summary.device)
            started = time.monotonic()
            try:
                self._run_lanes(connection, work)
            finally:
                self._report.end()
            summary.seconds = time.monotonic() - started
        return summary

    def _work(self, pack: PackInfo) -> Sequence[Work]:
        """What lanes take, one after another: the pieces, or the shot where the pack looks at its frames together."""
        order = self.order
        if pack.window > 1 and order.shot is not None:
            return [ShotBake(order, order.shot, pack, self._ledger, self._exporter, self._stop).run]
        if pack.window > 1 and len(order.pieces) > 1:
            self._ledger.summary.warnings.append(
                f"{pack.name} looks at {pack.window} frames together; frame by frame makes a still of each, which "
                "takes longer and may flicker: choose shot"
            )
        return [partial(self._bake, pack=pack, piece=piece) for piece in order.pieces]

    def _run_lanes(self, connection: Connection, work: Sequence[Work]) -> None:
        """Run the lanes to their end; daemons, so that a Nuke that quits in mid bake does not wait for them."""
        own = [connection, *(connection.again() for _ in work[1:LANES])]
        waiting, failures = deque(work), list[Exception]()
        lanes = [
            threading.Thread(target=self._lane, args=(one, waiting, failures), name="hdrgen lane", daemon=True)
            for one in own
        ]
        for lane in lanes:
            lane.start()
        while any(lane.is_alive() for lane in lanes):
            lanes[-1].join(POLL_S)
            lanes[0].join(0.0 if lanes[-1].is_alive() else POLL_S)
            if not self._stop.is_set() and self._report.cancelled():
                self.cancel()
        for one in own[1:]:
            one.close()
        if self._cancelled:
            raise Cancelled(f"the bake of {self.order.name} was cancelled; finished frames are kept")
        if failures:
            raise failures[0]

    def _lane(self, connection: Connection, waiting: Deque[Work], failures: List[Exception]) -> None:
        """The top of a lane's thread: work until none waits; the first failure stops all lanes."""
        try:
            while not self._stop.is_set():
                try:
                    work = waiting.popleft()
                except IndexError:
                    return
                work(connection)
        except Exception as error:  # noqa: BLE001  # not swallowed: the bake raises the first
            failures.append(error)
            self._stop.set()

    def _bake(self, connection: Connection, pack: PackInfo, piece: Piece) -> None:
        folder, task = tempfile.mkdtemp(prefix="hdrgen-"), piece.task
        try:
            inputs = [
                self._exporter.export(source, task.view, index, folder) for index, source in enumerate(task.sources)
            ]
            request = open_request(self.order, piece, pack)
            key = result_key(request, pack.digest, pack.revision, request.output, [one.identity for one in inputs], 0)
            if self._ledger.there(piece, key):
                self._ledger.settle(piece, sent=False)
                return
            for result, body in run_job(
                connection, request, _bodies(inputs), partial(self._ledger.step, piece), self._stop
            ):
                self._ledger.keep(piece, result, body, key)
            self._ledger.settle(piece, sent=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def choose_pack(order: Order, welcome: Welcome) -> PackInfo:
    """The pack that will run: the node's, else the sidecar's default, for shots where it has one of their own.

    Raises UnknownPack, BadParameter when it cannot do this, LicenceNotAccepted.
    """
    operation = order.gizmo.operation
    able = ", ".join(pack.name for pack in welcome.packs if operation in pack.operations) or "none"
    usual = welcome.defaults.get(f"{operation}/{order.quality}", "")
    if order.shot is not None and order.shot.count > 1:
        usual = welcome.defaults.get(f"{operation}.shot/{order.quality}", usual)
    name = order.pack or usual
    if not name:
        raise UnknownPack(f"the sidecar has no default pack for {operation}; name one in `pack`: {able}")
    pack = next((pack for pack in welcome.packs if pack.name == name), None)
    if pack is None:
        raise UnknownPack(f"the sidecar has no pack {name!r}; for {operation} it has: {able}")
    if operation not in pack.operations:
        raise BadParameter(f"pack {name} does not do {operation}; packs that do: {able}")
    if not pack.licence_ok:
        raise LicenceNotAccepted(
            f"the licence of {name} ({pack.licence}) is not accepted on this machine; read and accept it with "
            f"`hdrgen packs accept {name}`"
        )
    return pack


def _bodies(inputs: Sequence[Exported]) -> Iterator[FrameBody]:
    for one in inputs:
        yield one.frame, one.read()
